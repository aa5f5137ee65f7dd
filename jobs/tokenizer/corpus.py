"""The texts to train something on: a seeded, stratified sample of documents within a budget of bytes.

Reads the documents of a build (`documents-*.arrow`, by its manifest) or of a source; writes nothing. Which documents are
taken depends on their ids, the seed and the totals of the strata alone, not on the order of files or rows. Memory is bounded
by the budget and one table.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import FormatError, InputError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.storage.file import File
from gristmill.storage.store import expand
from jobs.terminal import warn
from pipeline import schema
from pipeline.stage import Source

ROWS = 256  # of a source's table

Seen = Callable[[str, int], None]
"""Called with what is being done and the number of documents read for it."""


@dataclass(frozen=True)
class Sample:
    """Documents in random order, as UTF-8; iterating gives them as text, as often as wanted."""

    ids: tuple[str, ...]
    texts: tuple[bytes, ...]
    strata: tuple[str, ...]

    def __iter__(self) -> Iterator[str]:
        """Yield each text."""
        return (text.decode() for text in self.texts)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.ids)

    @property
    def bytes(self) -> int:
        """Return the bytes of all texts."""
        return sum(map(len, self.texts))

    def fingerprint(self) -> str:
        """Return the sha256 over all ids and texts in order."""
        digest = hashlib.sha256()
        for name, text in zip(self.ids, self.texts, strict=True):
            digest.update(f"{name}\n{len(text)}\n".encode())
            digest.update(text)
        return digest.hexdigest()

    def split(self, share: float, least: int = 0, most: float = 1.0) -> tuple[Sample, Sample]:
        """Return the sample without its last documents, and those.

        Args:
            share: of the documents, one at least where there are two.
            least: bytes that the last documents have, if need be by more of them,
            most: as long as these are no more than this share of all bytes.
        """
        held = max(1, int(len(self) * share)) if len(self) > 1 else 0
        size, whole = sum(map(len, self.texts[len(self) - held :])), self.bytes
        while size < least and held + 1 < len(self) and size + len(self.texts[-held - 1]) <= most * whole:
            size += len(self.texts[-held - 1])
            held += 1
        return self._part(0, len(self) - held), self._part(len(self) - held, len(self))

    def _part(self, begin: int, end: int) -> Sample:
        return Sample(self.ids[begin:end], self.texts[begin:end], self.strata[begin:end])


@dataclass
class _Stratum:
    """The documents of one stratum with the lowest priorities that together fit into `budget` bytes."""

    budget: int
    held: int = 0
    limit: int = 1 << 128
    heap: list[tuple[int, str, bytes]] = field(default_factory=list)  # the highest priority (negated) is at the top

    def wants(self, priority: int, size: int) -> bool:
        """Tell whether a document may be taken; one that is larger than the whole budget never is."""
        return priority < self.limit and size <= self.budget

    def add(self, priority: int, name: str, text: bytes) -> None:
        """Take a document, and let go of those with the highest priorities until the rest fits."""
        heapq.heappush(self.heap, (-priority, name, text))
        self.held += len(text)
        while self.held > self.budget:
            last, _, gone = heapq.heappop(self.heap)
            self.held -= len(gone)
            self.limit = -last  # nothing after it may come back, or the order of rows would show


def documents_of(where: str | Source) -> Iterator[pa.Table]:
    """Yield tables of documents, `id` and `text` among their columns, from a build or from a source.

    Args:
        where: the output folder of a build (its newest run that wrote documents), one of its `builds/<id>`, or a source.

    Raises:
        InputError: nothing there, or documents that are not plain text.
    """
    for table in _of_source(where) if isinstance(where, Source) else _of_build(where):
        markup = pc.not_equal(table["media"], "text/plain")
        if pc.any(markup).as_py():
            raise InputError(
                f"documents of {_named(where)} are {table.filter(markup)['media'][0]}, not text/plain; build texts first "
                "(stages extract_html and documents), and name that build's output"
            )
        yield table


def sample(where: str | Source, budget: int, seed: int, stratify: str | None, seen: Seen) -> Sample:
    """Return documents of at most `budget` bytes together, each stratum with its share of all bytes.

    Args:
        where: see `documents_of`.
        budget: bytes of UTF-8.
        seed: another one takes other documents.
        stratify: the column whose values are the strata; None takes all documents as one.
        seen: called as documents are read: once for their sizes, once for those taken.

    Raises:
        InputError: no documents, no such column, or a budget below the size of every document.
    """
    totals: dict[str, int] = {}
    rows = 0
    for table in documents_of(where):
        for name, size in zip(_strata(table, stratify, where), pc.binary_length(table["text"]).to_pylist(), strict=True):
            totals[name] = totals.get(name, 0) + size
        rows += table.num_rows
        seen("size up documents", rows)
    whole = sum(totals.values())
    if whole == 0:
        raise InputError(f"documents of {_named(where)}: there are {rows}, without any text; there is nothing to train on")
    strata = {name: _Stratum(min(size, budget * size // whole)) for name, size in totals.items()}
    rows = 0
    for table in documents_of(where):
        _take(table, _strata(table, stratify, where), strata, seed)
        rows += table.num_rows
        seen("take a sample", rows)
    taken = sorted((-rank, name, text, key) for key, stratum in strata.items() for rank, name, text in stratum.heap)
    if not taken:
        raise InputError(f"bytes {budget} is less than any document's share of {_named(where)}; give more, or stratify: null")
    return Sample(tuple(t[1] for t in taken), tuple(t[2] for t in taken), tuple(t[3] for t in taken))


def _take(table: pa.Table, names: list[str], strata: dict[str, _Stratum], seed: int) -> None:
    texts, sizes = table["text"].cast(pa.binary()), pc.binary_length(table["text"]).to_pylist()
    key = f"sample {seed}".encode()
    for row, (name, identity) in enumerate(zip(names, table["id"].to_pylist(), strict=True)):
        priority = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=16, key=key).digest())
        if sizes[row] and strata[name].wants(priority, sizes[row]):
            strata[name].add(priority, identity, texts[row].as_py())


def _strata(table: pa.Table, column: str | None, where: str | Source) -> list[str]:
    if column is None:
        return [""] * table.num_rows
    if column not in table.column_names:
        raise InputError(f"documents of {_named(where)} have no column {column!r} to stratify by; they have {table.column_names}")
    values: list[str] = pc.fill_null(table[column].cast(pa.string()), "").to_pylist()
    return values


def _named(where: str | Source) -> str:
    return repr(where.paths) if isinstance(where, Source) else repr(where)


def _of_source(source: Source) -> Iterator[pa.Table]:
    """Yield the documents of a source without those that it drops or could not read; report files in which it finds nothing."""
    read = source.open()
    for file in expand(source.paths, _warn_once):
        found, first = 0, None
        for table in read(file, ROWS):
            errors = table[schema.ERROR] if schema.ERROR in table.column_names else pa.chunked_array([], pa.string())
            found += table.num_rows - (len(errors) - errors.null_count)
            first = first or next((error for error in errors.to_pylist() if error is not None), None)
            for column in (schema.DROP, schema.ERROR):
                if column in table.column_names:
                    table = table.filter(pc.is_null(table[column]))
            yield table
        if not found:
            why = f"the first error: {first}" if first else "nothing in it that the source reads"
            _warn_once(f"{file.name}: not one document; {why}")


@functools.cache
def _warn_once(message: str) -> None:
    """Warn the first time: documents are gone through several times."""
    warn(message)


def _of_build(build: str) -> Iterator[pa.Table]:
    try:
        manifest, location = open_build(build, fmt.DOCUMENTS)
    except FormatError as error:
        raise InputError(
            f"documents {build!r}: no finished build of documents there: {error}; one is made with `python -m jobs build CONFIG` "
            "whose last stage is `documents`"
        ) from error
    for shard in manifest.shards:
        held = location.hold(File(shard.file, shard.bytes, shard.sha256, shard.zst))
        try:
            with pa.memory_map(str(held.path)) as file:
                reader = pa.ipc.open_file(file)
                for i in range(reader.num_record_batches):
                    yield pa.Table.from_batches([reader.get_batch(i)])
        finally:
            held.release()
