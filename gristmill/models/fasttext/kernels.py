"""The compiled loops of fastText's prediction: bytes of texts to rows of the model, rows to a mean.

They take addresses, as C would (see `gristmill/tokenizer/intrinsics.py`): that of the texts' bytes, and that of a `context`,
uint64 numbers (`context.py`). What they compute is fastText's, step by step (`dictionary.cc` of 0.9.2), sums in the same order.

A word of a model with parts of words stands for many rows. Which ones is remembered by the word's bytes: a text mostly repeats
words, and finding their rows is most of the work. It changes nothing but the time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inlined, inner, outer
from gristmill.models.fasttext.context import (
    BLOCK,
    BLOCK_SIZE,
    BUCKET,
    COUNT,
    DIM,
    ENDED,
    FILLED,
    FOUND,
    LINE_END,
    MAXN,
    MEMORY,
    MEMORY_BYTES,
    MEMORY_MASK,
    MEMORY_ROWS,
    MINN,
    MOST_BYTES,
    MOST_ROWS,
    MOST_WORDS,
    ROWS,
    SLOTS,
    SLOTS_MASK,
    SUMS,
    TEXT_HASHES,
    TEXT_WORDS,
    USED_BYTES,
    USED_ROWS,
    USED_WORDS,
    WORD,
    WORD_NGRAMS,
    U,
)
from gristmill.models.fasttext.lookup import FNV_START, LOW_32, NONE, find, is_label, is_line_end, mixed, ngram_row, same_word
from gristmill.models.fasttext.vectors import add_1, add_4, add_16, add_32
from gristmill.tokenizer.intrinsics import byte_at, id_at, prefetch, put_byte, put_id, put_word, word_at

LONGEST = 64  # bytes of a word that is remembered
_LONGEST, _LINE_END_SIZE = U(LONGEST), U(4)
_0, _1, _2, _4, _16, _31, _32, _64 = (U(i) for i in (0, 1, 2, 4, 16, 31, 32, 64))
_LOW_16 = U(0xFFFF)
_CONTINUES, _TOP_TWO = U(0x80), U(0xC0)
_SMALLER, _GREATER = U(ord("<")), U(ord(">"))
_NGRAM = U(116049371)  # `Dictionary::addWordNgrams`
_LINE_END_HASH = U(3617362777)
_SPACES = U(sum(1 << code for code in (0, 9, 10, 11, 12, 13, 32)))


@inlined
def _is_space(byte: U) -> bool:
    return bool(byte <= _32 and (_SPACES >> byte) & _1 != _0)


@inner
def _parts_at(c: U, word: U, size: U, at: U, rows: U) -> U:
    """Write the rows of the parts of a word that begin at one place; return how many there are.

    Args:
        word: the word between < and >, `size` bytes in all.
        rows: where they go, uint32.
    """
    maxn, minn, bucket, count = word_at(c, MAXN), word_at(c, MINN), word_at(c, BUCKET), _0
    value, end, characters = FNV_START, at, _1
    while end < size and characters <= maxn:
        value = mixed(value, byte_at(word, end))
        end += _1
        while end < size and byte_at(word, end) & _TOP_TWO == _CONTINUES:
            value = mixed(value, byte_at(word, end))
            end += _1
        if characters >= minn and not (characters == _1 and (at == _0 or end == size)):
            row = ngram_row(c, (value & LOW_32) % bucket)
            if row != NONE:
                put_id(rows, count, row)
                count += _1
        characters += _1
    return count


@inner
def _between(c: U, place: U, size: U) -> U:
    """Return where a word is written between < and >."""
    word, i = word_at(c, WORD), _0
    put_byte(word, _0, _SMALLER)
    while i < size:
        put_byte(word, i + _1, byte_at(place, i))
        i += _1
    put_byte(word, size + _1, _GREATER)
    return word


@inner
def _add(c: U, count: U) -> None:
    """Add the first rows that were asked for to the sums; those behind them wait on."""
    dim, rows, ids, at = word_at(c, DIM), word_at(c, ROWS), word_at(c, BLOCK), _0
    sums, stride = word_at(c, SUMS), dim * _4
    while at + _32 <= dim:
        add_32(sums + at * _4, rows + at * _4, ids, count, stride)
        at += _32
    while at + _16 <= dim:
        add_16(sums + at * _4, rows + at * _4, ids, count, stride)
        at += _16
    while at + _4 <= dim:
        add_4(sums + at * _4, rows + at * _4, ids, count, stride)
        at += _4
    while at < dim:
        add_1(sums + at * _4, rows + at * _4, ids, count, stride)
        at += _1
    left, i = word_at(c, FILLED) - count, _0
    while i < left:
        put_id(ids, i, id_at(ids, count + i))
        i += _1
    put_word(c, COUNT, word_at(c, COUNT) + count)
    put_word(c, FILLED, left)


@inner
def _put(c: U, row: U) -> None:
    """Ask for a row; when many wait, the older half of them is added, which had the time to come."""
    filled, line, stride = word_at(c, FILLED), _0, word_at(c, DIM) * _4
    put_id(word_at(c, BLOCK), filled, row)
    put_word(c, FILLED, filled + _1)
    while line < stride:
        prefetch(word_at(c, ROWS) + row * stride + line)
        line += _64
    if filled + _1 >= word_at(c, BLOCK_SIZE):
        _add(c, (filled + _1) >> _1)


@inner
def _recall(c: U, place: U, size: U, value: U) -> U:
    """Return the address of what is remembered of a word, or of where it is to be; the latter has 0 there."""
    memory, mask = word_at(c, MEMORY), word_at(c, MEMORY_MASK)
    slot, facts = value & mask, value << _32 | size << _16
    while True:
        entry = memory + (slot << _4)
        there = word_at(entry, _0)
        if there == _0:
            return entry
        if there & ~_LOW_16 == facts and same_word(c, word_at(c, MEMORY_BYTES) + (word_at(entry, _1) >> _32), place, size):
            return entry
        slot = (slot + _1) & mask


@inner
def _forget(c: U) -> None:
    """Forget all words."""
    memory, i = word_at(c, MEMORY), _0
    while i <= word_at(c, MEMORY_MASK):
        put_word(memory, _2 * i, _0)
        i += _1
    put_word(c, USED_WORDS, _0)
    put_word(c, USED_BYTES, _0)
    put_word(c, USED_ROWS, _0)


@inner
def _learn(c: U, place: U, size: U, value: U) -> U:
    """Remember a word and its rows; return where.

    The first number there has its hash, its bytes, and how many rows it has + 2, or 1 where it is a label.
    """
    most = (size + _2) * (size + _2) + _1  # rows: a part begins and ends at characters of it
    if (
        word_at(c, USED_WORDS) == word_at(c, MOST_WORDS)
        or word_at(c, USED_BYTES) + size > word_at(c, MOST_BYTES)
        or word_at(c, USED_ROWS) + most > word_at(c, MOST_ROWS)
    ):
        _forget(c)
    entry, known = _recall(c, place, size, value), find(c, place, size, value)
    first, rows, i, count = word_at(c, USED_BYTES), word_at(c, MEMORY_ROWS) + word_at(c, USED_ROWS) * _4, _0, _1
    while i < size:
        put_byte(word_at(c, MEMORY_BYTES), first + i, byte_at(place, i))
        i += _1
    if not is_label(c, place, size, known):
        count = _2
        if known != NONE:
            put_id(rows, _0, known)
            count += _1
        if not is_line_end(c, place, size):
            word, at = _between(c, place, size), _0
            while at < size + _2:
                if byte_at(word, at) & _TOP_TWO != _CONTINUES:
                    count += _parts_at(c, word, size + _2, at, rows + (count - _2) * _4)
                at += _1
    put_word(entry, _0, value << _32 | size << _16 | count)
    put_word(entry, _1, first << _32 | word_at(c, USED_ROWS))
    put_word(c, USED_WORDS, word_at(c, USED_WORDS) + _1)
    put_word(c, USED_BYTES, first + size)
    put_word(c, USED_ROWS, word_at(c, USED_ROWS) + max(count, _2) - _2)
    return entry


@inner
def _short(c: U, place: U, size: U, value: U) -> bool:
    """Take in a word of a model with parts of words, by what is remembered of it; tell whether it counts as one."""
    entry = _recall(c, place, size, value)
    if word_at(entry, _0) == _0:
        entry = _learn(c, place, size, value)
    count = word_at(entry, _0) & _LOW_16
    if count == _1:
        return False
    row = word_at(c, MEMORY_ROWS) + (word_at(entry, _1) & LOW_32) * _4
    end = row + (count - _2) * _4
    while row < end:
        _put(c, id_at(row, _0))
        row += _4
    return True


@inner
def _long(c: U, place: U, size: U, value: U) -> bool:
    """Take in a word of a model without parts of words, or one that is too long to be remembered; see `_short`."""
    known = find(c, place, size, value)
    if is_label(c, place, size, known):
        return False
    if known != NONE:
        _put(c, known)
    if word_at(c, MAXN) > _0 and not is_line_end(c, place, size):
        word, at = _between(c, place, size), _0
        while at < size + _2:
            if byte_at(word, at) & _TOP_TWO != _CONTINUES:
                _add(c, word_at(c, FILLED))
                put_word(c, FILLED, _parts_at(c, word, size + _2, at, word_at(c, BLOCK)))
            at += _1
    return True


@inner
def _word(c: U, place: U, size: U, value: U) -> None:
    """Take in one word of a text."""
    remembers = word_at(c, MAXN) > _0 and size <= _LONGEST
    if _short(c, place, size, value) if remembers else _long(c, place, size, value):
        words = word_at(c, TEXT_WORDS)
        put_id(word_at(c, TEXT_HASHES), words, value)
        put_word(c, TEXT_WORDS, words + _1)


@inner
def _ngrams(c: U) -> None:
    """Take in the n-grams of a text's words."""
    words, hashes, most, bucket, first = (
        word_at(c, TEXT_WORDS),
        word_at(c, TEXT_HASHES),
        word_at(c, WORD_NGRAMS),
        word_at(c, BUCKET),
        _0,
    )
    while first < words:
        value, last = _signed(id_at(hashes, first)), first + _1
        while last < min(words, first + most):
            value = value * _NGRAM + _signed(id_at(hashes, last))
            row = ngram_row(c, value % bucket)
            if row != NONE:
                _put(c, row)
            last += _1
        first += _1


@inlined
def _signed(value: U) -> U:
    """Return a hash as fastText widens it: as a signed number of 32 bits."""
    return value | (_0 - (value >> _31)) << _32


@inner
def _cut(c: U, at: U, end: U) -> U:
    """Find the words of a text, and ask for where the model knows them; return how many there are, </s> behind them too.

    A newline is white space as any other. Words are found before they are looked up, which takes a third less time than one by
    one.
    """
    found, table, mask, words = word_at(c, FOUND), word_at(c, SLOTS), word_at(c, SLOTS_MASK), _0
    if word_at(c, MAXN) > _0:
        table, mask = word_at(c, MEMORY), word_at(c, MEMORY_MASK)
    while at < end:
        value, first = FNV_START, at
        while at < end and not _is_space(byte_at(at, _0)):
            value = mixed(value, byte_at(at, _0))
            at += _1
        if at > first:
            value &= LOW_32
            prefetch(table + ((value & mask) << _4))
            put_word(found, _2 * words, first)
            put_word(found, _2 * words + _1, value << _32 | at - first)
            words += _1
            if is_line_end(c, first, at - first):  # fastText reads no further
                return words
        at += _1
    if word_at(c, ENDED) != _0:
        put_word(found, _2 * words, word_at(c, LINE_END))
        put_word(found, _2 * words + _1, _LINE_END_HASH << _32 | _LINE_END_SIZE)
        words += _1
    return words


@inner
def _text(c: U, at: U, end: U) -> None:
    """Add up the rows of a text."""
    put_word(c, COUNT, _0)
    put_word(c, TEXT_WORDS, _0)
    found, words, word = word_at(c, FOUND), _cut(c, at, end), _0
    while word < words:
        facts = word_at(found, _2 * word + _1)
        _word(c, word_at(found, _2 * word), facts & LOW_32, facts >> _32)
        word += _1
    if word_at(c, WORD_NGRAMS) > _1:
        _ngrams(c)
    _add(c, word_at(c, FILLED))


@outer
def means(c: U, data: U, bounds: npt.NDArray[np.int64], out: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> None:
    """Write the mean of each text's rows, float32 [texts, dim], and how many they are, int64 [texts].

    Args:
        c: the context.
        data: of the texts' bytes, the address.
        bounds: int64 [texts + 1], of the texts there.
        out: zeros, to be filled.
        counts: to be filled.
    """
    sums = word_at(c, SUMS)
    for text in range(counts.size):
        put_word(c, SUMS, sums + U(4) * U(text) * word_at(c, DIM))
        _text(c, data + U(bounds[text]), data + U(bounds[text + 1]))
        counts[text] = np.int64(word_at(c, COUNT))
        if counts[text] > 0:
            share = np.float32(1 / counts[text])
            for i in range(out.shape[1]):
                out[text, i] *= share
