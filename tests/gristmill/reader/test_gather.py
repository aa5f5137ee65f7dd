"""Gathering windows by address, against plain slices of the whole stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.format.column import TokenColumn, open_column
from gristmill.reader.gather import OpenColumns
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, folder_of, publish
from tests.random_examples import examples

NAMES = ["input_ids", "loss", "exact", "mask"]  # of 2, 4 bytes, a bit, and 2 bytes
PADDING = {"input_ids": 9, "loss": np.nan, "exact": False, "mask": np.nan}
TYPES = {"loss": pa.float32(), "exact": pa.bool_(), "mask": pa.float16()}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A build of many small files of several record batches, and its columns as plain arrays."""
    random = np.random.default_rng(3)
    output = tmp_path_factory.mktemp("gather")
    ids = [random.integers(2, 60_000, size).tolist() for size in [*random.integers(0, 60, 60), 700, 0, 0]]
    scores = {
        "loss": [random.normal(size=len(row)).tolist() for row in ids],
        "exact": [(random.random(len(row)) < 0.5).tolist() for row in ids],
        "mask": [random.normal(size=len(row)).tolist() for row in ids],
    }
    table = documents(ids, scores=scores, types=TYPES, vocab_size=60_000)
    folder = folder_of(publish([[table]], output, sink=Shards(tokens_per_shard=100), batch_tokens=30), output)
    flat = {
        name: np.concatenate([np.asarray(row, TYPES.get(name, pa.uint16()).to_pandas_dtype()) for row in values])
        for name, values in ({"input_ids": ids} | scores).items()
    }
    return folder, flat


class Opened:
    """Opens columns of a folder, and counts."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype, capacity: int) -> None:
        kind = "tokens" if name == "input_ids" else "scores"
        prefix = "tokens" if name == "input_ids" else "scores-rho1"
        self.paths = sorted(folder.glob(f"{prefix}-*.arrow"))
        self.open: set[int] = set()
        self.most = 0
        sizes = [open_column(path, kind, name).tokens for path in self.paths]
        self.begins = np.cumsum([0, *sizes], dtype=np.int64)

        def opening(shard: int) -> TokenColumn:
            self.open.add(shard)
            self.most = max(self.most, len(self.open))
            return open_column(self.paths[shard], kind, name)

        self.columns = OpenColumns(self.begins, dtype, PADDING[name], opening, self.open.remove, capacity)


def expected(flat: np.ndarray, begin: int, length: int, padding: object) -> np.ndarray:
    found = flat[begin : begin + length]
    return np.concatenate([found, np.full(length - len(found), padding, dtype=flat.dtype)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("capacity", [1, 3, 1000])
@given(data=st.data())
@examples(8)
def test_windows_and_pieces_are_slices(build, name, capacity, data):
    """Any windows, across record batches, files and the stream's end, however few files may be open."""
    folder, flat = build
    values, padding = flat[name], PADDING[name]
    opened = Opened(folder, name, values.dtype, capacity)
    assert opened.begins[-1] == len(values) and len(opened.paths) > 10
    for _ in range(4):
        length = data.draw(st.sampled_from([1, 2, 7, 8, 9, 64, 333]))
        begins = np.array(data.draw(st.lists(st.integers(0, len(values) + 3), min_size=1, max_size=9)), dtype=np.int64)
        found = opened.columns.windows(begins, length)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, [expected(values, b, length, padding) for b in begins.tolist()])
        inside = np.minimum(begins, len(values) - 1)
        lengths = np.minimum(np.arange(1, len(inside) + 1) * 5, len(values) - inside)
        for part, begin, count in zip(opened.columns.pieces(inside, lengths), inside, lengths, strict=True):
            np.testing.assert_array_equal(part, values[begin : begin + count])
    assert opened.most <= max(capacity, 2)


def test_whole_batches_are_gathered_at_once(build):
    """Once the files are open, rows inside record batches come from one call, in the order asked for."""
    folder, flat = build
    values = flat["input_ids"]
    opened = Opened(folder, "input_ids", values.dtype, 1000)
    opened.columns.windows(np.arange(len(values)), 1)
    assert opened.open == {shard for shard in range(len(opened.paths)) if opened.begins[shard] < opened.begins[shard + 1]}
    order = np.random.default_rng(0).permutation(len(values))
    found = opened.columns.windows(order, 1)
    np.testing.assert_array_equal(found[:, 0], values[order])
    assert found.flags.owndata and found.flags.writeable


def test_the_longest_unused_file_is_closed(build):
    folder, flat = build
    opened = Opened(folder, "input_ids", flat["input_ids"].dtype, 3)
    firsts = [int(begin) for begin, end in zip(opened.begins, opened.begins[1:], strict=False) if begin < end][:4]
    shards = [opened.columns.shard_of(first) for first in firsts]
    for first in [*firsts[:3], firsts[0]]:
        opened.columns.windows(np.array([first]), 1)
    assert opened.open == set(shards[:3])
    opened.columns.windows(np.array([firsts[3]]), 1)
    assert opened.open == {shards[0], shards[2], shards[3]}


@pytest.mark.parametrize("name", NAMES)
def test_reading_ahead_takes_any_stretch(build, name):
    """Whatever is open, and wherever stretches end; what is read stays the same."""
    folder, flat = build
    opened = Opened(folder, name, flat[name].dtype, 1000)
    begins = np.arange(len(flat[name]))
    opened.columns.will_need(begins, begins + 40)
    assert not opened.open
    opened.columns.windows(begins[::7], 1)
    opened.columns.will_need(begins, begins + 40)
    np.testing.assert_array_equal(opened.columns.windows(begins, 1)[:, 0], flat[name])
