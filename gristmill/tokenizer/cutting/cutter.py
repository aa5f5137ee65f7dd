"""Cuts UTF-8 text into the pieces that `tokenizers` makes with the same split patterns, compiled.

Reads flat buffers of bytes, writes the ends of the pieces. A pattern is made into a table once (`automaton`); the scan then
takes one step a character, and steps back where a match ended earlier than it could be known. It never looks beyond the
end of the document. Importing this module compiles nothing; the first calls do, or load numba's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.compiling import compiled, inner
from gristmill.tokenizer.cutting import automaton
from gristmill.tokenizer.cutting.classes import CODE_POINTS, numerics
from gristmill.tokenizer.cutting.regex import One, parse
from gristmill.tokenizer.intrinsics import address_of, byte_at, lower_run, word_at
from gristmill.tokenizer.patterns import Pattern

_EVENT, _MATCH, _CUT, _START = (np.uint32(flag) for flag in (automaton.EVENT, automaton.MATCH, automaton.CUT, automaton.START))
_SHIFT, _HIT, _DONE = (
    np.uint32(automaton.SHIFT),
    np.uint32(automaton.HIT << automaton.SHIFT),
    np.uint32(automaton.DONE << automaton.SHIFT),
)
_ROW = np.uint32(automaton.SHIFT + 2)
_CUT_BIT = np.uint32(automaton.CUT.bit_length() - 1)
_BEGIN, _FIRST_DIGIT, _END_SYMBOL = 0, 1, 2  # columns of Cutter.levels
_NO_SYMBOL = 256
_CALM = np.uint32(1 << 31)  # of an entry of the table here: where it leads, nothing happens before lower-case letters end
_BLOCK, _LETTER = np.uint64(16), np.uint64(ord("a"))
_ASCII = np.uint64(0x80)
_ZERO, _ONE, _TWO, _THREE, _FOUR = (np.uint64(i) for i in range(5))


class Cutter(NamedTuple):
    """Patterns made into tables; arrays only, so that compiled functions take it as one argument.

    `symbols`: what a code point is to the automata, uint8 [1,114,112]. `table`: see `automaton.Machine.table`, uint32, with
    `_CALM` added.
    `levels`: one row a pattern: where its table begins, its first symbol of a digit (or one that no character has), the symbol
    of the end of a text; uint64 [patterns, 3].
    """

    symbols: npt.NDArray[np.uint8]
    table: npt.NDArray[np.uint32]
    levels: npt.NDArray[np.uint64]


def cut_into(cutter: Cutter, text: npt.NDArray[np.uint8], begin: int, end: int, ends: npt.NDArray[np.int64]) -> int:
    """Write where each piece of text[begin:end] ends, as places in `text`; return how many pieces there are.

    `text`: valid UTF-8, uint8 [bytes]. `ends`: int64, with room for end - begin entries; what is behind the pieces' is garbage.
    """
    offsets = np.array([begin, end], np.int64)
    return int(_cut_documents(cutter, address_of(text), address_of(offsets), _ONE, ends))


def batch_ends(cutter: Cutter, text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the end of each piece of each document, int64 [pieces], positions in `text`."""
    ends = np.empty(len(text), np.int64)
    count = _cut_documents(cutter, address_of(text), address_of(offsets), np.uint64(len(offsets) - 1), ends)
    return ends[: int(count)].copy()


@compiled
def _cut_documents(
    cutter: Cutter, text: np.uint64, offsets: np.uint64, documents: np.uint64, ends: npt.NDArray[np.int64]
) -> np.uint64:
    """Write where each piece of each document ends; return how many pieces there are.

    `text`, `offsets`: addresses, for arrays that can be written to and others would be two types, and all compiled twice.
    """
    count, document = _ZERO, _ZERO
    while document < documents:
        begin, end = word_at(offsets, document), word_at(offsets, document + _ONE)
        document += _ONE
        if begin < end:
            first = count
            ends[first] = end
            count += _ONE
            for level in range(cutter.levels.shape[0]):
                pieces = ends[np.int64(first) : np.int64(count)].copy()
                count, behind = first, begin
                for piece in pieces:
                    count = _scan(cutter, np.uint64(level), text, behind, np.uint64(piece), ends, count)
                    behind = np.uint64(piece)
    return count


@inner
def _scan(
    cutter: Cutter,
    level: np.uint64,
    text: np.uint64,
    begin: np.uint64,
    end: np.uint64,
    ends: npt.NDArray[np.int64],
    found: np.uint64,
) -> np.uint64:
    """Append where the pieces of text[begin:end] end from `found` on, by one pattern; return the new count."""
    symbols, table = cutter.symbols, cutter.table
    base, first_digit, end_symbol = (
        cutter.levels[level, _BEGIN],
        cutter.levels[level, _FIRST_DIGIT],
        cutter.levels[level, _END_SYMBOL],
    )
    letter = np.uint64(symbols[_LETTER])
    state, at, start, last, gap = base, begin, begin, begin, begin
    digit, behind_digit, left = end, end, _ZERO  # the digit last seen, what follows it, how many there are from it on, modulo 3
    first = count = found
    while True:
        entry = _EVENT
        while at < end:
            byte = byte_at(text, at)
            if byte < _ASCII:
                symbol, size = np.uint64(symbols[byte]), _ONE
            else:
                symbol, size = _symbol(symbols, text, at)
            if symbol >= first_digit:
                if at != digit:
                    left = (left + _TWO) % _THREE if at == behind_digit else _digits(symbols, first_digit, text, at, end)
                    digit, behind_digit = at, at + size
                symbol += left
            entry = table[state + symbol]
            if entry & _EVENT:
                break
            # No branches: whether a word ends here is what a processor predicts worst.
            ends[count] = at
            count += np.uint64((entry >> _CUT_BIT) & np.uint32(1))
            last ^= (last ^ at) & -np.uint64((entry >> np.uint32(1)) & np.uint32(1))
            start ^= (start ^ at) & -np.uint64((entry >> np.uint32(3)) & np.uint32(1))
            state = np.uint64((entry & ~_CALM) >> _SHIFT)
            at += size
            if entry & _CALM and at + _BLOCK <= end:
                run = lower_run(text, at)
                behind = np.uint64((table[state + letter] & ~_CALM) >> _SHIFT)
                state ^= (state ^ behind) & -np.uint64(run != _ZERO)
                at += run
        if at >= end:
            entry = table[state + end_symbol]
            if entry & _DONE:
                break
        last = at if entry & _MATCH else last
        start = at if entry & _START else start
        if entry & _HIT:
            gap = np.uint64(ends[count - _ONE]) if count > first else begin
            if start > gap:
                ends[count] = start
                count += _ONE
        if entry & _HIT and last > start:
            ends[count] = last
            count += _ONE
            at, state = last, base
        else:  # without a match, or behind an empty one, the search goes on at the next character
            at = start + _symbol(symbols, text, start)[1]
            state = np.uint64(entry >> _ROW)
    gap = np.uint64(ends[count - _ONE]) if count > first else begin
    if gap < end:
        ends[count] = end
        count += _ONE
    return count


@inner
def _symbol(symbols: npt.NDArray[np.uint8], text: np.uint64, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the symbol and the size in bytes of the character that begins at `at`."""
    byte = byte_at(text, at)
    if byte < _ASCII:
        return np.uint64(symbols[byte]), _ONE
    point, size = byte & np.uint64(0x1F), _TWO
    point = point << np.uint64(6) | (byte_at(text, at + _ONE) & np.uint64(0x3F))
    if byte >= np.uint64(0xE0):
        point, size = (point & np.uint64(0x3FF)) << np.uint64(6) | (byte_at(text, at + _TWO) & np.uint64(0x3F)), _THREE
    if byte >= np.uint64(0xF0):
        point, size = (point & np.uint64(0x7FFF)) << np.uint64(6) | (byte_at(text, at + _THREE) & np.uint64(0x3F)), _FOUR
    return np.uint64(symbols[point]), size


@inner
def _digits(symbols: npt.NDArray[np.uint8], first_digit: np.uint64, text: np.uint64, at: np.uint64, end: np.uint64) -> np.uint64:
    """Return the number of digits from `at` on, modulo three."""
    count = _ZERO
    while at < end:
        symbol, size = _symbol(symbols, text, at)
        if symbol < first_digit:
            break
        count += _ONE
        at += size
    return count % _THREE


def make_cutter(cuts: Sequence[Pattern]) -> Cutter:
    """Return the cutter that applies these patterns one after the other, each inside the pieces of the one before.

    Without patterns a text is one piece. Takes 0.2 to 0.7 s for the published patterns, most of it to ask for the classes.

    Raises:
        UnsupportedPattern: a pattern has something that tables cannot do; it says what.
    """
    # Without an expression nothing is a match: the parts between digits are pieces.
    trees = [parse(each.regex) if each.regex else One(np.zeros(CODE_POINTS, np.bool_)) for each in cuts]
    programs = [automaton.compile_program(tree) for tree in trees]
    runs = [numerics() if each.digits else None for each in cuts]
    symbols = automaton.tell_apart(programs, [each for each in runs if each is not None])
    tables: list[npt.NDArray[np.uint32]] = [np.zeros(0, np.uint32)]
    levels = np.zeros((len(programs), 3), np.uint64)
    for level, program, each, cut in zip(levels, programs, runs, cuts, strict=True):
        level[:] = (
            sum(table.size for table in tables),
            symbols.first_digit if program.counts_digits() else _NO_SYMBOL,
            symbols.end,
        )
        table = automaton.Machine(program, symbols, each, alone=cut.digits == "each").table(int(level[_BEGIN]))
        _mark_calm(table, int(level[_BEGIN]), np.unique(symbols.of[ord("a") : ord("z") + 1]), symbols.end)
        tables.append(table.reshape(-1))
    return Cutter(symbols.of, np.concatenate(tables), levels)


def _mark_calm(table: npt.NDArray[np.uint32], base: int, letters: npt.NDArray[np.uint8], end: int) -> None:
    """Add `_CALM` to the entries of a table, uint32 [rows, width], from which any letters lead to a row where letters stay.

    Whatever comes behind the letters must say anew that a match ends there, or that the piece does, so the scan need not know
    how many letters there were. Rows that say the same are made one first.
    """
    rows, width = table.shape
    given = table[:, : end + 1]
    _, first, same = np.unique(given, axis=0, return_index=True, return_inverse=True)
    steps = given & _EVENT == 0
    kept = first[same.reshape(-1)[((given >> _SHIFT).astype(np.int64) - base) * steps // width]]
    given[steps] = ((kept * width + base).astype(np.uint32) << _SHIFT | given & (_MATCH | _CUT | _START))[steps]
    itself = (np.arange(rows) * width + base).astype(np.uint32) << _SHIFT | _MATCH
    stays = (given[:, letters] == itself[:, None]).all(axis=1) & (given & (_MATCH | _CUT) != 0).all(axis=1)
    one = (given[:, letters] == given[:, letters[:1]]).all(axis=1) & (given[:, letters[0]] & (_EVENT | _CUT | _START) == 0)
    calm = one & stays[kept[:, letters[0]]]
    given[steps & calm[kept]] |= _CALM


def cut(cutter: Cutter, text: bytes) -> npt.NDArray[np.int64]:
    """Return where the pieces of a text end, in bytes; int64 [pieces]. The text must be valid UTF-8."""
    ends = np.empty(len(text), np.int64)
    return ends[: cut_into(cutter, np.frombuffer(bytearray(text), np.uint8), 0, len(text), ends)]
