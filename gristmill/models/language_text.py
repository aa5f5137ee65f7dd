"""The text that a classifier of languages is asked about: a document's text as the training text of lid.176 was written.

lid.176 knows words by their bytes, in the case they mostly have. Capitals, no-break spaces and invisible characters make
other words of them: MY FRIEND IS A BIRD is Marathi at .795, English with no-break spaces Catalan.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

UPPER, LOWER = 1, 2
RUN = 3  # words of capitals in a row that are a heading, not abbreviations
MARKS = 30  # on one letter
MARGIN = 64  # characters beyond a cut, so that marks that belong to the last one are seen
SOME = 0.05  # share of upper case among cased letters from which runs are looked for

# Soft hyphen, zero-width space, marks of direction, word joiner and its like, byte order mark.
INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Joiners mean something in Arabic and Indic scripts; in Latin, Greek, Cyrillic and Armenian they are as invisible.
JOINERS = re.compile("(?<=[\u0000-\u058f])[\u200c\u200d]+|[\u200c\u200d]+(?=[\u0000-\u058f])")
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
WIDE = re.compile("[\uff01-\uff5e]")
TURKISH = re.compile("[\u0130\u011e]")  # İ, Ğ: in capitals of Turkish, Azerbaijani, Tatar alone
DOTLESS = str.maketrans({"I": "\u0131", "\u0130": "i"})


def spaced(text: str) -> str:
    """Return a text without invisible characters, composed (NFC), half width, with one space for any white space, stripped."""
    if not text.isascii():
        text = INVISIBLE.sub("", text)
        if "\u200c" in text or "\u200d" in text:
            text = JOINERS.sub("", text)
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", _bounded(text))
        if WIDE.search(text):
            text = text.translate(FULL_WIDTH)
    return " ".join(text.split())


def beginning(text: str, size: int | None) -> str:
    """Return the first `size` characters of `spaced(text)`; all of it if `size` is None."""
    if size is None:
        return spaced(text)
    part = 2 * size + MARGIN
    while len(found := spaced(text[:part])) < size + MARGIN and part < len(text):
        part *= 4
    return found[:size]


def lowered(text: str) -> str:
    """Return a text in lower case if most of its cased letters are capitals; else with `RUN` words of capitals in a row so."""
    upper, lower = _cased(text)
    if upper > lower:
        return _lower(text)
    if upper <= SOME * (upper + lower):
        return text
    words = text.split(" ")
    capital = [word.isupper() for word in words]
    start = 0
    for end in range(len(words) + 1):
        if end == len(words) or not (capital[end] or (end > start and not _has_case(words[end]))):
            if sum(capital[start:end]) >= RUN:
                words[start:end] = _lower(" ".join(words[start:end])).split(" ")
            start = end + 1
    return " ".join(words)


def _lower(text: str) -> str:
    """Return text in lower case: Greek with its final sigma, Turkish with its two letters i."""
    return (text.translate(DOTLESS) if TURKISH.search(text) else text).lower()


def _has_case(word: str) -> bool:
    return word.lower() != word.upper()


def _cased(text: str) -> tuple[int, int]:
    """Return how many letters of `text` are upper and lower case."""
    kinds = _table()[_points(text)]
    return int(np.count_nonzero(kinds == UPPER)), int(np.count_nonzero(kinds == LOWER))


def _bounded(text: str) -> str:
    """Return a text without the marks of one letter beyond `MARKS`, more than any language has.

    Python sorts marks in a time that grows with the square of their number: 40,000 on one letter take 3 s. UAX #15 (13,
    Stream-Safe Text Format) has the same bound.
    """
    table, pattern = _marks()
    rows = table[_points(text)]
    for step in (1, 2, 4, 8, 16):  # of 2, 4, 8, 16, 32 marks; the pattern alone takes ten times longer
        rows = rows[:-step] & rows[step:]
    return pattern.sub(r"\1", text) if rows.any() else text


@cache
def _marks() -> tuple[npt.NDArray[np.bool_], re.Pattern[str]]:
    """Return which code points are combining marks, and what finds too many of them, with those that stay as a group."""
    table = np.zeros(0x110000, np.bool_)
    codes = [code for code in range(0x300, 0x1E94B) if unicodedata.combining(chr(code))]
    table[codes] = True
    starts, ends = ([code for code in codes if not table[code + step]] for step in (-1, 1))
    marks = "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(starts, ends, strict=True))
    return table, re.compile(f"([{marks}]{{{MARKS}}})[{marks}]+")


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@cache
def _table() -> npt.NDArray[np.uint8]:
    """Return UPPER, LOWER or 0 of each code point."""
    table = np.zeros(0x110000, np.uint8)
    for code in range(0x1E944):  # Adlam is the last script with case
        character = chr(code)
        table[code] = UPPER if character.isupper() else LOWER if character.islower() else 0
    return table
