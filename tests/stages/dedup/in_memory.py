"""Runs a whole exchange in memory, as the machine would: emit, sort by (key, shard, row), reduce by ranges of keys, settle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import Exchange


def table(texts: Sequence[str], first: int = 0) -> pa.Table:
    """Documents with ids `d<number>`; the text column stands at an offset in its buffer, as slices of larger tables do."""
    ids = pa.array([f"d{first + i}" for i in range(len(texts))], pa.string())
    return pa.table({"id": ids, "text": pa.array(["fore", *texts, "aft"], pa.string()).slice(1, len(texts))})


def run(
    stage: Exchange,
    shards: Sequence[Sequence[str]],
    *,
    batches: Callable[[int], Sequence[int]] = lambda rows: [],
    calls: Callable[[int], Sequence[int]] = lambda keys: [],
) -> pa.Table:
    """Return the verdicts. `batches(rows)` cuts the rows of a shard into tables, `calls(keys)` cuts the keys into calls."""
    emit, emitted, first = stage.open(), [], 0
    for shard, texts in enumerate(shards):
        whole = table(texts, first)
        first += len(texts)
        for low, high in _ranges(len(texts), batches(len(texts))):
            rows = emit(whole.slice(low, high - low))
            rows = rows.set_column(rows.column_names.index("row"), "row", pc.add(rows["row"], low))
            emitted.append(rows.append_column("shard", pa.array(np.full(len(rows), shard, np.int32))))
    rows = pa.concat_tables(emitted).sort_by([("key", "ascending"), ("shard", "ascending"), ("row", "ascending")])
    keys, starts = np.unique(rows["key"].to_numpy(), return_index=True)
    starts = np.append(starts, len(rows))
    reduce = stage.reduce()
    reduced = [reduce(rows.slice(starts[low], starts[high] - starts[low])) for low, high in _ranges(len(keys), calls(len(keys)))]
    verdicts = stage.settle()(reduced)
    expected = {"shard": pa.int32(), "row": pa.int64(), "drop": pa.string(), **stage.adds()}
    assert {field.name: field.type for field in verdicts.schema} == expected
    return verdicts


def _ranges(size: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
    edges = [0, *sorted(cuts), size]
    return list(itertools.pairwise(edges))
