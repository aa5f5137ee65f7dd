"""How characters count in a word: one table of all code points, made from the classes of `words.py`; reads nothing else.

Two texts that say the same are often written in other code points. Here these are the same:

- composed and decomposed letters (NFC, NFD), their marks in any order;
- upper and lower case in all scripts (Unicode's full case folding; ß is ss, final sigma is sigma, iota subscript is iota;
  for capitals of Turkish the dot above counts for nothing and dotless i is i);
- full-width and half-width forms, and the presentation forms of Arabic, as what they stand for;
- Arabic and Persian yeh and kaf; vowel points of Arabic and Hebrew and the tatweel count for nothing;
- soft hyphens, zero-width characters, joiners, marks of direction and variation selectors count for nothing.

An entry is `kind << 24 | code`: how the character counts, and as which. `SEQUENCE` points into the pool: a number of entries,
then the entries. Unicode 14 decides: later characters are as they are, so that no newer Python changes a build.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from gristmill.minhash.words import LETTER, SEPARATOR, SINGLE, Ranges, classes

MARK, IGNORED, SEQUENCE = 3, 4, 5
KIND = 24  # bits below the kind

Table = tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]

NOTHING: Ranges = (
    (0xAD, 0xAD),
    (0x307, 0x307),  # dot above
    (0x34F, 0x34F),
    (0x591, 0x5BD),  # Hebrew accents and points
    (0x5BF, 0x5BF),
    (0x5C1, 0x5C2),
    (0x5C4, 0x5C5),
    (0x5C7, 0x5C7),
    (0x61C, 0x61C),
    (0x640, 0x640),  # tatweel
    (0x64B, 0x652),  # Arabic vowel points
    (0x670, 0x670),
    (0x180B, 0x180F),  # Mongolian variation selectors
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),
    (0xE0000, 0xE0FFF),  # tags, more variation selectors
)

# What is looked up character by character: no Han, Hangul syllables (computed) or private use, which stand for themselves.
CHANGING: Ranges = ((0x80, 0x33FF), (0xA000, 0xABFF), (0xF900, 0xFFEF), (0x10000, 0x1FFFF), (0x2F800, 0x2FA1F))
LATER: Ranges = (  # with case, decomposition or the class of a mark, added after Unicode 14
    (0x897, 0x897),
    (0xECE, 0xECE),
    (0x1ACF, 0x1AEB),
    (0x1C89, 0x1C8A),
    (0xA7CB, 0xA7CF),
    (0xA7D2, 0xA7D5),
    (0xA7DA, 0xA7DC),
    (0x105C0, 0x105FF),
    (0x10D40, 0x10D8F),
    (0x10EFA, 0x10EFF),
    (0x11380, 0x113FF),
    (0x11F00, 0x11F5F),
    (0x16100, 0x1613F),
    (0x16D40, 0x16D7F),
    (0x16EA0, 0x16EDF),
    (0x1E4D0, 0x1E4FF),
    (0x1E5D0, 0x1E5FF),
    (0x1E030, 0x1E08F),
    (0x1E6C0, 0x1E6FF),
)
FORMS = frozenset(("<wide>", "<narrow>", "<initial>", "<medial>", "<final>", "<isolated>"))
LETTERS = {"\u064a": "\u06cc", "\u0649": "\u06cc", "\u0643": "\u06a9", "\u0131": "i"}

SYLLABLES, LEADS, VOWELS, TAILS = (0xAC00, 0xD7A3), 0x1100, 0x1161, 0x11A7


@cache
def plain() -> Table:
    """Return the table in which each character is itself: uint32[0x110000], and an empty pool."""
    kinds = classes().astype(np.uint32)
    return kinds << np.uint32(KIND) | np.arange(0x110000, dtype=np.uint32), np.zeros(1, np.uint32)


@cache
def normalized() -> Table:
    """Return the table of this module's text, and the pool of its sequences (uint32[0x110000], uint32[n])."""
    table, pool = plain()[0].copy(), [0]
    kinds = classes()
    for first, last in NOTHING:
        kinds[first : last + 1] = IGNORED
    for character in _changed():
        _enter(table, pool, ord(character), [_entry(ord(part), kinds) for part in fold(character)])
    for first, last in NOTHING:
        table[first : last + 1] = IGNORED << KIND
    return table, np.concatenate([np.array(pool, np.uint32), _enter_syllables(table, len(pool))])


def _changed() -> list[str]:
    """Return the characters of `CHANGING` that do not stand for themselves, or are marks: one in twelve."""
    later = frozenset(_points(LATER))
    characters = "".join(chr(point) for point in _points(CHANGING) if point not in later)
    about = zip(characters, *(map(of, characters) for of in (unicodedata.decomposition, unicodedata.combining)), strict=True)
    return [one for one, parts, mark in about if parts or mark or one.casefold() != one or one in LETTERS]


def _enter_syllables(table: npt.NDArray[np.uint32], first: int) -> npt.NDArray[np.uint32]:
    """Write the entries of Hangul's syllables; return what they have in the pool, from place `first` on (uint32[n])."""
    numbers = np.arange(SYLLABLES[1] - SYLLABLES[0] + 1)
    tails = numbers % 28
    sizes = np.where(tails > 0, 3, 2)
    places = np.cumsum(sizes + 1) - sizes - 1
    pool = np.zeros(int(np.sum(sizes + 1)), np.uint32)
    pool[places] = sizes
    pool[places + 1] = LETTER << KIND | LEADS + numbers // 588
    pool[places + 2] = LETTER << KIND | VOWELS + numbers // 28 % 21
    pool[places[tails > 0] + 3] = LETTER << KIND | TAILS + tails[tails > 0]
    table[SYLLABLES[0] : SYLLABLES[1] + 1] = SEQUENCE << KIND | first + places
    return pool


def fold(character: str) -> str:
    """Return the characters that one stands for; its marks follow their letters."""
    kind, *points = unicodedata.decomposition(character).split() or [""]
    if kind in FORMS and "0020" not in points:
        character = "".join(chr(int(point, 16)) for point in points)
    found = unicodedata.normalize("NFD", unicodedata.normalize("NFD", character).casefold())
    return "".join(LETTERS.get(part, part) for part in found)


def _entry(point: int, kinds: npt.NDArray[np.uint8]) -> int:
    """Return the entry of a character that nothing further stands for."""
    kind = int(kinds[point])
    if kind != IGNORED and unicodedata.combining(chr(point)):
        kind = MARK
    return kind << KIND | point


def _enter(table: npt.NDArray[np.uint32], pool: list[int], point: int, entries: list[int]) -> None:
    """Write the entries of a character: one into the table, more into the pool.

    A single or separating character is one entry, or the first of several: a character ends a word and is another at most.
    """
    if len(entries) == 1:
        table[point] = entries[0]
        return
    if any(entry >> KIND in (SEPARATOR, SINGLE) for entry in entries[1:]):
        return
    table[point] = SEQUENCE << KIND | len(pool)
    pool += [len(entries), *entries]


def _points(ranges: Ranges) -> chain[int]:
    return chain.from_iterable(range(first, last + 1) for first, last in ranges)
