"""One side of `benchmarks.end_to_end`: a process that loads a chain and then runs it whenever it is told to.

    python -m benchmarks._chains gristmill-trafilatura|gristmill-resiliparse|datatrove FOLDER

Reads JSON lines from standard input: `{"folder": an empty folder, "warcs": [paths]}`; runs the chain on one core, writes into
that folder (FOLDER is for what is kept between runs), and answers with a line `{"cpu": CPU seconds of this process and its
children, "wall": ..., "counts": {step: documents that left it}}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks._turns import cpu_seconds

Counts = dict[str, int]
Run = Callable[[Path, Sequence[str]], Counts]

ENGLISH = "en"


def gristmill(engine: Literal["trafilatura", "resiliparse"]) -> Run:
    """Return our chain in this very process: source to exact and fuzzy deduplication, the corpus written as texts."""
    from benchmarks import _datatrove
    from gristmill.storage.store import expand, open_store
    from pipeline.builds.finish import manifests
    from pipeline.engines.drive import Options, drive
    from pipeline.engines.local import LocalEngine
    from pipeline.planning.plan import make_plan
    from stages import STAGES

    def run(folder: Path, warcs: Sequence[str]) -> Counts:
        stages = [
            ("warc", STAGES["warc"](paths=tuple(warcs))),  # type: ignore[call-arg]
            ("extract_html", STAGES["extract_html"](engine=engine)),  # type: ignore[call-arg]
            ("language", STAGES["language"](keep=(ENGLISH,), min_score=_datatrove.MIN_SCORE, normalize="none")),  # type: ignore[call-arg]
            *((name, STAGES[name]()) for name in ("gopher_repetition", "gopher_quality", "fineweb_quality")),
            *((name, STAGES[name]()) for name in ("dedup_exact", "dedup_minhash", "documents")),
        ]
        plan = make_plan("end-to-end", stages, expand(warcs))
        outcome = drive(plan, lambda: LocalEngine(0), Options(str(folder)))
        assert outcome.build is not None, outcome.failures
        store = open_store(str(folder))
        return _kept([account for step in plan.steps for record in manifests(store, step) for account in record.ledger])

    return run


def _kept(ledgers: Sequence[Mapping[str, Any]]) -> Counts:
    """Return the documents that left each stage; a barrier's are those that left its second half."""
    counts: Counts = {}
    for account in ledgers:
        if account["phase"] != "before":
            counts[account["stage"]] = counts.get(account["stage"], 0) + account["kept"]
    return counts


def datatrove(cache: Path) -> Run:
    """Return datatrove's FineWeb chain (its examples/fineweb.py) through its own executor, one process a step.

    Left out, as we have no such stage yet: the URL filter, the C4 filter, the formatter of personal data. Left out, as it
    would need a network: the counting of tokens. Dropped documents are not written. Its first step's files are the tasks.
    """
    from benchmarks import _datatrove

    assert not _datatrove.missing(), _datatrove.INSTALL
    _datatrove.prepare(cache)
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    def run(folder: Path, warcs: Sequence[str]) -> Counts:
        source = folder / "warcs"
        source.mkdir()
        for number, path in enumerate(warcs):
            (source / f"{number:05d}.warc.gz").symlink_to(Path(path).resolve())
        base, signatures, buckets, remove, final = (folder / name for name in ("base", "sig", "dups", "remove", "final"))
        config = _datatrove.minhash_config()
        counts: Counts = {}

        def execute(name: str, tasks: int, *steps: Any) -> None:  # noqa: ANN401
            stats = LocalPipelineExecutor(list(steps), tasks, workers=1, logging_dir=str(folder / "logs" / name)).run()
            counts.update(_counts(stats))

        filters = _datatrove.heuristics().values()
        chain = (_datatrove.reader(source), _datatrove.extractor(), _datatrove.language([ENGLISH]), *filters)
        execute("base", len(warcs), *chain, JsonlWriter(str(base)))
        execute("1", len(warcs), JsonlReader(str(base)), _datatrove.signatures(signatures))
        execute("2", config.num_buckets, MinhashDedupBuckets(str(signatures), str(buckets), config=config))
        execute("3", 1, MinhashDedupCluster(str(buckets), str(remove), config=config))
        execute("4", len(warcs), JsonlReader(str(base)), MinhashDedupFilter(str(remove)), JsonlWriter(str(final)))
        return counts

    return run


def _counts(stats: Any) -> Counts:  # noqa: ANN401
    """Return the documents that left each of an executor's steps, under the names of our stages, and its failed extractions."""
    counts: Counts = {}
    for step in stats.stats:
        found = {label: int(value.total) for label, value in step.stats.items()}
        for part, name in NAMES.items():
            if part in step.name:
                counts[name] = found.get("documents", 0) if name == "warc" else found.get("forwarded", 0)
        if "Trafilatura" in step.name:
            counts["failed"] = sum(found.get(label, 0) for label in ("timeout", "broken_process", "clean_error"))
    return counts


NAMES = {
    "Warc": "warc",
    "Trafilatura": "extract_html",
    "Language ID": "language",
    "Gopher Repetition": "gopher_repetition",
    "Gopher Quality": "gopher_quality",
    "FineWeb Quality": "fineweb_quality",
    "MinHash stage 4": "dedup_minhash",
}

SIDES: dict[str, Callable[[Path], Run]] = {
    "gristmill-trafilatura": lambda _: gristmill("trafilatura"),
    "gristmill-resiliparse": lambda _: gristmill("resiliparse"),
    "datatrove": datatrove,
}


def main(side: str, folder: str) -> None:
    """Serve until the input ends."""
    # One core for the process and all it starts.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is not an answer
    run = SIDES[side](Path(folder))
    for line in sys.stdin:
        task = json.loads(line)
        wall, cpu = time.perf_counter(), cpu_seconds()
        counts = run(Path(task["folder"]), task["warcs"])
        result = {"cpu": cpu_seconds() - cpu, "wall": time.perf_counter() - wall, "counts": counts}
        answers.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
