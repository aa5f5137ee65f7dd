"""Compiled loops over pieces of text: which are equal.

Reads flat buffers of bytes and offsets. A hash only proposes: bytes decide.
"""

from __future__ import annotations

import numpy as np

from gristmill.compiling import compiled, inner

_MIX = np.uint64(0x9E3779B97F4A7C15)


@inner
def _hash(text: np.ndarray, begin: int, end: int) -> np.uint64:
    value = np.uint64(end - begin) * _MIX
    for i in range(begin, end):
        value = (value ^ np.uint64(text[i])) * _MIX
        value ^= value >> np.uint64(29)
    return value


@inner
def _same(text: np.ndarray, begin: int, other: int, size: int) -> bool:
    for i in range(size):  # noqa: SIM110 - numba has no generators
        if text[begin + i] != text[other + i]:
            return False
    return True


@compiled
def unique(text: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of the first of each set of equal pieces, int64, and the sum of their counts, int64.

    Args:
        text: uint8.
        offsets: int64 [pieces + 1], of pieces that lie one after the other.
        counts: int64 [pieces].
    """
    pieces = len(counts)
    capacity = 1024
    table = np.full(capacity, -1, np.int64)
    first = np.empty(pieces, np.int64)
    hashes = np.empty(pieces, np.uint64)
    sums = np.zeros(pieces, np.int64)
    found = 0
    for piece in range(pieces):
        begin, end = offsets[piece], offsets[piece + 1]
        value = _hash(text, begin, end)
        slot = value & np.uint64(capacity - 1)
        while table[slot] >= 0:
            known = table[slot]
            start = offsets[first[known]]
            if (
                hashes[known] == value
                and offsets[first[known] + 1] - start == end - begin
                and _same(text, begin, start, end - begin)
            ):
                break
            slot = (slot + np.uint64(1)) & np.uint64(capacity - 1)
        if table[slot] < 0:
            table[slot] = found
            first[found] = piece
            hashes[found] = value
            found += 1
        sums[table[slot]] += counts[piece]
        if found * 2 > capacity:
            capacity *= 4
            table = np.full(capacity, -1, np.int64)
            for known in range(found):
                slot = hashes[known] & np.uint64(capacity - 1)
                while table[slot] >= 0:
                    slot = (slot + np.uint64(1)) & np.uint64(capacity - 1)
                table[slot] = known
    return first[:found].copy(), sums[:found].copy()


@compiled
def gather(text: np.ndarray, begins: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the pieces that begin at `begins` one after the other, uint8; `offsets`: int64 [pieces + 1] of the result."""
    found = np.empty(offsets[-1], np.uint8)
    for piece in range(len(begins)):
        begin, to = begins[piece], offsets[piece]
        for i in range(offsets[piece + 1] - to):  # one array set to another would take 4 seconds more to compile
            found[to + i] = text[begin + i]
    return found
