"""The barrier's data against a sort in memory: any shards, any spills, any partitions, any ranges."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from pipeline.planning.plan import SLICES
from pipeline.units.exchange import RunWriter, apply_verdicts, cut, read_range, write_verdicts
from tests.random_examples import examples
from tests.toy import Unique, documents

KEYS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**58, 2**58 - 1]))


def rows_of(keys: list[int], first: int = 0) -> pa.Table:
    return pa.table({"key": pa.array(keys, pa.uint64()), "row": pa.array(range(len(keys)), pa.int64())})


def write(folder: Path, shards: list[list[list[int]]], limit: int) -> list[tuple[int, Any]]:
    runs = []
    for shard, tables in enumerate(shards):
        place = folder / str(shard)
        place.mkdir(parents=True)
        writer = RunWriter(place, None, limit)
        first = 0
        for keys in [[], *tables]:
            writer.add(rows_of(keys), first)
            first += len(keys)
        runs += [(shard, functools.partial(opened, path)) for path, _, _ in writer.close()]
    return runs


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pa.RecordBatchFileReader]:
    with pa.memory_map(str(path)) as file:
        yield pa.ipc.open_file(file)


@given(
    shards=st.lists(st.lists(st.lists(KEYS, max_size=12), max_size=4), min_size=1, max_size=4),
    limit=st.sampled_from([1, 100, 10**6]),
    partitions=st.sampled_from([1, 2, 8, 64]),
    budget=st.sampled_from([1, 60, 10**6]),
)
@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_meet_sorted_and_whole(
    shards: list[list[list[int]]], limit: int, partitions: int, budget: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = write(tmp_path_factory.mktemp("runs"), shards, limit)
    found: list[tuple[int, int, int]] = []
    ended: set[int] = set()
    for partition in range(partitions):
        for table in read_range(runs, partition, partitions, budget):
            keys = table["key"].to_pylist()
            assert not ended & set(keys), "a key in two ranges"
            ended |= set(keys)
            found += zip(keys, table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)
    expected = [
        (key, shard, row)
        for shard, tables in enumerate(shards)
        for row, key in enumerate(key for table in tables for key in table)
    ]
    assert found == sorted(expected)


def test_slices_divide_the_key_space_evenly() -> None:
    width = 2**64 // SLICES
    keys = np.array(sorted(edge for n in range(SLICES) for edge in (n * width, (n + 1) * width - 1)), np.uint64)
    assert np.diff(cut(keys)).tolist() == [2] * SLICES


def test_more_runs_than_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    runs = write(tmp_path, [[[n, 2**64 - 1]] for n in range(400)], 10**6)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        (table,) = read_range(runs, 0, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert table.num_rows == 800
    assert table["shard"].to_pylist()[-400:] == list(range(400))


VERDICT = st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans())


@given(verdicts=st.lists(VERDICT, unique_by=lambda verdict: verdict[:2]), size=st.integers(1, 10))
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_verdicts_reach_their_documents(
    verdicts: list[tuple[int, int, bool]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = pa.table(
        {
            "shard": pa.array([shard for shard, _, _ in verdicts], pa.int32()),
            "row": pa.array([row for _, row, _ in verdicts], pa.int64()),
            "drop": pa.array(["twin" if bad else None for *_, bad in verdicts], pa.string()),
            "copies": pa.array([row + 2 for _, row, _ in verdicts], pa.int32()),
        }
    )
    path = tmp_path_factory.mktemp("verdicts") / "v.arrow"
    write_verdicts(Unique(), table, 3, path)
    by_address = {(shard, row): bad for shard, row, bad in verdicts}
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for shard in range(3):
            mine = pa.Table.from_batches([reader.get_batch(shard)])
            docs = documents("f", [f"line {n}" for n in range(10)])
            pieces = [apply_verdicts(docs.slice(at, size), at, mine, Unique().defaults()) for at in range(0, 10, size)]
            out = pa.concat_tables(pieces)
            assert out["drop"].to_pylist() == ["twin" if by_address.get((shard, n)) else None for n in range(10)]
            assert out["copies"].to_pylist() == [n + 2 if (shard, n) in by_address else 1 for n in range(10)]
