"""Small real stages to drive the machine with: numbers as documents, poison on demand."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError, Stopped
from gristmill.storage.store import InputFile
from pipeline.journal import Answer, Journal
from pipeline.lineage import Lineage
from pipeline.resources import Resources
from pipeline.schema import DOCUMENT, document_id
from pipeline.stage import (
    ASIDE,
    Asker,
    AskingMap,
    Assembly,
    Attachment,
    Exchange,
    Filter,
    Fit,
    FlatMap,
    Map,
    Part,
    Sink,
    Source,
    Stored,
    Transform,
)


@dataclass(frozen=True, kw_only=True)
class Lines(Source):
    """A document a line."""

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                lines = stream.read().decode().splitlines()
            for start in range(0, len(lines), batch_rows):
                yield documents(file.name, lines[start : start + batch_rows], start)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        with file.open() as stream:
            return documents(file.name, [stream.read().decode().splitlines()[offset]], offset)


def documents(file: str, lines: Sequence[str], start: int = 0) -> pa.Table:
    numbers = range(start, start + len(lines))
    columns = {
        "id": [document_id(file, n) for n in numbers],
        "url": [f"http://x.example/{file}/{n}" for n in numbers],
        "date": [None] * len(lines),
        "file": [file] * len(lines),
        "offset": list(numbers),
        "length": [len(line) for line in lines],
        "media": ["text/plain"] * len(lines),
        "text": list(lines),
    }
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in DOCUMENT}, schema=DOCUMENT)


@dataclass(frozen=True, kw_only=True)
class Upper(Map):
    """Upper-cases the text and adds its length; misbehaves on chosen words."""

    raise_on: str = "boom"
    segfault_on: str = "crash"
    grow_on: str = "grow"
    salt: int = 0

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"size": pa.int32()}

    def measures(self) -> tuple[str, ...]:
        return ("size",)

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            for text in docs.column("text").to_pylist():
                if self.raise_on and self.raise_on in text:
                    raise RuntimeError(f"cannot take {text!r}")
                if self.segfault_on and self.segfault_on in text:
                    ctypes.string_at(0)
                if self.grow_on and self.grow_on in text:
                    hoard = []
                    while True:
                        hoard.append(bytearray(1 << 20))
            upper = pc.utf8_upper(docs.column("text"))
            docs = docs.set_column(docs.column_names.index("text"), DOCUMENT.field("text"), upper)
            return docs.append_column("size", pc.utf8_length(upper).cast(pa.int32()))

        return work


@dataclass(frozen=True, kw_only=True)
class Words(FlatMap):
    """Makes a document of each word; misbehaves on chosen words."""

    raise_on: str = ""
    segfault_on: str = ""
    log: str = ""  # a folder in which each document that is worked on leaves a file

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"word": pa.int32()}

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            found: list[tuple[int, str | None, int | None, str | None]] = []
            for row, text in enumerate(docs.column("text").to_pylist()):
                if self.raise_on and self.raise_on in text:
                    raise RuntimeError(f"cannot take {text!r}")
                if self.segfault_on and self.segfault_on in text:
                    ctypes.string_at(0)
                if self.log:
                    Path(self.log, f"{os.getpid()}-{time.monotonic_ns()}").touch()
                words = text.split()
                found += [(row, word, number, None) for number, word in enumerate(words)] or [(row, None, None, "no_words")]
            columns = zip(*found, strict=True) if found else [[]] * 4
            kinds = {"parent_row": pa.int64(), "text": pa.string(), "word": pa.int32(), "drop": pa.string()}
            return pa.table({name: pa.array(values, kind) for (name, kind), values in zip(kinds.items(), columns, strict=True)})

        return work


@dataclass(frozen=True, kw_only=True)
class Oracle(AskingMap):
    """Gives each document and an answer that is another one each time; leaves a file in `log` for each question.

    It kills its process, once, before it answers the first question on `kill_on`, and stops at one on `stop_on`, unless `log` has
    the file `go`. It answers when so many as `together` have asked the same.
    """

    log: str = field(metadata=ASIDE)
    kill_on: str = field(default="", metadata=ASIDE)
    stop_on: str = field(default="", metadata=ASIDE)
    together: int = field(default=1, metadata=ASIDE)
    loud: bool = False

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"answered": pa.bool_()}

    def subject(self) -> Mapping[str, str]:
        return {"who": "the oracle"}

    def open(self) -> Asker:
        def work(docs: pa.Table, journal: Journal) -> pa.Table:
            texts = docs["text"].to_pylist()
            answers = journal.answers(texts, self._ask)
            made = [answers[text].content.upper() if self.loud else answers[text].content for text in texts]
            both = [text for pair in zip(texts, made, strict=True) for text in pair]
            fresh = [False, True] * len(texts)
            parents = np.repeat(np.arange(len(texts)), 2)
            columns = {"parent_row": pa.array(parents, pa.int64()), "text": pa.array(both, pa.string())}
            marks = {"itself": pa.array([not each for each in fresh], pa.bool_()), "answered": pa.array(fresh, pa.bool_())}
            return pa.table({**columns, **marks})

        return work

    def _ask(self, keys: Sequence[str]) -> Generator[Mapping[str, Answer], None, None]:
        for key in keys:
            go = Path(self.log, "go")
            if self.kill_on and self.kill_on in key and not go.exists():
                go.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if self.stop_on and self.stop_on in key and not go.exists():
                raise Stopped(f"asked about {key}")
            Path(self.log, f"asked-{key}-{uuid.uuid4().hex}").write_text(key)
            while len(list(Path(self.log).glob(f"asked-{key}-*"))) < self.together:
                time.sleep(0.01)
            yield {key: Answer(f"{key}: {uuid.uuid4().hex}", {"letters": len(key)})}


@dataclass(frozen=True, kw_only=True)
class Waits(Map):
    """Waits at each document that is `word` until the file `until` is there."""

    until: str
    word: str = "wait"

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            while self.word in docs.column("text").to_pylist() and not os.path.exists(self.until):
                time.sleep(0.02)
            return docs

        return work


@dataclass(frozen=True, kw_only=True)
class Short(Filter):
    """Drops short texts."""

    least: int = 4

    def open(self) -> Callable[[pa.Table], pa.Array]:
        def judge(docs: pa.Table) -> pa.Array:
            short = pc.less(pc.utf8_length(docs.column("text")), self.least)
            return pc.if_else(short, pa.scalar("too_short"), pa.scalar(None, pa.string())).combine_chunks()

        return judge


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True, kw_only=True)
class Unique(Exchange):
    """Keeps the first of equal texts."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"copies": pa.int32()}

    def defaults(self) -> Mapping[str, Any]:
        return {"copies": 1}

    def measures(self) -> tuple[str, ...]:
        return ("copies",)

    def open(self) -> Transform:
        def emit(docs: pa.Table) -> pa.Table:
            keys = [_hash(text) for text in docs.column("text").to_pylist()]
            return pa.table({"key": pa.array(keys, pa.uint64()), "row": pa.array(range(len(keys)), pa.int64())})

        return emit

    def reduce(self) -> Transform:
        def meet(rows: pa.Table) -> pa.Table:
            keys = rows.column("key").to_numpy()
            _, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
            reason = np.where(np.isin(np.arange(len(keys)), first), None, "duplicate")
            table = rows.select(["shard", "row"]).append_column("drop", pa.array(reason, pa.string()))
            table = table.append_column("copies", pa.array(counts[inverse], pa.int32()))
            return table.filter(pc.greater(table.column("copies"), 1))

        return meet

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        return pa.concat_tables


@dataclass(frozen=True, kw_only=True)
class Share(Fit):
    """Adds to each document the share that its first letter has in all documents; its processes are kept, as those of models."""

    def resources(self) -> Resources:
        return Resources()

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"share": pa.float64()}

    def open(self) -> Transform:
        def emit(docs: pa.Table) -> pa.Table:
            letters = [text[:1] for text in docs.column("text").to_pylist()]
            keys = pa.array([_hash(letter) for letter in letters], pa.uint64())
            return pa.table({"key": keys, "letter": pa.array(letters, pa.string()), "n": pa.array([1] * len(keys), pa.int64())})

        return emit

    def combine(self) -> Transform:
        return self.reduce()

    def reduce(self) -> Transform:
        def total(rows: pa.Table) -> pa.Table:
            summed = rows.group_by(["key", "letter"]).aggregate([("n", "sum")]).rename_columns(["key", "letter", "n"])
            return summed.sort_by([("key", "ascending"), ("letter", "ascending")])

        return total

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        return pa.concat_tables

    def apply(self, model: pa.Table) -> Transform:
        counts = dict(zip(model.column("letter").to_pylist(), model.column("n").to_pylist(), strict=True))
        whole = sum(counts.values())

        def work(docs: pa.Table) -> pa.Table:
            shares = [counts[text[:1]] / whole for text in docs.column("text").to_pylist()]
            return docs.append_column("share", pa.array(shares, pa.float64()))

        return work


@dataclass(frozen=True, kw_only=True)
class Files(Sink):
    """One JSON-lines file a shard."""

    def open(self) -> Callable[[Iterator[pa.Table], Path], list[Part]]:
        def write(tables: Iterator[pa.Table], folder: Path) -> list[Part]:
            path = folder / "part.jsonl"
            rows = 0
            with path.open("w") as out:
                for table in tables:
                    for row in table.drop_columns(["date"]).to_pylist():
                        out.write(json.dumps(row, sort_keys=True) + "\n")
                        rows += 1
            return [Part("lines", 0, path, rows)] if rows else []

        return write

    def assemble(self, parts: Sequence[Stored], lineage: Lineage, attachments: Sequence[Attachment] = ()) -> Assembly:
        parts = list(parts)
        name = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()[:32]
        links = {f"lines-{i:05d}.jsonl": part.data for i, part in enumerate(parts)}
        manifest = json.dumps({"id": name, "files": sorted(links), "rows": sum(part.rows for part in parts)}).encode()
        return Assembly(name, links, {"manifest.json": manifest}, "manifest.json")


@dataclass(frozen=True, kw_only=True)
class Pooled(Upper):
    """As `Upper`, and the norm of a walk of the text's bytes; in a pool of its own. Its `log` is told who opens it."""

    log: str = ""
    seconds: float = 0.0

    def resources(self) -> Resources:
        return Resources()

    def adds(self) -> Mapping[str, pa.DataType]:
        return {**super().adds(), "norm": pa.float64()}

    def replaces(self) -> tuple[str, ...]:
        return tuple(self.adds())

    def open(self) -> Transform:
        upper = super().open()
        if self.log and not Path(self.log).is_dir():
            raise InputError(f"no folder {self.log!r}")
        if self.log:
            Path(self.log, f"{os.getpid()}-{time.monotonic_ns()}").touch()

        def work(docs: pa.Table) -> pa.Table:
            walks = [np.cumsum(np.frombuffer(text.encode(), np.uint8), dtype=np.float64) for text in docs["text"].to_pylist()]
            norms = [float(np.sqrt((walk * walk).sum())) for walk in walks]
            time.sleep(self.seconds if len(docs) else 0)
            others = docs.drop_columns([name for name in self.adds() if name in docs.column_names])
            return upper(others).append_column("norm", pa.array(norms, pa.float64()))

        return work
