"""`report`: one page that says what happened to a crawl, or the ledger as JSON.

Reads the record of a run (`runs/<time>-<id>.json`) and the unit manifests that it names; writes `builds/<id>/report.html`
into the same output, or prints JSON to standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.report_page import faults, page
from jobs.report_sections import adds
from jobs.terminal import show_json, tell
from jobs.token_scores import token_scores
from pipeline.errors import InputError
from pipeline.store import Store, open_store
from pipeline.store_local import LocalStore
from pipeline.summary import summarize

DONE, BROKEN = 0, 1


@dataclass(frozen=True)
class Located:
    """A finished run: its store, the output as a person typed it, the run's record, and the name of that in the store."""

    store: Store
    output: str
    record: dict[str, Any]
    name: str

    @property
    def added(self) -> bool:
        """Tell whether the run added columns to a build that was there."""
        return adds(self.record.get("stages", []))


def locate(build: str, *, made: bool = False) -> Located:
    """Find the run that `build` names: an output folder (its newest run), a `runs/*.json`, or a `builds/<id>` folder.

    With `made` runs that only added columns to a build are passed over.

    Raises:
        InputError: there is no finished run; says where it was looked for and what is allowed.
    """
    parts = build.rstrip("/").split("/")
    if parts[-1].endswith(".json") and parts[-2:-1] == ["runs"]:
        output, names, wanted = "/".join(parts[:-2]), [f"runs/{parts[-1]}"], None
    elif parts[-2:-1] == ["builds"]:
        output, names, wanted = "/".join(parts[:-2]), None, parts[-1]
    else:
        output, names, wanted = "/".join(parts), None, None
    output = output or ("/" if build.startswith("/") else ".")
    store = open_store(output)
    for name in names if names is not None else _newest(store):
        try:
            record = json.loads(store.read(name))
        except FileNotFoundError:
            continue
        found = Located(store, output, record, name)
        if wanted in (None, record["build"]) and not (made and found.added):
            return found
    looked = store.uri(names[0] if names else "runs/")
    raise InputError(
        f"{build!r}: no finished build there (looked in {looked!r}). Give the output folder of a build, one of its "
        "builds/<id> or one of its runs/*.json; `python -m jobs build CONFIG` makes them"
    )


def _newest(store: Store) -> list[str]:
    """Return the records of runs, the newest first: their names begin with the time."""
    names = (name.rsplit("/", 1)[-1] for name in store.list("runs"))
    return [f"runs/{name}" for name in sorted(names, reverse=True) if name.endswith(".json")]


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
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    elif not store.put_new(name, content) and store.read(name) != content:
        name = f"builds/{build}/{page_name}-{hashlib.sha256(content).hexdigest()[:8]}.html"
        store.put_new(name, content)
    return store.uri(name)


def page_name(found: Located) -> str:
    """Return the name of the page: `report`, with the time of the run where it added columns to the build."""
    return f"report-{found.name.rpartition('/')[2].partition('-')[0]}" if found.added else "report"


def run(build: str, *, as_json: bool = False) -> int:
    """Write the page (or print the ledger); return the exit code: 1 when the ledger does not add up, which is a bug."""
    found = locate(build)
    summary = summarize(found.store, found.record)
    if as_json:
        show_json(summary)
    else:
        scores = token_scores(found.store, found.record["manifest"])
        path = write(found.store, summary["build"], page(summary, found.output, scores), page_name(found))
        tell(f"report: {path}")
    wrong = faults(summary)
    for line in wrong:
        tell(f"the ledger does not add up: {line}")
    return BROKEN if wrong else DONE
