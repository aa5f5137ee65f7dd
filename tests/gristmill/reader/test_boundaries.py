"""Document boundaries against a slow transcription, token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gristmill.reader import boundaries

flags = hnp.arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 12)))


@given(flags)
def test_boundaries_of_starts(starts):
    rows, length = starts.shape
    before = starts.copy()
    borders, positions, ids = [], np.zeros((rows, length), int), np.zeros((rows, length), int)
    for row in range(rows):
        for column in range(length):
            begins = column > 0 and starts[row, column]
            if begins or column == 0:
                borders.append(row * length + column)
            positions[row, column] = 0 if column == 0 or begins else positions[row, column - 1] + 1
            ids[row, column] = 0 if column == 0 else ids[row, column - 1] + begins
    found = boundaries.cu_seqlens(starts)
    assert found.tolist() == [*borders, starts.size]
    assert np.array_equal(boundaries.position_ids(found, length), positions)
    assert np.array_equal(boundaries.document_ids(found, length), ids)
    assert np.array_equal(starts, before), "the argument is not changed"
    kinds = [found.dtype, boundaries.position_ids(found, length).dtype, boundaries.document_ids(found, length).dtype]
    assert kinds == [np.int32, np.int64, np.int32]


@st.composite
def packed(draw):
    """Lengths of the pieces of some rows, each row together at most the length."""
    length = draw(st.integers(1, 12))
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        cuts = sorted(draw(st.sets(st.integers(1, length), min_size=1)))
        rows.append(np.diff([0, *cuts]).tolist())
    return length, rows


@given(packed())
def test_starts_of_packed_rows(example):
    length, rows = example
    expected = np.zeros((len(rows), length), bool)
    for row, lengths in enumerate(rows):
        place = 0
        for size in [*lengths, length - sum(lengths)]:
            if size:
                expected[row, place] = True
            place += size
    lengths = np.array([size for row in rows for size in row], dtype=np.int64)
    bounds = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    assert np.array_equal(boundaries.piece_starts(lengths, bounds, length), expected)


def test_padding_is_a_piece_of_its_own():
    starts = boundaries.piece_starts(np.array([2, 3, 4]), np.array([0, 2, 3]), 7)
    borders = boundaries.cu_seqlens(starts)
    assert borders.tolist() == [0, 2, 5, 7, 11, 14]
    assert boundaries.position_ids(borders, 7).tolist() == [[0, 1, 0, 1, 2, 0, 1], [0, 1, 2, 3, 0, 1, 2]]
    assert boundaries.document_ids(borders, 7).tolist() == [[0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1]]


def test_more_tokens_than_kernels_can_count_is_an_error():
    starts = np.broadcast_to(np.zeros(1, dtype=np.bool_), (1 << 20, 1 << 11))
    with pytest.raises(ValueError, match="2147483648 tokens"):
        boundaries.cu_seqlens(starts)
