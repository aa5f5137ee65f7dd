"""The bounded memory of the encoder: short stretches of text, and the ids they become.

Compiled; takes addresses (see `intrinsics`). Up to 15 bytes with up to five ids lie in sets of two entries of 32 bytes, one cache
line: bytes and length, ids and their number; a new entry pushes out the older one. Up to 255 bytes lie in a pool that is emptied
when it is full. An entry is used only if all its bytes are the same, so a hash never decides on ids.
"""

from __future__ import annotations

import numpy as np

from gristmill.compiling import inlined, inner
from gristmill.tokenizer.encoding.context import FILLED, LONG, POOL, SHORT
from gristmill.tokenizer.encoding.pair_tables import EMPTY, MIX, MOST_IDS, SHIFT
from gristmill.tokenizer.intrinsics import byte_at, bytes_at, id_at, put_id, put_word, word_at

SHORT_BYTES = 15  # the sixteenth holds the length
SHORT_IDS = 5
LONG_BYTES = 255
SHORT_SETS = 1 << 17  # of 64 bytes
LONG_SETS = 1 << 15  # of 64 bytes: four entries (hash, place in the pool << 16 | length << 8 | ids)
POOL_WORDS = 1 << 20  # bytes, then their ids, two in a word

_0, _1, _2, _3, _4, _5, _6, _7, _8 = (np.uint64(i) for i in range(9))
_16, _32, _42, _56, _63, _64, _255 = (np.uint64(i) for i in (16, 32, 42, 56, 63, 64, 255))
_ALL, _RANK, _MIX_2 = EMPTY, np.uint64(MOST_IDS - 1), np.uint64(0xC2B2AE3D27D4EB4F)
_SHORT_SHIFT, _LONG_SHIFT = np.uint64(65 - SHORT_SETS.bit_length()), np.uint64(65 - LONG_SETS.bit_length())
_LONG_WORDS, _POOL_WORDS = np.uint64(LONG_SETS * 8), np.uint64(POOL_WORDS)
_MOST_WORDS = np.uint64((LONG_BYTES + 8) // 8 + (LONG_BYTES + 1) // 2)  # of an entry of the pool

U = np.uint64


@inlined
def short_key(text: U, begin: U, size: U, limit: U) -> tuple[U, U]:
    """Return the up to 15 bytes from `begin` on and their number as two words; reads nothing from `limit` on."""
    if begin + _16 <= limit:
        first, second = bytes_at(text, begin), bytes_at(text, begin + _8)
    else:
        first = some_bytes(text, begin, min(begin + _8, limit))
        second = some_bytes(text, begin + _8, limit) if begin + _8 < limit else _0
    more = max(size, _8)
    first &= _ALL >> (_64 - _8 * (size + _8 - more))
    return first, second & ((_1 << (_8 * (more - _8))) - _1) | size << _56


@inlined
def short_set(c: U, first: U, second: U) -> U:
    """Return the address of the set of a short stretch."""
    mixed = first * MIX ^ second * _MIX_2
    return word_at(c, SHORT) + (((mixed ^ mixed >> _32) * MIX) >> _SHORT_SHIFT << _6)


@inlined
def recall_short(entry: U, first: U, second: U, ids: U) -> U:
    """Write the ids of a short stretch whose set is at `entry`, always five; return how many they are, 0 if it is not known."""
    other = (word_at(entry, _0) ^ first) | (word_at(entry, _1) ^ second)
    if other != _0 and ((word_at(entry, _4) ^ first) | (word_at(entry, _5) ^ second)) != _0:
        return _0
    entry += ((other | (_0 - other)) >> _63) << _5  # no branch: which of the two it is, no processor can guess
    three, more = word_at(entry, _2), word_at(entry, _3)
    put_id(ids, _0, three & _RANK)
    put_id(ids, _1, three >> SHIFT & _RANK)
    put_id(ids, _2, three >> _42)
    put_id(ids, _3, more & _RANK)
    put_id(ids, _4, more >> SHIFT & _RANK)
    return more >> _42


@inner
def keep_short(entry: U, first: U, second: U, ids: U, count: U) -> None:
    """Remember a short stretch whose set is at `entry`, and its up to five ids; always reads five."""
    i = _0
    while i < _4:
        put_word(entry, i + _4, word_at(entry, i))
        i += _1
    put_word(entry, _0, first)
    put_word(entry, _1, second)
    put_word(entry, _2, id_at(ids, _0) & _RANK | (id_at(ids, _1) & _RANK) << SHIFT | id_at(ids, _2) << _42)
    put_word(entry, _3, id_at(ids, _3) & _RANK | (id_at(ids, _4) & _RANK) << SHIFT | count << _42)


@inner
def some_bytes(text: U, begin: U, end: U) -> U:
    """Return the up to eight bytes text[begin:end] as a number."""
    if begin + _8 <= end:
        return bytes_at(text, begin)
    word, shift = _0, _0
    while begin < end:
        word |= byte_at(text, begin) << shift
        begin += _1
        shift += _8
    return word


@inner
def hash_bytes(text: U, begin: U, end: U) -> U:
    """Return a hash of text[begin:end], not 0."""
    mixed = end - begin
    while begin < end:
        mixed = (mixed ^ some_bytes(text, begin, end)) * MIX
        mixed ^= mixed >> _32
        begin += _8
    return mixed * _MIX_2 | _1


@inner
def long_set(c: U, mixed: U) -> U:
    """Return the address of the set of a long stretch with this hash."""
    return word_at(c, LONG) + (mixed >> _LONG_SHIFT << _6)


@inner
def recall_long(c: U, mixed: U, text: U, begin: U, end: U, ids: U) -> U:
    """Write the ids of text[begin:end] and return how many they are, 0 if it is not known."""
    pool = word_at(c, POOL)
    entry = long_set(c, mixed)
    for _ in range(4):
        facts = word_at(entry, _1)
        if word_at(entry, _0) == mixed and (facts >> _8) & _255 == end - begin:
            word, at = facts >> _16, begin
            while at < end and word_at(pool, word) == some_bytes(text, at, end):
                word += _1
                at += _8
            if at >= end:
                count, i = facts & _255, _0
                while i < count:
                    put_id(ids, i, id_at(pool + (word << _3), i))
                    i += _1
                return count
        entry += _16
    return _0


@inner
def keep_long(c: U, mixed: U, text: U, begin: U, end: U, ids: U, count: U) -> None:
    """Remember text[begin:end], at most LONG_BYTES, and its ids."""
    pool, filled = word_at(c, POOL), word_at(c, FILLED)
    word = word_at(filled, _0)
    if word + _MOST_WORDS > _POOL_WORDS:
        i = _0
        while i < _LONG_WORDS:
            put_word(word_at(c, LONG), i, _0)
            i += _1
        word = _0
    facts = word << _16 | (end - begin) << _8 | count
    at = begin
    while at < end:
        put_word(pool, word, some_bytes(text, at, end))
        word += _1
        at += _8
    i = _0
    while i < count:
        put_id(pool + (word << _3), i, id_at(ids, i))
        i += _1
    put_word(filled, _0, word + ((count + _1) >> _1))
    entry = long_set(c, mixed)
    i = _7
    while i >= _2:  # the oldest of the set goes
        put_word(entry, i, word_at(entry, i - _2))
        i -= _1
    put_word(entry, _0, mixed)
    put_word(entry, _1, facts)
