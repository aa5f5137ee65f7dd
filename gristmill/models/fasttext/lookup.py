"""The compiled loops that find words and n-grams of a fastText model: from their bytes or hashes to their rows.

They take addresses (see `context.py`). Hashes and rules are those of fastText (`dictionary.cc` of 0.9.2).
"""

from __future__ import annotations

from gristmill.compiling import inlined, inner, outer
from gristmill.models.fasttext.context import (
    DATA,
    HASHES,
    KEPT,
    KEPT_MASK,
    KEPT_SLOTS,
    LINE_END,
    PRUNED,
    SIZES,
    SLOTS,
    SLOTS_MASK,
    STARTS,
    WORDS,
    U,
)
from gristmill.tokenizer.intrinsics import byte_at, id_at, put_id, word_at

_LINE_END_SIZE, _PREFIX_SIZE = U(4), U(9)
_0, _1, _2, _4, _7 = (U(i) for i in (0, 1, 2, 4, 7))
_LOW_32, _SIGN = U(0xFFFFFFFF), U(0xFFFFFF00)
_FNV_PRIME, _SPREAD = U(16777619), U(0x9E3779B1)
FNV_START, NONE = U(2166136261), U(2**64 - 1)


@inlined
def mixed(value: U, byte: U) -> U:
    """Return FNV-1a of one byte more, which is a signed number there, as fastText has it."""
    return (value ^ byte ^ ((byte >> _7) * _SIGN)) * _FNV_PRIME & _LOW_32


@inner
def same(one: U, other: U, size: U) -> bool:
    """Tell whether the bytes at two addresses are the same."""
    i = _0
    while i < size:
        if byte_at(one, i) != byte_at(other, i):
            return False
        i += _1
    return True


@inner
def _enter(c: U, word: U, place: U, size: U) -> None:
    """Lead from a word's hash to it; of two equal words the later is found, as in fastText."""
    value, i = FNV_START, _0
    while i < size:
        value = mixed(value, byte_at(place, i))
        i += _1
    put_id(word_at(c, HASHES), word, value)
    slots, mask = word_at(c, SLOTS), word_at(c, SLOTS_MASK)
    slot = value & mask
    while id_at(slots, slot) != _0:
        there = id_at(slots, slot) - _1
        if id_at(word_at(c, SIZES), there) == size and same(word_at(c, DATA) + word_at(word_at(c, STARTS), there), place, size):
            break
        slot = (slot + _1) & mask
    put_id(slots, slot, word + _1)


@outer
def enter(c: U, words: U, kept: U) -> None:
    """Fill the slots of words and of n-grams that were kept, and the hashes of words."""
    word = _0
    while word < words:
        _enter(c, word, word_at(c, DATA) + word_at(word_at(c, STARTS), word), id_at(word_at(c, SIZES), word))
        word += _1
    place, slots, mask, pairs = _0, word_at(c, KEPT_SLOTS), word_at(c, KEPT_MASK), word_at(c, KEPT)
    while place < kept:
        bucket = id_at(pairs, _2 * place)
        slot = _spread(bucket) & mask
        while id_at(slots, slot) != _0 and id_at(pairs, _2 * (id_at(slots, slot) - _1)) != bucket:
            slot = (slot + _1) & mask
        put_id(slots, slot, place + _1)
        place += _1


@inlined
def _spread(bucket: U) -> U:
    return (bucket * _SPREAD & _LOW_32) >> _4


@inner
def find(c: U, place: U, size: U, value: U) -> U:
    """Return the number of a word, `NONE` where the model doesn't know it."""
    slots, mask = word_at(c, SLOTS), word_at(c, SLOTS_MASK)
    slot = value & mask
    while id_at(slots, slot) != _0:
        word = id_at(slots, slot) - _1
        alike = id_at(word_at(c, HASHES), word) == value and id_at(word_at(c, SIZES), word) == size
        if alike and same(word_at(c, DATA) + word_at(word_at(c, STARTS), word), place, size):
            return word
        slot = (slot + _1) & mask
    return NONE


@inner
def ngram_row(c: U, bucket: U) -> U:
    """Return the row of an n-gram, `NONE` where it was pruned."""
    if word_at(c, PRUNED) == _0:
        return word_at(c, WORDS) + bucket
    slots, mask, pairs = word_at(c, KEPT_SLOTS), word_at(c, KEPT_MASK), word_at(c, KEPT)
    slot = _spread(bucket) & mask
    while id_at(slots, slot) != _0:
        place = id_at(slots, slot) - _1
        if id_at(pairs, _2 * place) == bucket:
            return word_at(c, WORDS) + id_at(pairs, _2 * place + _1)
        slot = (slot + _1) & mask
    return NONE


@inlined
def is_line_end(c: U, place: U, size: U) -> bool:
    """Tell whether a word is </s>, behind which fastText reads no further."""
    return size == _LINE_END_SIZE and same(word_at(c, LINE_END), place, size)


@inner
def is_label(c: U, place: U, size: U, known: U) -> bool:
    """Tell whether what the model knows under a number, or doesn't, is a label, at which it doesn't look."""
    if known != NONE:
        return bool(known >= word_at(c, WORDS))
    return bool(size >= _PREFIX_SIZE and same(word_at(c, LINE_END) + _LINE_END_SIZE, place, _PREFIX_SIZE))
