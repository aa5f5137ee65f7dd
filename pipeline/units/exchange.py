"""The barrier's data: rows sorted by key leave each input, meet by key, and come back as verdicts by input.

Run file (written by a segment): an uncompressed IPC file sorted by `key`, in exactly `SLICES` record batches, one for each
equal part of the key space, so that a reduce over any power of two of partitions reads whole batches. An input that emits
more than `SPILL` bytes writes several runs. Verdict file (written by a settle): one record batch for each input, in order,
sorted by row. Nothing here holds more than one input's spill or one key range's rows in memory. The column `shard` is the number
of the input in the plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.json_values import Json
from pipeline.checked import Writer
from pipeline.planning.plan import SLICES
from pipeline.schema import DROP
from pipeline.stage import Exchange, Transform

SPILL = 256 << 20  # bytes of rows of one input held before a run is written
RANGE = 512 << 20  # bytes of rows given to one call of reduce
MAPPED_RUNS = 10_000  # beyond it files are read, not mapped: Linux allows 65,530 maps a process

Progress = Callable[[int, int, str], None]  # how far a unit of a barrier is: (so many, of so many, of what)

ADDRESS = {"shard": pa.int32(), "row": pa.int64()}


class Batches(Protocol):
    """An open file of record batches."""

    @property
    def schema(self) -> pa.Schema:
        """Of all of them."""
        ...

    def get_batch(self, number: int) -> pa.RecordBatch:
        """Return one."""
        ...


def cut(keys: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the SLICES + 1 positions at which sorted uint64 `keys` change their slice of the key space."""
    starts = (np.arange(1, SLICES, dtype=np.uint64)) << np.uint64(64 - (SLICES.bit_length() - 1))
    return np.concatenate([[0], np.searchsorted(keys, starts), [len(keys)]])


class RunWriter:
    """Collects the rows that one input emits and writes them as sorted runs `rows-0`, `rows-1`, ... in `folder`."""

    def __init__(self, folder: Path, combine: Transform | None, limit: int = SPILL) -> None:
        self.runs: list[tuple[Path, int, tuple[int, ...]]] = []
        self._folder = folder
        self._combine = combine
        self._limit = limit
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._schema: pa.Schema | None = None

    def add(self, rows: pa.Table, first_row: int) -> None:
        """Take the rows of one table whose first document is number `first_row` of the input."""
        assert rows.schema.field("key").type == pa.uint64(), f"key is {rows.schema.field('key').type}, expected uint64"
        if "row" in rows.column_names:
            index = rows.column_names.index("row")
            rows = rows.set_column(index, "row", pc.add(rows.column("row").cast(pa.int64()), first_row))
        self._schema = rows.schema
        self._held.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > self._limit:
            self._write()

    def close(self) -> list[tuple[Path, int, tuple[int, ...]]]:
        """Write what is held and return (path, rows, ends of its ranges) of every run; at least one."""
        if self._bytes or not self.runs:
            self._write()
        return self.runs

    def _write(self) -> None:
        assert self._schema is not None, "a segment passes at least one empty table"
        rows = pa.concat_tables(self._held).combine_chunks()
        if self._combine is not None:
            rows = self._combine(rows)
        # Stable: equal keys stay in the order of their documents.
        keys = rows.column("key").to_numpy()
        order = np.argsort(keys, kind="stable")
        rows, keys = rows.take(pa.array(order)).combine_chunks(), keys[order]
        path = self._folder / f"rows-{len(self.runs)}.arrow"
        with Writer(path, rows.schema) as writer:
            _write_batches(writer, rows, cut(keys))
        self.runs.append((path, writer.rows, tuple(writer.ends)))
        self._held, self._bytes = [], 0


def _write_batches(writer: Writer, rows: pa.Table, edges: Sequence[int] | np.ndarray[Any, Any]) -> None:
    """Write one record batch for each pair of neighbouring edges, empty ones too."""
    batches = rows.to_batches()
    whole = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)
    assert len(batches) <= 1
    for low, high in itertools.pairwise(edges):
        writer.write(whole.slice(int(low), int(high - low)))


def read_range(
    runs: Sequence[tuple[int, Callable[[], AbstractContextManager[Batches]]]],
    partition: int,
    partitions: int,
    limit: int = RANGE,
    progress: Progress = lambda done, whole, what: None,
) -> Iterator[pa.Table]:
    """Yield the rows of one partition of the key space in key order, sorted by (key, shard, row).

    Args:
        runs: (number of the input, how to open its run file), in the order of inputs; one is open at a time.
        partition: which of `partitions` equal parts (a power of two up to SLICES).
        limit: bytes of rows in one table; a table is larger only when a single key is.
        progress: is given the run files that are read, then the rows that are yielded and taken back.

    Yields:
        Tables with `shard: int32` added; the rows of one key are never in two tables. At least one table, so that the
        reduce sees the schema.
    """
    width = SLICES // partitions
    parts: list[tuple[int, pa.Table, np.ndarray[Any, Any]]] = []
    for number, (shard, opener) in enumerate(runs):
        progress(number, len(runs), "run files")
        with opener() as reader:
            batches = [reader.get_batch(i) for i in range(partition * width, (partition + 1) * width)]
            # Where the file is mapped, the batches keep the mapping when the file is closed.
            table = pa.Table.from_batches(batches, reader.schema)
        parts.append((shard, table, table.column("key").to_numpy()))
    size, whole, done = sum(table.nbytes for _, table, _ in parts), sum(table.num_rows for _, table, _ in parts), 0
    bounds = _bounds([keys for _, _, keys in parts], max(1, -(-size // limit)))
    positions = [np.concatenate([[0], np.searchsorted(keys, bounds), [len(keys)]]) for _, _, keys in parts]
    for number in range(len(bounds) + 1):
        pieces = [
            table.slice(int(at[number]), int(at[number + 1] - at[number])).append_column(
                pa.field("shard", pa.int32()), pa.array(np.full(int(at[number + 1] - at[number]), shard, np.int32))
            )
            for (shard, table, _), at in zip(parts, positions, strict=True)
        ]
        rows = pa.concat_tables(pieces).combine_chunks()
        order = np.argsort(rows.column("key").to_numpy(), kind="stable")
        progress(done, whole, "rows")
        yield rows.take(pa.array(order))
        done += rows.num_rows


def _bounds(keys: Sequence[np.ndarray[Any, Any]], ranges: int) -> np.ndarray[Any, Any]:
    """Return the first keys of ranges 1, 2, ... so that each holds about as many rows."""
    if ranges == 1:
        return np.empty(0, np.uint64)
    everything = np.sort(np.concatenate(keys))
    return np.unique(everything[(np.arange(1, ranges) * len(everything)) // ranges])


def write_verdicts(exchange: Exchange, verdicts: pa.Table, inputs: int, path: Path) -> tuple[int, tuple[int, ...]]:
    """Write verdicts sorted by (shard, row), a record batch an input; return the rows and the ends of the file's ranges."""
    expected = {**ADDRESS, DROP: pa.string(), **exchange.adds()}
    assert set(verdicts.column_names) == set(expected), f"verdicts have {verdicts.column_names}, expected {list(expected)}"
    for name, kind in expected.items():
        assert verdicts.schema.field(name).type == kind, f"verdict {name} is {verdicts.schema.field(name).type}, expected {kind}"
    verdicts = verdicts.select(list(expected)).sort_by([("shard", "ascending"), ("row", "ascending")]).combine_chunks()
    edges = np.searchsorted(verdicts.column("shard").to_numpy(), np.arange(inputs + 1))
    with Writer(path, verdicts.schema) as writer:
        _write_batches(writer, verdicts, edges)
    return writer.rows, tuple(writer.ends)


def apply_verdicts(docs: pa.Table, first_row: int, verdicts: pa.Table, defaults: Mapping[str, Json]) -> pa.Table:
    """Return `docs`, whose first row is document `first_row` of the input, with `drop` and the verdicts' columns.

    `verdicts` are those of the input, sorted by row, at most one a row.
    """
    rows = verdicts.column("row").to_numpy()
    low, high = np.searchsorted(rows, [first_row, first_row + docs.num_rows])
    index = np.full(docs.num_rows, -1, np.int64)
    index[rows[low:high] - first_row] = np.arange(low, high)
    take = pa.array(index, mask=index < 0)
    for name in verdicts.column_names:
        if name in ADDRESS:
            continue
        column = verdicts.column(name).take(take)
        if defaults.get(name) is not None:
            # Fill only where there is no verdict: a null inside a verdict means null.
            value = pa.scalar(defaults[name], column.type)
            column = pc.if_else(pa.array(index < 0), value, column)
        field = pa.field(name, verdicts.schema.field(name).type)
        at = docs.schema.get_field_index(name)
        docs = docs.append_column(field, column) if at < 0 else docs.set_column(at, field, column)
    return docs
