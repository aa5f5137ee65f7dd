"""What is known of each token while merges are learned: its bytes, found again by its bytes, and what the rules ask about it.

The compiled half of `rules.py`: reads and fills the arrays of `Tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gristmill.compiling import Int, inner, outer
from gristmill.tokenizer.training.arrays import Int32s, Int64s, Limits, UInt8s

FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
SHIFT = np.uint64(32)
COLON = 0x3A
WORDS, UNITS, BYTES, NO_COLON = range(4)  # places in Rules.limits()
HAS_COLON, BLANK_FIRST, BLANK_LAST, COLON_LAST = 1, 2, 4, 8  # bits of Tokens.marks
MARKS = 4  # so many bits


class Tokens(NamedTuple):
    """Tables by id. `ids` is the room: initial tokens and those to come.

    `text`: uint8 [bytes], the tokens one after the other; token i is text[starts[i]:starts[i + 1]].
    `starts`: int64 [ids + 1]. `words`, `units`: int32 [ids], see `Rules`. `marks`: uint8 [ids], bits: it has a colon before white
    space, its first and its last character is white space, its last is a colon.
    `seats`: int32 [a power of two], token ids by the hash of their bytes, -1 where free (open addressing).
    """

    text: UInt8s
    starts: Int64s
    words: Int32s
    units: Int32s
    marks: UInt8s
    seats: Int32s


def make_tokens(tokens: Sequence[bytes], room: int) -> Tokens:
    """Return the tables of `tokens`, with room for `room` ids in all."""
    seats = 1 << (2 * room).bit_length()
    starts = np.zeros(room + 1, np.int64)
    np.cumsum([len(token) for token in tokens], out=starts[1 : len(tokens) + 1])
    text = np.zeros(starts[len(tokens)] + 16 * room, np.uint8)
    text[: starts[len(tokens)]] = np.frombuffer(b"".join(tokens), np.uint8)
    tables = Tokens(
        text, starts, np.zeros(room, np.int32), np.ones(room, np.int32), np.zeros(room, np.uint8), np.full(seats, -1, np.int32)
    )
    describe(tables, len(tokens))
    return tables


def grown(tokens: Tokens, room: int, size: int) -> Tokens:
    """Return the same tables with room for `room` ids and `size` bytes."""
    count = int(np.flatnonzero(tokens.starts)[-1]) if tokens.starts.any() else 0
    larger = make_tokens([], room)._replace(text=np.zeros(size, np.uint8))
    larger.text[: tokens.text.size] = tokens.text
    larger.starts[: count + 1] = tokens.starts[: count + 1]
    describe(larger, count)
    larger.units[:count] = tokens.units[:count]
    return larger


@inner
def _seat(tokens: Tokens, start: Int, end: Int) -> Int:
    """Return where text[start:end] sits in `seats`, or the free seat where it would."""
    value = FNV_OFFSET
    for i in range(start, end):
        value = (value ^ np.uint64(tokens.text[i])) * FNV_PRIME
    mask = np.int64(tokens.seats.size - 1)
    at = np.int64((value ^ (value >> SHIFT)) & np.uint64(mask))
    while tokens.seats[at] >= 0:
        other = tokens.starts[tokens.seats[at]]
        if tokens.starts[tokens.seats[at] + 1] - other == end - start:
            same = True
            for i in range(end - start):
                if tokens.text[start + i] != tokens.text[other + i]:
                    same = False
                    break
            if same:
                return at
        at = (at + 1) & mask
    return at


@inner
def _byte(text: UInt8s, start: Int, middle: Int, rest: Int, end: Int, i: Int) -> Int:
    """Return byte i of text[start:middle] + text[rest:end], -1 behind its end."""
    if start + i < middle:
        return np.int64(text[start + i])
    at = rest + i - (middle - start)
    return np.int64(text[at]) if at < end else np.int64(-1)


@inner
def _blank(text: UInt8s, start: Int, middle: Int, rest: Int, end: Int, i: Int) -> Int:
    """Return how many bytes the white space character has that begins at byte i, 0 if none does: as `str.isspace` has it."""
    first = _byte(text, start, middle, rest, end, i)
    if first < 0x80:
        return np.int64(0x09 <= first <= 0x0D or 0x1C <= first <= 0x20)
    if first not in (0xC2, 0xE1, 0xE2, 0xE3):
        return np.int64(0)
    second = _byte(text, start, middle, rest, end, i + 1)
    if first == 0xC2:
        return np.int64(2 if second in (0x85, 0xA0) else 0)
    third = _byte(text, start, middle, rest, end, i + 2)
    found = (
        (first == 0xE1 and second == 0x9A and third == 0x80)
        or (first == 0xE2 and second == 0x80 and (0x80 <= third <= 0x8A or third in (0xA8, 0xA9, 0xAF)))
        or (first == 0xE2 and second == 0x81 and third == 0x9F)
        or (first == 0xE3 and second == 0x80 and third == 0x80)
    )
    return np.int64(3 if found else 0)


@inner
def _read(text: UInt8s, start: Int, middle: Int, rest: Int, end: Int) -> Int:
    """Return the words of text[start:middle] + text[rest:end] << MARKS, and its marks."""
    words, marks, inside, colon = np.int64(0), np.int64(0), False, False
    i, size = np.int64(0), middle - start + end - rest
    while i < size:
        blank = _blank(text, start, middle, rest, end, i)
        if blank:
            marks |= (HAS_COLON if colon else 0) | (BLANK_FIRST if i == 0 else 0)
            inside = colon = False
            i += blank
        else:
            words += not inside
            inside, colon = True, _byte(text, start, middle, rest, end, i) == COLON
            i += 1
    if size and not inside:
        marks |= BLANK_LAST
    return words << MARKS | marks | (COLON_LAST if colon else 0)


@inner
def _read_joined(tokens: Tokens, left: Int, right: Int) -> Int:
    """Return the words of the joined token << MARKS, and its marks."""
    if tokens.text[tokens.starts[right]] & 0xC0 == 0x80:  # a character that goes over the border may be white space
        return _read(tokens.text, tokens.starts[left], tokens.starts[left + 1], tokens.starts[right], tokens.starts[right + 1])
    one, other = np.int64(tokens.marks[left]), np.int64(tokens.marks[right])
    together = not (one & BLANK_LAST or other & BLANK_FIRST)
    words = np.int64(tokens.words[left]) + tokens.words[right] - together
    marks = (one | other) & HAS_COLON | one & BLANK_FIRST | other & (BLANK_LAST | COLON_LAST)
    if one & COLON_LAST and other & BLANK_FIRST:
        marks |= HAS_COLON
    return np.int64(words << MARKS | marks)


@outer
def describe(tokens: Tokens, count: Int) -> None:
    """Fill `words`, `marks` and `seats` for the first `count` tokens; of equal tokens the first keeps the seat."""
    for token in range(count):
        start, end = tokens.starts[token], tokens.starts[token + 1]
        found = _read(tokens.text, start, end, end, end)
        tokens.words[token], tokens.marks[token] = found >> MARKS, found & ((1 << MARKS) - 1)
        if end > start:
            seat = _seat(tokens, start, end)
            if tokens.seats[seat] < 0:
                tokens.seats[seat] = token


@inner
def _leads(tokens: Tokens, leading: Int64s, left: Int, right: Int) -> bool:
    """Say if the joined token begins with a character of `leading` and goes on after it."""
    start, middle = tokens.starts[left], tokens.starts[left + 1]
    rest, end = tokens.starts[right], tokens.starts[right + 1]
    first = tokens.text[start]
    size = 1 if first < 0x80 else 0 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if size == 0 or middle - start + end - rest <= size:
        return False
    value = np.int64(0)
    for i in range(size):
        at = start + i
        value = value << 8 | np.int64(tokens.text[at] if at < middle else tokens.text[rest + at - middle])
    low, high = np.int64(0), np.int64(leading.size)
    while low < high:  # np.searchsorted takes a second to compile
        middle = (low + high) >> 1
        if leading[middle] < value:
            low = middle + 1
        else:
            high = middle
    return bool(low < leading.size and leading[low] == value)


@inner
def _is_name(tokens: Tokens, names: UInt8s, ends: Int64s, left: Int, right: Int) -> bool:
    """Say if the joined token is one of `names`."""
    start, middle = tokens.starts[left], tokens.starts[left + 1]
    rest, size = tokens.starts[right], tokens.starts[right + 1] - tokens.starts[right] + middle - start
    begin = np.int64(0)
    for end in ends:
        i = np.int64(0)
        while end - begin == size and i < size:
            at = start + i
            if names[begin + i] != (tokens.text[at] if at < middle else tokens.text[rest + at - middle]):
                break
            i += 1
        if i == size:
            return True
        begin = end
    return False


@inner
def allowed(tokens: Tokens, rules: Limits, left: Int, right: Int) -> bool:
    """Say if the rules let `left` and `right` be joined; a token without bytes is never joined.

    `rules`: limits, leading and names, see `Rules`.
    """
    limits, leading, names, ends = rules
    start, middle = tokens.starts[left], tokens.starts[left + 1]
    rest, end = tokens.starts[right], tokens.starts[right + 1]
    if start == middle or rest == end or middle - start + end - rest > limits[BYTES]:
        return False
    if np.int64(tokens.units[left]) + tokens.units[right] > limits[UNITS]:
        return False
    found = _read_joined(tokens, left, right)
    if found >> MARKS > limits[WORDS] or (limits[NO_COLON] and found & HAS_COLON):
        return False
    if leading.size and _leads(tokens, leading, left, right):
        return False
    return not _is_name(tokens, names, ends, left, right)


@inner
def join(tokens: Tokens, count: Int, left: Int, right: Int) -> Int:
    """Return the id of `left` + `right`: that of a token with these bytes, else `count`, which is filled in.

    There must be room in `text` and `starts`.
    """
    start, middle = tokens.starts[left], tokens.starts[left + 1]
    rest, end = tokens.starts[right], tokens.starts[right + 1]
    at = tokens.starts[count]
    for i in range(start, middle):
        tokens.text[at] = tokens.text[i]
        at += 1
    for i in range(rest, end):
        tokens.text[at] = tokens.text[i]
        at += 1
    seat = _seat(tokens, tokens.starts[count], at)
    if tokens.seats[seat] >= 0:
        return np.int64(tokens.seats[seat])
    tokens.seats[seat] = count
    tokens.starts[count + 1] = at
    found = _read_joined(tokens, left, right)
    tokens.words[count], tokens.marks[count] = found >> MARKS, found & ((1 << MARKS) - 1)
    tokens.units[count] = tokens.units[left] + tokens.units[right]
    return np.int64(count)
