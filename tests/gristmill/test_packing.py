"""Addresses of sequences and the boundaries of documents, against slow transcriptions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gristmill import packing

flags = hnp.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 12)))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_addresses(sizes):
    begins = np.cumsum([0, *sizes[:-1]], dtype=np.int64)
    expected = [(shard, place) for shard, size in enumerate(sizes) for place in range(size)]
    shards, places = packing.addresses(np.arange(sum(sizes), dtype=np.int64), begins)
    assert list(zip(shards.tolist(), places.tolist(), strict=True)) == expected


@given(st.integers(0, 10**13), st.integers(1, 10**6))
def test_sequence_count_is_the_smallest_that_holds_all(tokens, length):
    count = packing.sequence_count(tokens, length)
    assert (count - 1) * length < tokens <= count * length or tokens == count == 0


@given(flags)
def test_boundaries(starts):
    given_starts = starts.copy()
    seqlens, positions, ids = [0], np.zeros(starts.shape, int), np.zeros(starts.shape, int)
    for row in range(starts.shape[0]):
        for column in range(starts.shape[1]):
            begins = column > 0 and starts[row, column]
            if begins or column == 0:
                seqlens.append(row * starts.shape[1] + column)
            positions[row, column] = 0 if column == 0 or begins else positions[row, column - 1] + 1
            ids[row, column] = 0 if column == 0 else ids[row, column - 1] + begins
    assert packing.cu_seqlens(starts).tolist() == [*seqlens[1:], starts.size]
    assert np.array_equal(packing.positions(starts), positions)
    assert np.array_equal(packing.document_ids(starts), ids)
    assert np.array_equal(starts, given_starts), "the argument is not changed"
    assert packing.cu_seqlens(starts).dtype == packing.positions(starts).dtype == packing.document_ids(starts).dtype == np.int32
