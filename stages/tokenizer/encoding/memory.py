"""A bounded memory of pieces: their bytes, and the ids they become.

Pieces of up to 15 bytes with up to three ids lie in sets of two entries of 32 bytes, one cache line; the last one seen pushes out
the older. Longer ones, and those with more ids, lie in a pool, which is emptied when it is full. An entry holds all bytes of its piece,
so a hash never decides what a piece becomes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from stages.tokenizer.encoding.words import load_word

SHORT_BYTES = 15  # the sixteenth holds the length
SHORT_IDS = 3
LONG_BYTES = 255
SHORT_SETS = 1 << 17  # 8 MiB
LONG_SETS = 1 << 15  # of four entries of 16 bytes: 2 MiB
POOL_WORDS = 1 << 20  # 8 MiB

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Words = npt.NDArray[np.uint64]

_0, _1, _2, _3, _4, _5, _6, _7, _8 = (np.uint64(i) for i in range(9))
_16, _32, _56 = np.uint64(16), np.uint64(32), np.uint64(56)
_LOW = np.uint64(2**32 - 1)
_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SHORT_SHIFT = np.uint64(64 - SHORT_SETS.bit_length() + 1)
_LONG_SHIFT = np.uint64(64 - LONG_SETS.bit_length() + 1)


class Memory(NamedTuple):
    """`short`: uint64 [sets * 8]. `long`: uint64 [sets * 8]: hash, place in the pool << 16 | length << 8 | ids.

    `pool`: uint64: bytes of a piece, then its ids, two in a word. `filled`: uint64 [1]: words of the pool in use.
    """

    short: Words
    long: Words
    pool: Words
    filled: Words


def make_memory() -> Memory:
    """Return an empty one, 18 MiB."""
    return Memory(_lines(SHORT_SETS * 8), _lines(LONG_SETS * 8), np.zeros(POOL_WORDS, np.uint64), np.zeros(1, np.uint64))


def _lines(words: int) -> Words:
    """Return zeros that begin with a cache line."""
    raw = np.zeros(words + 8, np.uint64)
    first = -raw.ctypes.data % 64 // 8
    return raw[first : first + words]


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def short_key(text: Bytes, at: np.uint64, size: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the bytes and the length of a piece of up to 15 bytes as two words; reads no byte behind the array."""
    if at + _16 <= np.uint64(text.size):
        first, second = load_word(text, at), load_word(text, at + _8)
    else:
        first, second = _0, _0
        for i in range(min(size, _8)):
            first |= np.uint64(text[at + np.uint64(i)]) << (_8 * np.uint64(i))
        for i in range(_8, size):
            second |= np.uint64(text[at + np.uint64(i)]) << (_8 * (np.uint64(i) - _8))
    if size <= _8:
        return first & (~_0 >> (np.uint64(64) - _8 * size)), size << _56
    return first, second & ((_1 << (_8 * (size - _8))) - _1) | size << _56


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def short_place(first: np.uint64, second: np.uint64) -> np.uint64:
    """Return where the set of a short piece begins."""
    mixed = first * _MIX_1 ^ second * _MIX_2
    return ((mixed ^ mixed >> _32) * _MIX_1 >> _SHORT_SHIFT) << _3


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def recall_short(short: Words, first: np.uint64, second: np.uint64, ids: Ids, at: np.uint64) -> np.uint64:
    """Write the ids of a short piece at ids[at] and return how many they are, 0 if it is not known; may write three."""
    place = short_place(first, second)
    if short[place] != first or short[place + _1] != second:
        place += _4
        if short[place] != first or short[place + _1] != second:
            return _0
    pair, last = short[place + _2], short[place + _3]
    ids[at], ids[at + _1], ids[at + _2] = np.uint32(pair & _LOW), np.uint32(pair >> _32), np.uint32(last & _LOW)
    return last >> _32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep_short(short: Words, first: np.uint64, second: np.uint64, ids: Ids, at: np.uint64, count: np.uint64) -> None:
    """Remember a short piece and its up to three ids; reads three of `ids`."""
    place = short_place(first, second)
    for i in range(_4):
        short[place + _4 + np.uint64(i)] = short[place + np.uint64(i)]
    short[place], short[place + _1] = first, second
    short[place + _2] = np.uint64(ids[at]) | np.uint64(ids[at + _1]) << _32
    short[place + _3] = np.uint64(ids[at + _2]) | count << _32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hash_long(text: Bytes, begin: np.uint64, end: np.uint64) -> np.uint64:
    """Return a hash of text[begin:end], not 0."""
    mixed, at = end - begin, begin
    while at + _8 <= end:
        mixed = (mixed ^ load_word(text, at)) * _MIX_1
        mixed ^= mixed >> _32
        at += _8
    while at < end:
        mixed = (mixed ^ np.uint64(text[at])) * _MIX_2
        at += _1
    return (mixed ^ mixed >> _32) * _MIX_1 | _1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def recall_long(
    memory: Memory, mixed: np.uint64, text: Bytes, begin: np.uint64, end: np.uint64, ids: Ids, at: np.uint64
) -> np.uint64:
    """Write the ids of text[begin:end] at ids[at] and return how many they are, 0 if it is not known."""
    long, pool = memory.long, memory.pool
    size = end - begin
    place = (mixed >> _LONG_SHIFT) << _3
    for _ in range(4):
        entry = long[place + _1]
        if long[place] == mixed and (entry >> _8) & np.uint64(255) == size:
            word, here, same = entry >> _16, begin, True
            while here + _8 <= end and same:
                same = pool[word] == load_word(text, here)
                word += _1
                here += _8
            if same and here < end:
                same = pool[word] == _tail(text, here, end)
                word += _1
            if same:
                count = entry & np.uint64(255)
                for i in range(count):
                    ids[at + np.uint64(i)] = np.uint32(pool[word + (np.uint64(i) >> _1)] >> (_32 * (np.uint64(i) & _1)) & _LOW)
                return count
        place += _2
    return _0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def keep_long(
    memory: Memory, mixed: np.uint64, text: Bytes, begin: np.uint64, end: np.uint64, ids: Ids, at: np.uint64, count: np.uint64
) -> None:
    """Remember text[begin:end], at most LONG_BYTES, and its ids."""
    long, pool = memory.long, memory.pool
    word = memory.filled[0]
    size = end - begin
    if word + (size + _7 >> _3) + (count + _1 >> _1) > np.uint64(pool.size):
        long[:] = _0
        word = _0
    entry = word << _16 | size << _8 | count
    here = begin
    while here < end:
        pool[word] = _tail(text, here, min(end, here + _8))
        word += _1
        here += _8
    for i in range(_0, count, _2):
        second = np.uint64(ids[at + np.uint64(i) + _1]) if np.uint64(i) + _1 < count else _0
        pool[word] = np.uint64(ids[at + np.uint64(i)]) | second << _32
        word += _1
    memory.filled[0] = word
    place = (mixed >> _LONG_SHIFT) << _3
    for i in range(_5 + _1):  # the oldest of the set goes
        long[place + _7 - np.uint64(i)] = long[place + _5 - np.uint64(i)]
    long[place], long[place + _1] = mixed, entry


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _tail(text: Bytes, begin: np.uint64, end: np.uint64) -> np.uint64:
    """Return the at most eight bytes text[begin:end] as a number."""
    word = _0
    for i in range(end - begin):
        word |= np.uint64(text[begin + np.uint64(i)]) << (_8 * np.uint64(i))
    return word
