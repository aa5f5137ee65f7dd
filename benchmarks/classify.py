"""Megabytes of text a second that classifiers score on one core, beside other engines for the same models.

Reads `examples/crawl`; writes into a temporary folder. The model of `fasttext` is trained on the crawl itself: words and pairs of
words in 500,000 buckets (fastText's default is 2,000,000), 100 numbers each; the label is the host that a page is of. That of
`fasttext (parts of words)` is lid.176. The stage works on tables of 256 documents, everything loaded and warm, and takes turns
with datatrove's filter step (`_turns.py`), which is given the same texts; before that, labels are compared, and scores to 1e-6.
The rows of `linear` are another model, learned from the same labelled documents as fastText's (`_linear.py`), and on hosts that
neither has seen no worse.
`sequence` is a BERT with random weights beside a loop of transformers, sorted by length (`_sequence.py`), on some of the texts.
CPU seconds are those of the process. MB are of the text that goes in, 10^6 bytes of UTF-8.

    python -m benchmarks.classify [--quick]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from benchmarks import _datatrove, _linear, _sequence, _table
from benchmarks._turns import Ratio, Work, take_turns, timed
from benchmarks.end_to_end import CRAWL, select
from benchmarks.stages import left, megabytes, step_through, tables_through
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.language_id import LanguageId
from gristmill.storage.store import expand
from stages import STAGES
from stages.classify.classify import Classify
from stages.classify.kinds import FastTextModel

BATCH_ROWS = 256
QUICK_PAGES, PAGES = 210, 840
QUICK_TURNS, TURNS = 3, 5
TOLERANCE = 1e-6
QUICK_SEQUENCES, SEQUENCES = 64, 256
GOALS = {"fasttext": 5.0, "fasttext (parts of words)": 5.0, "linear (fasttext-numpy2)": 10.0, "linear (fasttext-new)": 2.0}


@dataclass(frozen=True)
class Job:
    """One row: a name, how to get ready for ours and for the peer's work on documents, and who the peer is."""

    name: str
    ours: Callable[[pa.Table], Work]
    peer: Callable[[pa.Table], Work] | None
    peer_name: str


def texts_of(pages: int, folder: Path) -> pa.Table:
    """Return the extracted texts of so many pages of the crawl, with their addresses."""
    paths, _ = select(sorted(CRAWL.glob("*.warc.gz")), pages, folder)
    read: Any = STAGES["warc"](paths=tuple(paths))  # type: ignore[call-arg]
    extract: Any = STAGES["extract_html"]().open()  # type: ignore[attr-defined]
    found = [left([extract(left([table]))]) for file in expand(tuple(paths)) for table in read.open()(file, BATCH_ROWS)]
    return pa.concat_tables(found).combine_chunks()


def train(docs: pa.Table, path: Path) -> Path:
    """Train a classifier of hosts on documents, with words and pairs of words; return its file."""
    import fasttext_new

    lines = [
        f"__label__{urlsplit(url).hostname} {text.replace(chr(10), '')}\n"
        for url, text in zip(docs["url"].to_pylist(), docs["text"].to_pylist(), strict=True)
    ]
    source = path.with_suffix(".txt")
    source.write_text("".join(lines), encoding="utf-8")
    model = fasttext_new.train_supervised(str(source), dim=100, wordNgrams=2, bucket=500_000, epoch=2, thread=1, verbose=0)
    model.save_model(str(path))
    return path


def jobs(docs: pa.Table, folder: Path, peers: bool) -> Iterator[Job]:
    """Yield the rows."""
    for name, path in (
        ("fasttext", train(docs, folder / "hosts.bin")),
        ("fasttext (parts of words)", Path(LanguageId().files()[0])),
    ):
        model = FastText(path=str(path), newlines="nothing")
        stage = Classify(models={"classified": FastTextModel(fasttext=model, labels=model.open().labels)})
        step = partial(_datatrove.fasttext, path, model.open().labels[0])
        if peers:
            compare(docs, model, step())
        yield Job(name, tables_through(stage.open()), step_through(step) if peers else None, "FastTextClassifierFilter")
    for name, ours, peer, peer_name in _linear.sides(docs, folder, peers, judged=docs.num_rows > QUICK_PAGES):
        yield Job(name, ours, peer, peer_name)


def compare(docs: pa.Table, model: FastText, step: Any) -> None:  # noqa: ANN401 - datatrove has no types
    """Assert that a model gives the labels and scores that datatrove's step does."""
    from datatrove.data import Document

    opened = model.open()
    found = opened.classify(docs["text"], most=len(opened.labels)).by_label(len(opened.labels))
    documents = [Document(text=text, id=str(row)) for row, text in enumerate(docs["text"].to_pylist())]
    for row, document in enumerate(step.run(iter(documents))):
        theirs = {key.removeprefix("__label__"): value for key, value in document.metadata.items() if key.startswith("__label__")}
        ours = dict(zip(opened.labels, found[row].tolist(), strict=True))
        assert max(ours, key=ours.__getitem__) == max(theirs, key=theirs.__getitem__), (document.id, ours, theirs)
        assert max(abs(ours[label] - score) for label, score in theirs.items()) <= TOLERANCE, (document.id, ours, theirs)


def sequence(docs: pa.Table, folder: Path, *, quick: bool) -> tuple[tuple[Ratio | None, float], list[str]]:
    """Return the row of a classifier of sequences with random weights, evenly spaced documents, one thread a side."""
    import torch

    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    many = QUICK_SEQUENCES if quick else SEQUENCES
    some = docs.take([row * docs.num_rows // many for row in range(many)])
    shape = _sequence.SHAPES["minilm, two layers" if quick else "minilm"]
    found, _ = _sequence.compare(folder, shape, some["text"].to_pylist(), 1 if quick else QUICK_TURNS)
    ratio, size = found.over("peer", "ours"), megabytes(some)
    rates = [_table.number(size / found.median(side)) for side in ("ours", "peer")]
    goal = _sequence.GOAL
    cells = ["sequence", str(many), *rates, _table.ranged(ratio), _table.number(goal), "transformers, sorted by length"]
    return (ratio, goal), cells


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAGES} pages instead of {PAGES}; within a minute")
    quick = parser.parse_args(argv).quick
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    lacking = _datatrove.missing()
    rows: dict[str, tuple[Ratio | None, float]] = {}
    cells = []
    state = _table.MachineRows()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if not lacking:
            _datatrove.prepare(folder / "cache")
        docs = texts_of(QUICK_PAGES if quick else PAGES, folder / "warcs")
        for job in jobs(docs, folder, not lacking):
            sides = {"ours": job.ours} | ({"peer": job.peer} if job.peer is not None else {})
            for ready in sides.values():
                ready(docs)()
            found = take_turns(
                {side: timed(partial(ready, docs)) for side, ready in sides.items()}, QUICK_TURNS if quick else TURNS
            )
            ratio, size = found.over("peer", "ours"), megabytes(docs)
            rows[job.name] = (ratio, GOALS[job.name])
            rates = [_table.number(size / found.median(side)) if side in found.seconds else "-" for side in ("ours", "peer")]
            cells.append(
                [job.name, str(docs.num_rows), *rates, _table.ranged(ratio), _table.number(GOALS[job.name]), job.peer_name]
            )
        rows["sequence"], cell = sequence(docs, folder / "sequence", quick=quick)
        cells.append(cell)
    print(_table.table(["", "documents", "MB/CPU-s", "peer MB/s", "ratio", "goal", "peer"], cells))
    if lacking:
        print(f"datatrove is skipped, it lacks {', '.join(lacking)}: {_datatrove.INSTALL}")
    print(state)
    print(_table.closing(rows))


if __name__ == "__main__":
    main()
