"""The compiled loops of deduplication; importing this module compiles them (or loads them from numba's cache).

They read Arrow's buffers and numpy arrays and fill arrays that the caller made: no allocation grows with a document, all
release the GIL, all arithmetic is on integers, so every machine computes the same. `NUMBA_CACHE_DIR` names the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from gristmill.compiling import njit
from gristmill.minhash.folding import IGNORED, MARK, SEQUENCE
from gristmill.minhash.folding import KIND as KIND_BITS
from gristmill.minhash.words import LETTER, SINGLE

# Word hash: FNV-1a 64 over the code points, then the finalizer of MurmurHash3 (Appleby); shingles: a polynomial of word hashes.
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
POLY = np.uint64(0x9E3779B97F4A7C15)
SHIFT_32, SHIFT_33 = np.uint64(32), np.uint64(33)

BUFFER = 2048  # shingles hashed before the lanes see them: 8 kB stay in the first-level cache
PAD = 32  # the buffer is filled up to this multiple (a repeated shingle changes no minimum): no scalar rest loop

ZERO, ONE, TWO, THREE, FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
KIND, CODE = np.uint32(KIND_BITS), np.uint32((1 << KIND_BITS) - 1)


def _lower_lanes(
    shingles: npt.NDArray[np.uint32],
    count: int,
    multipliers: npt.NDArray[np.uint32],
    increments: npt.NDArray[np.uint32],
    lanes: npt.NDArray[np.uint32],
) -> None:
    """Take the minimum over the first `count` shingles into each lane; pads `shingles` in place."""
    padded = (count + PAD - 1) // PAD * PAD
    for j in range(count, padded):
        shingles[j] = shingles[count - 1]
    for lane in range(lanes.size):
        multiplier, increment, low = multipliers[lane], increments[lane], lanes[lane]
        for j in range(padded):
            value = np.uint32(shingles[j] * multiplier + increment)
            low = min(low, value)
        lanes[lane] = low


def _decode(data: npt.NDArray[np.uint8], at: np.uint64) -> tuple[np.uint32, np.uint64]:
    """Return the character beyond ASCII that begins at `at`, and its size in bytes."""
    first, second = np.uint32(data[at]), np.uint32(data[at + ONE]) & 0x3F
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), TWO
    third = np.uint32(data[at + TWO]) & 0x3F
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), THREE
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | np.uint32(data[at + THREE]) & 0x3F), FOUR


def _finish(value: np.uint64) -> np.uint64:
    """Mix the bits of a word's running hash (finalizer of MurmurHash3)."""
    value = (value ^ (value >> SHIFT_33)) * MIX_1
    value = (value ^ (value >> SHIFT_33)) * MIX_2
    return value ^ (value >> SHIFT_33)


def _mark(value: np.uint64, code: np.uint32) -> np.uint64:
    """Return what a mark adds to a word whose letters so far have the hash `value`: a sum, so their order is no matter."""
    added: np.uint64 = _finish_compiled(value + np.uint64(code) * POLY)
    return added


def _hash_words(
    data: npt.NDArray[np.uint8],
    at: np.uint64,
    end: np.uint64,
    folded: npt.NDArray[np.uint8],
    table: npt.NDArray[np.uint32],
    pool: npt.NDArray[np.uint32],
    hashes: npt.NDArray[np.uint64],
    filled: int,
) -> tuple[int, np.uint64]:
    """Append the hashes of the words of data[at:end] to `hashes` from `filled` on; return (new filled, where it stopped).

    It stops between words when there is no room for two more (a character can end one word and be another). Positions
    are unsigned: numba then leaves out the check for negative indices.
    """
    value, marks = FNV_OFFSET, ZERO
    while at < end and filled + 1 < hashes.size:
        byte = data[at]
        if byte < 0x80:
            byte = folded[byte]
            if byte != 0:
                value = (value ^ np.uint64(byte)) * FNV_PRIME
            elif value != FNV_OFFSET:
                hashes[filled] = _finish_compiled(value ^ marks)
                filled += 1
                value, marks = FNV_OFFSET, ZERO
            at += ONE
            continue
        code, size = _decode_compiled(data, at)
        at += size
        entry = table[code]
        first, count = np.uint32(0), np.uint32(1)
        if entry >> KIND == SEQUENCE:
            first = entry & CODE
            count = pool[first]
        alone = False
        for j in range(count):
            if first:
                entry = pool[first + 1 + j]
            kind, code = entry >> KIND, entry & CODE
            if kind == LETTER:
                value = (value ^ np.uint64(code)) * FNV_PRIME
            elif kind == MARK:
                if value != FNV_OFFSET:
                    marks += _mark_compiled(value, code)
            elif kind != IGNORED:
                if value != FNV_OFFSET:
                    hashes[filled] = _finish_compiled(value ^ marks)
                    filled += 1
                value, marks = FNV_OFFSET, ZERO
                if kind == SINGLE:
                    value = (value ^ np.uint64(code)) * FNV_PRIME
                    alone = True
        if alone:  # the marks that follow belong to it
            while at < end and data[at] >= 0x80:
                code, size = _decode_compiled(data, at)
                entry = table[code]
                if entry >> KIND == MARK:
                    marks += _mark_compiled(value, entry & CODE)
                elif entry >> KIND != IGNORED:
                    break
                at += size
            hashes[filled] = _finish_compiled(value ^ marks)
            filled += 1
            value, marks = FNV_OFFSET, ZERO
    if value != FNV_OFFSET:
        hashes[filled] = _finish_compiled(value ^ marks)
        filled += 1
    return filled, at


def _hash_shingles(hashes: npt.NDArray[np.uint64], count: int, ngram: int, shingles: npt.NDArray[np.uint32]) -> None:
    """Write the first `count` shingles: the high half of a polynomial of `ngram` consecutive word hashes each (rolling)."""
    value, top, gone = np.uint64(0), np.uint64(1), np.uint64(0)
    for j in range(ngram - 1):
        value = value * POLY + hashes[j]
    for _ in range(ngram):
        top *= POLY
    for i in range(count):
        value = value * POLY + hashes[i + ngram - 1] - gone
        gone = hashes[i] * top
        shingles[i] = np.uint32((value * MIX_1) >> SHIFT_32)


def _signatures(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    folded: npt.NDArray[np.uint8],
    table: npt.NDArray[np.uint32],
    pool: npt.NDArray[np.uint32],
    ngram: int,
    multipliers: npt.NDArray[np.uint32],
    increments: npt.NDArray[np.uint32],
    lanes: npt.NDArray[np.uint32],
    words: npt.NDArray[np.int64],
) -> None:
    """Fill `lanes[d]` with the minhashes of document d = data[offsets[d]:offsets[d+1]], and `words[d]` with its words.

    A document of fewer than `ngram` words is one shingle; one without a word leaves its lanes as they are.
    """
    hashes = np.empty(BUFFER + ngram, np.uint64)
    shingles = np.empty(BUFFER + PAD, np.uint32)
    for d in range(words.size):
        at, end = np.uint64(offsets[d]), np.uint64(offsets[d + 1])
        words[d] = 0
        kept = 0  # words of the buffer before, which the next shingles still need
        while at < end:
            filled, at = _hash_words_compiled(data, at, end, folded, table, pool, hashes, kept)
            words[d] += filled - kept
            size = min(ngram, max(filled, 1)) if kept == 0 and at >= end else ngram
            count = filled - size + 1
            if count <= 0:
                continue
            _hash_shingles_compiled(hashes, count, size, shingles)
            _lower_lanes_compiled(shingles, count, multipliers, increments, lanes[d])
            if at < end:
                kept = ngram - 1
                for j in range(kept):  # a slice assignment would cost 3 s more to compile
                    hashes[j] = hashes[filled - kept + j]


def _stars(
    starts: npt.NDArray[np.int64],
    lanes: npt.NDArray[np.uint8],
    least: int,
    most_stars: int,
    centers: npt.NDArray[np.int64],
    leaves: npt.NDArray[np.int64],
    agreements: npt.NDArray[np.int64],
) -> int:
    """Write the edges of each bucket starts[g]:starts[g+1] of rows of `lanes` and return their number (< rows).

    The first row left is a center; rows that agree with it in at least `least` lanes become its leaves; the rest goes on
    to the next star, `most_stars` times at most.
    """
    edges = 0
    free = np.ones(lanes.shape[0], np.bool_)
    for g in range(starts.size - 1):
        center = starts[g]
        for _ in range(most_stars):
            while center < starts[g + 1] and not free[center]:
                center += 1
            if center >= starts[g + 1] - 1:
                break
            for row in range(center + 1, starts[g + 1]):
                if not free[row]:
                    continue
                agree = 0
                for lane in range(lanes.shape[1]):
                    agree += lanes[center, lane] == lanes[row, lane]
                if agree >= least:
                    centers[edges], leaves[edges], agreements[edges] = center, row, agree
                    free[row] = False
                    edges += 1
            center += 1
    return edges


def _components(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], parents: npt.NDArray[np.int64]) -> None:
    """Turn `parents` (0, 1, 2, ...) into the smallest member of each node's component under the edges left[i]–right[i]."""
    for i in range(left.size):
        a, b = left[i], right[i]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        if a < b:
            parents[b] = a
        else:
            parents[a] = b
    for node in range(parents.size):  # parents are smaller than their children, so one pass in order ends at the roots
        parents[node] = parents[parents[node]]


def _frozen(kind: Any) -> Any:  # noqa: ANN401 - numba has no types
    """Return the numba type of a read-only flat array (Arrow's buffers are read-only)."""
    return types.Array(kind, 1, "C", readonly=True)


_BYTES, _INT64S, _UINT32S = _frozen(types.uint8), types.int64[::1], types.uint32[::1]
_TABLE = types.Array(types.uint8, 2, "C", readonly=True)
_OPTIONS = {"cache": True, "nogil": True}

_decode_compiled = njit(**_OPTIONS)(_decode)
_finish_compiled = njit(**_OPTIONS)(_finish)
_mark_compiled = njit(**_OPTIONS)(_mark)
_hash_words_compiled = njit(**_OPTIONS)(_hash_words)
_hash_shingles_compiled = njit(**_OPTIONS)(_hash_shingles)
_lower_lanes_compiled = njit(**_OPTIONS)(_lower_lanes)

signatures: Callable[..., None] = njit(
    types.void(_BYTES, _INT64S, _BYTES, _UINT32S, _UINT32S, types.int64, _UINT32S, _UINT32S, types.uint32[:, ::1], _INT64S),
    **_OPTIONS,
)(_signatures)
stars: Callable[..., int] = njit(types.int64(_INT64S, _TABLE, types.int64, types.int64, _INT64S, _INT64S, _INT64S), **_OPTIONS)(
    _stars
)
components: Callable[..., None] = njit(types.void(_INT64S, _INT64S, _INT64S), **_OPTIONS)(_components)
