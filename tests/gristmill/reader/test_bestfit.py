"""Best-fit-decreasing packing against a slow transcription of its definition, and the padding that it is for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.reader.bestfit.fit import best_fit, pack
from tests.random_examples import examples


def slow_best_fit(pieces: list[int], length: int) -> list[int]:
    """Piece after piece, longest first: into the row with the least room that is enough, the one that has had it longest."""
    rows: list[tuple[int, int]] = []  # room, since when
    out = [0] * len(pieces)
    for time, piece in enumerate(sorted(range(len(pieces)), key=lambda piece: (-pieces[piece], piece))):
        fitting = [(room, since, row) for row, (room, since) in enumerate(rows) if room >= pieces[piece]]
        if fitting:
            room, _, row = min(fitting)
        else:
            room, row = length, len(rows)
            rows.append((length, time))
        rows[row] = (room - pieces[piece], time)
        out[piece] = row
    return out


def slow_pack(documents: list[int], length: int, window: int) -> list[list[tuple[int, int]]]:
    """Rows of (begin, length), window after window, in the order of their first tokens."""
    count = max(1, round(len(documents) / window))
    token, out = 0, []
    for number in range(count):
        pieces = []
        for size in documents[number * len(documents) // count : (number + 1) * len(documents) // count]:
            pieces += [(token + begin, min(length, size - begin)) for begin in range(0, size, length)]
            token += size
        rows: dict[int, list[tuple[int, int]]] = {}
        for piece, row in zip(pieces, slow_best_fit([size for _, size in pieces], length), strict=True):
            rows.setdefault(row, []).append(piece)
        out += sorted(rows.values())
    return out


def listed(documents, length, window):
    """The rows of `pack` as lists of (begin, length)."""
    begins, lengths, bounds = pack(np.array(documents, dtype=np.int32), length, window)
    pieces = list(zip(begins.tolist(), lengths.tolist(), strict=True))
    return [pieces[begin:end] for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


@st.composite
def windows(draw):
    """Pieces, many of them equal, and a row's length."""
    length = draw(st.integers(1, 40))
    return length, draw(st.lists(st.integers(1, length), max_size=120))


@given(windows())
@examples(200)
def test_every_piece_is_in_the_row_of_the_definition(example):
    length, pieces = example
    assert best_fit(np.array(pieces, dtype=np.int64), length).tolist() == slow_best_fit(pieces, length)


@pytest.mark.parametrize(("length", "spread"), [(512, 200), (2048, 2048), (70_000, 9000)])
def test_every_piece_is_in_the_row_of_the_definition_at_real_sizes(length, spread):
    pieces = np.minimum(1 + np.random.default_rng(length).integers(0, spread, 1500) ** 2 // spread, length)
    assert best_fit(pieces, length).tolist() == slow_best_fit(pieces.tolist(), length)


@st.composite
def streams(draw):
    """Documents of every kind: empty, short, exactly a row, a token longer, multiples of a row, huge."""
    length = draw(st.integers(1, 16))
    special = st.sampled_from([0, 1, length - 1, length, length + 1, 2 * length, 3 * length + 1, 40 * length + 5])
    documents = draw(st.lists(st.one_of(st.integers(0, length), special), max_size=60))
    return length, documents, draw(st.integers(1, 30))


@given(streams())
@examples(200)
def test_rows_are_those_of_the_definition(example):
    length, documents, window = example
    assert listed(documents, length, window) == slow_pack(documents, length, window)


@given(streams())
@examples(200)
def test_every_token_is_in_one_row_and_no_document_that_fits_is_cut(example):
    length, documents, window = example
    rows = listed(documents, length, window)
    assert sorted(token for row in rows for begin, size in row for token in range(begin, begin + size)) == [
        *range(sum(documents))
    ]
    assert all(0 < sum(size for _, size in row) <= length for row in rows)
    borders = set(np.cumsum([0, *documents]).tolist())
    pieces = {begin: size for row in rows for begin, size in row}
    for begin, size in zip(np.cumsum([0, *documents]).tolist(), documents, strict=False):
        whole = [pieces[place] for place in range(begin, begin + size, length)]
        assert whole == [length] * (size // length) + [size % length] * (size % length > 0)
    assert all(begin in borders or (begin - max(b for b in borders if b <= begin)) % length == 0 for begin in pieces)


@pytest.mark.parametrize("length", [2048, 4096])
@pytest.mark.parametrize("seed", range(4))
def test_a_window_of_ten_thousand_documents_needs_hardly_any_padding(length, seed):
    documents = np.random.default_rng(seed).lognormal(6.4, 1.0, 10_000).astype(np.int32)
    rows = len(pack(documents, length, 10_000).bounds) - 1
    assert 1 - documents.sum() / (rows * length) <= 0.0005


def test_windows_of_a_shard_are_nearly_equal():
    documents = np.full(24_999, 10, dtype=np.int32)  # 2.4999 windows: two of 12,499 and 12,500 documents
    begins, _, bounds = pack(documents, 100, 10_000)
    assert len(bounds) - 1 == 2 * 1250
    assert begins[bounds[1250]] == 12_499 * 10
