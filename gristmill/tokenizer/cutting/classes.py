"""Which characters belong to a character class, asked of the very library whose cuts are to be equalled.

Unicode versions differ between libraries, so nothing is taken from `unicodedata`: Oniguruma inside `tokenizers` removes the
members of a class from a text of all 1,112,064 scalars (50 ms a class), and what is left tells the members. Reads nothing,
writes nothing; what was asked once is kept for the process.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000

Members = npt.NDArray[np.bool_]
"""Whether each code point is a member; bool [1,114,112], not to be written to."""

_FEW = re.compile(r"\[(?:[^\\\[\]^&-]|\\[rnt/])+\]", re.ASCII)  # a bracket of plain characters


@lru_cache(maxsize=256)
def members(source: str, ignore_case: bool = False) -> Members:
    """Return the members of a class: `source` is one character, or any expression for one (`\\s`, `[^\\r\\n\\p{L}]`)."""
    asked = _ascii_in_any_case() if ignore_case and len(source) == 1 and source.isascii() else _scalars()
    if not ignore_case and source.isascii() and _FEW.fullmatch(source):
        asked = np.arange(128, dtype=np.uint32)
    if len(source) == 1:
        source = rf"\x{{{ord(source):x}}}"
    return _among(asked, f"(?i:{source})" if ignore_case else source)


@lru_cache(maxsize=256)
def only(letter: str) -> Members:
    """Return the class of one character."""
    found = np.zeros(CODE_POINTS, np.bool_)
    found[ord(letter)] = True
    return found


@lru_cache(maxsize=1)
def numerics() -> Members:
    """Return what the pre-tokenizer `Digits` takes for a digit: Nd, Nl and No of Rust's own Unicode tables.

    It is slow to ask, so letters, private use and the planes 4 to 13, where nothing is assigned, are left out.
    """
    from tokenizers import pre_tokenizers

    asked = _scalars()
    low = (asked < 0x40000) | (asked >= 0xE0000)
    asked = asked[low & ~members(r"[\p{L}\p{Co}]")[asked]]
    digits = pre_tokenizers.Digits(individual_digits=False)
    found = np.zeros(CODE_POINTS, np.bool_)
    for part in np.array_split(asked, asked.size // 5000):  # longer texts take longer per character
        # Behind a letter the pieces are by turns without and with digits.
        for _, (begin, end) in digits.pre_tokenize_str("a" + _text(part))[1::2]:
            found[part[begin - 1 : end - 1]] = True
    return found


@lru_cache(maxsize=1)
def several_when_folded() -> dict[str, str]:
    """Return the characters that are more than one without case ('ß' is 'ss'), and what they are then; none is beyond U+FFFF."""
    return {letter: folded for letter in map(chr, range(0x10000)) if len(folded := letter.casefold()) > 1}


@lru_cache(maxsize=1)
def _ascii_in_any_case() -> npt.NDArray[np.uint32]:
    return np.flatnonzero(_among(_scalars(), r"(?i:[\x{0}-\x{7F}])")).astype(np.uint32)


@lru_cache(maxsize=1)
def _scalars() -> npt.NDArray[np.uint32]:
    points = np.arange(CODE_POINTS, dtype=np.uint32)
    return points[(points < 0xD800) | (points > 0xDFFF)]


def _text(points: npt.NDArray[np.uint32]) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _among(asked: npt.NDArray[np.uint32], source: str) -> Members:
    """Return which of these code points match `source`."""
    from tokenizers import Regex, decoders

    # The decoder Replace is the one way to the library's regex engine that does not keep an alignment of each byte (25x).
    rest = decoders.Replace(Regex(f"(?:{source})++"), "").decode([_text(asked)])
    found = np.zeros(CODE_POINTS, np.bool_)
    found[asked] = True
    found[np.frombuffer(rest.encode("utf-32-le"), "<u4")] = False
    found[0xD800:0xE000] = found[0xD7FF]  # no text has surrogates; they must not be a kind of their own to the automata
    return found
