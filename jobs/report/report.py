"""`report`: one page that says what happened to a crawl, or the ledger as JSON.

Reads the record of a run (`runs/run-<number>.json`) and the unit manifests that it names; writes `builds/<id>/report.html`
into the same output, or prints JSON to standard output.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

from gristmill.errors import InputError
from gristmill.format import fields
from gristmill.storage.local import LocalStore
from gristmill.storage.scratch import held_file
from gristmill.storage.store import Store
from jobs.report.bucket_figures import bucket_figures
from jobs.report.page import faults, page
from jobs.report.token_scores import token_scores
from jobs.terminal import show_json, tell
from pipeline.builds.locate import LocatedRun, locate_run
from pipeline.builds.summary import faults_of_files, summarize

DONE, BROKEN = 0, 1


def write(store: Store, build: str, text: str, page_name: str = "report") -> str:
    """Put the page into the build's folder as `<page_name>.html`; return where a person finds it.

    A page is a view of a run, so on a local disk it replaces the one before. A remote store never overwrites: there
    another page of the same build gets its own name.
    """
    content = text.encode("utf-8", "replace")
    name = f"builds/{build}/{page_name}.html"
    if isinstance(store, LocalStore):
        target = Path(store.root) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.parent.resolve().is_relative_to(Path(store.root).resolve()):
            raise InputError(f"{target.parent}: leads out of the output ({target.parent.resolve()}); nothing is written there")
        with held_file(target.parent, target.name) as (temporary, file):
            file.write(content)
            file.flush()
            os.replace(temporary, target)
    elif not store.put_new(name, content) and store.read(name) != content:
        name = f"builds/{build}/{page_name}-{hashlib.sha256(content).hexdigest()[:8]}.html"
        store.put_new(name, content)
    return store.uri(name)


def page_name(found: LocatedRun) -> str:
    """Return the name of the page: `report`, with the name of the run where it added columns to the build."""
    return f"report-{found.name.rpartition('/')[2].removesuffix('.json')}" if found.added else "report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `report` takes."""
    parser.add_argument("build", help="a build's output folder, or one of its builds/<id>")
    parser.add_argument("--json", action="store_true", help="print the ledger instead")
    parser.add_argument(
        "--verify", action="store_true", help="compare the build's files with their sha256, not their sizes alone"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    return report(arguments.build, as_json=arguments.json, verify=arguments.verify)


def report(build: str, *, as_json: bool = False, verify: bool = False) -> int:
    """Write the page (or print the ledger); return the exit code.

    It is 1 when the ledger does not add up, which is a bug, or when files of the build are missing or have another size; with
    `verify` when their sha256 is another, too.
    """
    found = locate_run(build)
    summary = summarize(found.store, found.record)
    summary["buckets"] = bucket_figures(found.store, found.record, summary)
    damaged = faults_of_files(found.store, summary, whole=verify)
    if as_json:
        show_json(summary)
    else:
        for key in ("on", "version", "started"):
            fields.get(found.record.run, key, str, f"{found.store.uri(found.name)}: run")
        scores = None if damaged else token_scores(found.store, found.record.manifest)
        path = write(found.store, summary["build"], page(summary, found.output, scores), page_name(found))
        tell(f"report: {path}")
    wrong = faults(summary)
    for line in wrong:
        tell(f"the ledger does not add up: {line}")
    for line in damaged:
        tell(f"damaged: {line}; `python -m jobs build CONFIG{' --verify' if verify else ''}` puts it back")
    return BROKEN if wrong or damaged else DONE
