"""Documents and megabytes a second of each stage on one core, beside datatrove's step for the same job.

Reads `examples/crawl`; writes into a temporary folder. Every stage gets what the stages before it left, and so does its peer;
the heuristics all get the English pages, so that none has less to do than another. Stages run on tables of 256 rows as in a
build, everything loaded and warm, and take turns with their peers (`_turns.py`). CPU seconds are those of the process and its
children (datatrove extracts in one). MB are of the text that goes in, 10^6 bytes of UTF-8. A stage without a peer has no ratio.

    python -m benchmarks.stages [--quick]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks import _datatrove, _table
from benchmarks._chains import ENGLISH
from benchmarks._turns import Ratio, Turns, Work, cpu_seconds, take_turns, timed
from benchmarks.end_to_end import CRAWL, select
from gristmill.storage.store import expand
from pipeline.schema import DROP, ERROR
from stages import STAGES
from stages.score.ngram import Ngram

BATCH_ROWS = 256
QUICK_PAGES, PAGES = 32, 210
QUICK_TURNS, TURNS = 3, 5
WARM_ROWS = 8

# What the prototypes reached over the same peer, in one run.
GOALS = {
    "warc": 20.0,
    "extract_html": 30.0,
    "extract_html (trafilatura)": 2.0,
    "language": 5.0,
    "gopher_repetition": 12.0,
    "gopher_quality": 12.0,
    "fineweb_quality": 12.0,
    "dedup_minhash": 300.0,
    "encode": 12.0,
    "documents": 5.0,
}


@dataclass(frozen=True)
class Job:
    """One row: what it works on, and how to get ready for that; getting ready is not measured."""

    name: str
    docs: pa.Table
    ours: Callable[[pa.Table], Work]
    peer_name: str = ""
    peer: Callable[[pa.Table], Work] | None = None


def split(docs: pa.Table) -> list[pa.Table]:
    """Return the documents in tables as the machine hands them out."""
    return [docs.slice(start, BATCH_ROWS) for start in range(0, docs.num_rows, BATCH_ROWS)]


def left(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows that no stage has decided on, without the columns of decisions."""
    docs = pa.concat_tables(tables)
    for name in (DROP, ERROR):
        if name in docs.column_names:
            docs = docs.filter(pc.is_null(docs[name])).drop_columns([name])
    return docs.combine_chunks()


def megabytes(docs: pa.Table) -> float:
    """Return the size of the texts in UTF-8, in 10^6 bytes."""
    return (pc.sum(pc.binary_length(docs["text"])).as_py() or 0) / 1e6


def tables_through(work: Callable[[pa.Table], Any]) -> Callable[[pa.Table], Work]:
    """Return how to run an opened stage over documents."""
    return lambda docs: lambda: [work(part) for part in split(docs)]


def sink_through(stage: Any, folder: Path) -> Callable[[pa.Table], Work]:  # noqa: ANN401 - a stage by its name
    """Return how to write documents with a sink, into a new folder each time."""
    write, numbers = stage.open(), count()

    def ready(docs: pa.Table) -> Work:
        place = folder / f"{type(stage).__name__}-{next(numbers)}"
        place.mkdir()
        return lambda: write(iter(split(docs)), place)

    return ready


def step_through(make: Callable[[], Any]) -> Callable[[pa.Table], Work]:
    """Return how to run one of datatrove's steps over documents, which it changes: they are made anew each time."""
    from datatrove.data import Document

    step = make()

    def ready(docs: pa.Table) -> Work:
        rows = docs.select(["id", "url", "text"]).to_pylist()
        documents = [Document(text=row["text"], id=row["id"], metadata={"url": row["url"]}) for row in rows]
        # The step that writes signatures is not a generator and returns nothing.
        return lambda: deque(step.run(iter(documents)) or (), maxlen=0)

    return ready


def jobs(folder: Path, paths: Sequence[str], peers: bool) -> Iterator[Job]:
    """Yield the rows in the order of a build; each works on what the one before left."""
    read = STAGES["warc"](paths=tuple(paths)).open()  # type: ignore[call-arg,attr-defined]
    files = expand(paths)

    def source() -> list[pa.Table]:
        return [table for file in files for table in read(file, BATCH_ROWS)]

    def step(make: Callable[[], Any]) -> Callable[[pa.Table], Work] | None:
        return step_through(make) if peers else None

    pages = left(source())
    yield Job("warc", pages, lambda _: source, "WarcReader", _reading(Path(paths[0]).parent) if peers else None)
    yield Job(
        "extract_html (trafilatura)",
        pages,
        _opened("extract_html", engine="trafilatura"),
        "Trafilatura",
        step(_datatrove.extractor),
    )
    extract = STAGES["extract_html"]().open()  # type: ignore[attr-defined]
    yield Job("extract_html", pages, tables_through(extract), "Trafilatura", step(_datatrove.extractor))
    texts = left([extract(part) for part in split(pages)])
    language = STAGES["language"](keep=(ENGLISH,), min_score=_datatrove.MIN_SCORE, normalize="none").open()  # type: ignore[call-arg,attr-defined]
    yield Job("language", texts, tables_through(language), "LanguageFilter", step(partial(_datatrove.language, [ENGLISH])))
    english = left([language(part) for part in split(texts)])
    for name in ("gopher_repetition", "gopher_quality", "fineweb_quality"):
        filter_of = {"gopher_repetition": "GopherRepetitionFilter", "gopher_quality": "GopherQualityFilter"}
        peer_name = filter_of.get(name, "FineWebQualityFilter")
        yield Job(name, english, _opened(name), peer_name, step(lambda name=name: _datatrove.heuristics()[name]))  # type: ignore[misc]
    yield Job("dedup_exact", english, _opened("dedup_exact"))
    signing = partial(_datatrove.signatures, folder / "signatures")
    yield Job("dedup_minhash", english, _opened("dedup_minhash"), "MinhashDedupSignature", step(signing))
    yield from _token_jobs(folder, english)
    writing = _writing(folder) if peers else None
    yield Job("documents", english, sink_through(STAGES["documents"](), folder), "JsonlWriter", writing)


def _token_jobs(folder: Path, docs: pa.Table) -> Iterator[Job]:
    """Yield the rows behind the tokenizer, which is trained on these very texts."""
    from gristmill.tokenizer import SCHEMES
    from gristmill.tokenizer.files import save
    from gristmill.tokenizer.training.corpus import make_corpus
    from gristmill.tokenizer.vocabulary import to_tokenizer

    vocabulary = SCHEMES["superbpe"](vocab_size=8000).train(make_corpus(docs["text"].to_pylist()))
    tokenizer = to_tokenizer(vocabulary)
    encode = STAGES["encode"](tokenizer=str(save(vocabulary, folder))).open()  # type: ignore[call-arg,attr-defined]

    def batch(docs: pa.Table) -> Work:
        texts = docs["text"].to_pylist()
        return lambda: tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    yield Job("encode", docs, tables_through(encode), "HF encode_batch_fast", batch)
    tokens = left([encode(part) for part in split(docs)])
    score: Any = STAGES["score_ngram"](models={"base": Ngram()})  # type: ignore[call-arg]
    emit = score.open()
    yield Job("score_ngram: count", tokens, tables_through(emit))
    rows = score.combine()(pa.concat_tables([emit(part) for part in split(tokens)]).sort_by("key").combine_chunks())
    apply = score.apply(score.settle()([score.reduce()(rows)]))
    yield Job("score_ngram: apply", tokens, tables_through(apply))
    scored = pa.concat_tables([apply(part) for part in split(tokens)]).combine_chunks()
    yield Job("shards", scored, sink_through(STAGES["shards"](), folder))


def _opened(name: str, **parameters: Any) -> Callable[[pa.Table], Work]:  # noqa: ANN401
    stage: Any = STAGES[name](**parameters)
    return tables_through(stage.open())


def _reading(folder: Path) -> Callable[[pa.Table], Work]:
    step = _datatrove.reader(folder)
    return lambda _: lambda: deque(step.run(), maxlen=0)


def _writing(folder: Path) -> Callable[[pa.Table], Work]:
    from datatrove.pipeline.writers import JsonlWriter

    numbers = count()
    return lambda docs: step_through(lambda: JsonlWriter(str(folder / f"jsonl-{next(numbers)}")))(docs)


def measure(job: Job, turns: int) -> Turns:
    """Return the CPU seconds of the stage and of its peer, after both ran on a few documents."""
    sides = {"ours": job.ours} | ({"peer": job.peer} if job.peer is not None else {})
    for ready in sides.values():
        ready(job.docs.slice(0, WARM_ROWS))()
    return take_turns({name: timed(partial(ready, job.docs), cpu_seconds) for name, ready in sides.items()}, turns)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAGES} pages instead of {PAGES}; within a minute")
    quick = parser.parse_args(argv).quick
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    lacking = _datatrove.missing()
    rows: dict[str, tuple[Ratio | None, float]] = {}
    cells = []
    state = _table.MachineRows()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if not lacking:
            _datatrove.prepare(folder / "cache")
        paths, _ = select(sorted(CRAWL.glob("*.warc.gz")), QUICK_PAGES if quick else PAGES, folder / "warcs")
        for job in jobs(folder, paths, not lacking):
            found = measure(job, QUICK_TURNS if quick else TURNS)
            documents, size = job.docs.num_rows, megabytes(job.docs)
            ratio, goal = found.over("peer", "ours"), GOALS.get(job.name)
            if goal is not None:
                rows[job.name] = (ratio, goal)
            rates = [part / found.median(side) for side in found.seconds for part in (documents, size)]
            figures = [_table.number(rate) for rate in (*rates, None, None)[:4]]
            cells.append([job.name, str(documents), *figures, _table.ranged(ratio), _table.number(goal), job.peer_name])
    print(_table.table(["", "documents", "docs/CPU-s", "MB/CPU-s", "peer docs/s", "peer MB/s", "ratio", "goal", "peer"], cells))
    if lacking:
        print(f"datatrove is skipped, it lacks {', '.join(lacking)}: {_datatrove.INSTALL}")
    print(state)
    print(_table.closing(rows))


if __name__ == "__main__":
    main()
