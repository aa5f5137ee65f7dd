"""Hash tables of pairs of ids, as the compiled loops read them: the rank of each merge, and a set of pairs as bits.

Reads arrays of ids and ranks; gives flat arrays. All numbers are uint64, so nothing is ever converted.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import compiled

ID_BITS = 21
MOST_IDS = 1 << ID_BITS
"""Ids and ranks are below this, so that a pair of ids and its rank fit into one word of a hash table."""

EMPTY = np.uint64(2**64 - 1)
SHIFT = np.uint64(ID_BITS)
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio (Knuth 6.4)
_ONE, _THREE, _SEVEN = np.uint64(1), np.uint64(3), np.uint64(7)


def merge_table(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the hash table of merges, uint64 [a power of two]: pair of ids << 21 | rank, at most half full."""
    table = np.full(max(16, 1 << (2 * len(ranks)).bit_length()), EMPTY, np.uint64)
    keys = left.astype(np.uint64) << SHIFT | right.astype(np.uint64)
    _fill(table, shift_of(table.size), keys, ranks.astype(np.uint64))
    return table


def pair_bits(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], per_pair: int = 32) -> npt.NDArray[np.uint8]:
    """Return a set of pairs as bits (a Bloom filter of one hash), uint8 [a power of two]."""
    size = max(64, 1 << (per_pair * len(left)).bit_length())
    bits = np.zeros(size // 8, np.uint8)
    places = ((left.astype(np.uint64) << SHIFT | right.astype(np.uint64)) * MIX) >> shift_of(size)
    np.bitwise_or.at(bits, places >> _THREE, np.uint8(1) << (places & _SEVEN).astype(np.uint8))
    return bits


def shift_of(size: int) -> np.uint64:
    """Return by how much a 64-bit hash is shifted to be a place in a table of `size`, a power of two."""
    return np.uint64(65 - size.bit_length())


@compiled
def _fill(table: npt.NDArray[np.uint64], shift: np.uint64, keys: npt.NDArray[np.uint64], ranks: npt.NDArray[np.uint64]) -> None:
    mask = np.uint64(table.size) - _ONE
    for i in range(keys.size):
        slot = (keys[i] * MIX) >> shift
        while table[slot] != EMPTY:
            slot = (slot + _ONE) & mask
        table[slot] = keys[i] << SHIFT | ranks[i]
