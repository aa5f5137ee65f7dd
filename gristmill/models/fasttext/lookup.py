"""The compiled loops that find words and n-grams of a fastText model: from their bytes or hashes to their rows.

They take addresses (see `context.py`). Hashes and rules are those of fastText (`dictionary.cc` of 0.9.2).
"""

from __future__ import annotations

from gristmill.compiling import inlined, inner, outer
from gristmill.models.fasttext.context import (
    DATA,
    KEPT,
    KEPT_MASK,
    KEPT_SLOTS,
    LINE_END,
    PRUNED,
    SLOTS,
    SLOTS_MASK,
    TEXT_END,
    WORDS,
    U,
)
from gristmill.tokenizer.intrinsics import byte_at, bytes_at, id_at, put_id, put_word, word_at

_LINE_END_SIZE, _PREFIX_SIZE = U(4), U(9)
_0, _1, _2, _4, _7, _8, _24, _32, _64 = (U(i) for i in (0, 1, 2, 4, 7, 8, 24, 32, 64))
LOW_32, _LOW_24, _SIGN = U(0xFFFFFFFF), U(0xFFFFFF), U(0xFFFFFF00)
_FNV_PRIME, _SPREAD = U(16777619), U(0x9E3779B1)
FNV_START, NONE = U(2166136261), U(2**64 - 1)


@inlined
def mixed(value: U, byte: U) -> U:
    """Return FNV-1a of one byte more, which is a signed number there, as fastText has it; the low 32 bits count."""
    return (value ^ (byte ^ ((byte >> _7) * _SIGN))) * _FNV_PRIME


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
def same_word(c: U, kept: U, place: U, size: U) -> bool:
    """Tell whether a word of a text is one that is kept where eight bytes more can be read behind it."""
    if place + size + _8 > word_at(c, TEXT_END):
        return same(kept, place, size)
    i = _0
    while i + _8 <= size:
        if bytes_at(kept, i) != bytes_at(place, i):
            return False
        i += _8
    return bool(i == size or (bytes_at(kept, i) ^ bytes_at(place, i)) << (_64 - _8 * (size - i)) == _0)


@inner
def _hash_of(place: U, size: U) -> U:
    """Return the hash of a word."""
    value, i = FNV_START, _0
    while i < size:
        value = mixed(value, byte_at(place, i))
        i += _1
    return value & LOW_32


@inner
def _enter(c: U, word: U, start: U, size: U) -> None:
    """Lead from a word's hash to it; of two equal words the later is found, as in fastText."""
    data, slots, mask = word_at(c, DATA), word_at(c, SLOTS), word_at(c, SLOTS_MASK)
    value = _hash_of(data + start, size)
    place, slot = value, slots + ((value & mask) << _4)
    while word_at(slot, _0) != _0:
        there = word_at(slot, _1)
        if there & _LOW_24 == size and same(data + (there >> _24), data + start, size):
            break
        place += _1
        slot = slots + ((place & mask) << _4)
    put_word(slot, _0, value << _32 | word + _1)
    put_word(slot, _1, start << _24 | size)


@outer
def enter(c: U, starts: U, sizes: U, words: U, kept: U) -> None:
    """Fill the slots of words and of n-grams that were kept.

    Args:
        c: the context.
        starts: uint64 [words], where each lies in the file. `sizes`: uint32, the bytes of each.
        words: of the dictionary, labels too.
        kept: n-grams that were kept.
    """
    word = _0
    while word < words:
        _enter(c, word, word_at(starts, word), id_at(sizes, word))
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
    return (bucket * _SPREAD & LOW_32) >> _4


@inner
def find(c: U, place: U, size: U, value: U) -> U:
    """Return the number of a word, `NONE` where the model doesn't know it."""
    slots, mask, at = word_at(c, SLOTS), word_at(c, SLOTS_MASK), value
    while True:
        slot = slots + ((at & mask) << _4)
        first, there = word_at(slot, _0), word_at(slot, _1)
        if first == _0:
            return NONE
        alike = first >> _32 == value and there & _LOW_24 == size
        if alike and same_word(c, word_at(c, DATA) + (there >> _24), place, size):
            return (first & LOW_32) - _1
        at += _1


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
