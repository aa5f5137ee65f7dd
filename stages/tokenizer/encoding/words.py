"""The smallest compiled parts of the encoder: eight bytes at once, hashes, looking up a merge.

Reads tables that `barriers` makes. Everything here is inlined into the loops that call it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

ID_BITS = 21
MOST_IDS = 1 << ID_BITS
"""Ids and ranks are below this, so that a pair of ids and its rank fit into one word of a hash table."""

EMPTY = np.uint64(2**64 - 1)
NONE = np.uint32(2**32 - 1)
"""The rank of a pair that no merge joins."""

_SHIFT, _RANK = np.uint64(ID_BITS), np.uint64(MOST_IDS - 1)
_ONE, _SEVEN, _THREE = np.uint64(1), np.uint64(7), np.uint64(3)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio (Knuth 6.4)


@intrinsic  # type: ignore[untyped-decorator]
def load_word(_context: Any, data: Any, place: Any) -> Any:  # noqa: ANN401 - numba has no types
    """Return the eight bytes of uint8 array `data` from `place` (uint64) on as a little-endian number, unchecked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        word = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(data, types.uint64), generate


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def find_merge(table: npt.NDArray[np.uint64], shift: np.uint64, left: np.uint32, right: np.uint32) -> np.uint32:
    """Return the rank of the merge of two ids, or NONE."""
    key = np.uint64(left) << _SHIFT | np.uint64(right)
    slot = (key * _MIX) >> shift
    mask = np.uint64(table.size) - _ONE
    while True:
        entry = table[slot]
        if entry >> _SHIFT == key:
            return np.uint32(entry & _RANK)
        if entry == EMPTY:
            return NONE
        slot = (slot + _ONE) & mask


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def may_hold(bits: npt.NDArray[np.uint8], shift: np.uint64, left: np.uint64, right: np.uint64) -> bool:
    """Return False if a pair is certainly not in a set given as bits (a Bloom filter with one hash)."""
    place = ((left << _SHIFT | right) * _MIX) >> shift
    return (bits[place >> _THREE] >> np.uint8(place & _SEVEN)) & np.uint8(1) != 0


def merge_table(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the hash table of merges, uint64 [a power of two]: pair of ids << 21 | rank, at most half full."""
    table = np.full(max(16, 1 << (2 * len(ranks)).bit_length()), EMPTY, np.uint64)
    keys = left.astype(np.uint64) << _SHIFT | right.astype(np.uint64)
    _fill(table, shift_of(table.size), keys, ranks.astype(np.uint64))
    return table


def pair_bits(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], per_pair: int = 32) -> npt.NDArray[np.uint8]:
    """Return the bits of a set of pairs for `may_hold`, uint8 [a power of two]."""
    size = max(64, 1 << (per_pair * len(left)).bit_length())
    bits = np.zeros(size // 8, np.uint8)
    places = ((left.astype(np.uint64) << _SHIFT | right.astype(np.uint64)) * _MIX) >> shift_of(size)
    np.bitwise_or.at(bits, places >> _THREE, np.uint8(1) << (places & _SEVEN).astype(np.uint8))
    return bits


def shift_of(size: int) -> np.uint64:
    """Return by how much a 64-bit hash is shifted to be a place in a table of `size`, a power of two."""
    return np.uint64(65 - size.bit_length())


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(table: npt.NDArray[np.uint64], shift: np.uint64, keys: npt.NDArray[np.uint64], ranks: npt.NDArray[np.uint64]) -> None:
    mask = np.uint64(table.size) - _ONE
    for i in range(keys.size):
        slot = (keys[i] * _MIX) >> shift
        while table[slot] != EMPTY:
            slot = (slot + _ONE) & mask
        table[slot] = keys[i] << _SHIFT | ranks[i]
