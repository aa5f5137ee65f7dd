"""Texts as the normalizer of a `tokenizer.json` leaves them, exactly as the Hugging Face library does it.

Reads flat texts; gives flat texts. The library itself normalizes at some 10 MB/s, so texts that NFC leaves alone, nearly all,
are told by tables, and the plain ones of the other steps are done by Python. The tables hold what the library's Unicode
version says, not Python's: characters that one of them does not know, or knows otherwise, are left to the library.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.tokenizer.encoding.utf8 import check_utf8
from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets, Text, encode_windows
from gristmill.tokenizer.json_parts import Step as Part
from gristmill.tokenizer.library_calls import library_call

CODE_POINTS = 0x110000
PLAIN, MARK, JOINS, CHANGES, FOREIGN = range(5)
"""What NFC may do with a character: nothing; order it among others; join it to the one before; replace it; nobody knows."""
_UNASSIGNED = ((0x33480, 0xE0000), (0xE0200, 0xF0000))
"""Code points of which no version of Unicode up to 17 has any."""
MANY_MARKS = 4096
_LOWEST = 0xCC  # all characters below U+0300, whose first byte this is, are plain
_SPACES = "".join(
    map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)
"""White space as Rust's `char::is_whitespace` has it (Unicode's property White_Space)."""

Step = Callable[[str], str]


class UnreadableNormalizer(InputError):
    """A normalizer that the Hugging Face library does not know, or whose options are wrong."""


class NormalizingEncoder:
    """An encoder of texts that a normalizer changes first."""

    def __init__(self, inside: FlatEncoder, normalizer: Part) -> None:
        self._inside, self._normalize = inside, Normalizer(normalizer)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`.

        Raises:
            ValueError: a document is not valid UTF-8.
        """
        check_utf8(text, offsets)
        return encode_windows(text, offsets, lambda some, places: self._inside.encode(*self._normalize(some, places)))


class Normalizer:
    """f(text, offsets) → the same documents normalized."""

    def __init__(self, normalizer: Part) -> None:
        """Take a normalizer as `tokenizer.json` has it.

        Raises:
            UnreadableNormalizer: the library does not know it.
        """
        parts = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
        self._steps = [_step(part) for part in parts]
        self._only_nfc = [part["type"] for part in parts] == ["NFC"]
        if any(part["type"] == "NFC" for part in parts):
            nfc_tables()  # when a tokenizer is opened, not when its first text comes

    def __call__(self, text: Text, offsets: Offsets) -> tuple[Text, Offsets]:
        """Return uint8 [bytes] and int64 [documents + 1]: the given ones where nothing changes."""
        if self._only_nfc:
            wanted = np.flatnonzero(changed_by_nfc(text, offsets))
            if not len(wanted):
                return text, offsets
        else:
            wanted = np.arange(len(offsets) - 1)
        data = text.tobytes()
        parts = [data[begin:end] for begin, end in pairwise(offsets.tolist())]
        for i in wanted.tolist():
            parts[i] = self.one(parts[i].decode()).encode()
        places = np.zeros(len(offsets), np.int64)
        np.cumsum([len(part) for part in parts], out=places[1:])
        return np.frombuffer(b"".join(parts), np.uint8), places

    def one(self, text: str) -> str:
        """Return one text normalized."""
        for step in self._steps:
            text = step(text)
        return text


def changed_by_nfc(text: Text, offsets: Offsets) -> npt.NDArray[np.bool_]:
    """Return which documents NFC may change: never too few, and hardly one too many; bool [documents].

    It changes nothing where no character is replaced, none joins the one before it, and marks stand in the order of their
    classes (Unicode Standard Annex 15, section 9). Where a document begins with a mark, the one before it counts as before.
    """
    found = np.zeros(len(offsets) - 1, np.bool_)
    begin, end = int(offsets[0]), int(offsets[-1])
    some = text[begin:end]
    if not len(some) or int(some.max()) < _LOWEST:
        return found
    tables = nfc_tables()
    points = np.frombuffer(some.tobytes().decode().encode("utf-32-le"), "<u4")
    places = np.flatnonzero(tables.watched[points])
    if not len(places):
        return found
    here, before = points[places], points[np.maximum(places - 1, 0)]
    kinds, order = tables.kinds[here], tables.classes[here]
    bad = (kinds >= CHANGES) | ((order > 0) & (tables.last[before] > order))
    joins = np.flatnonzero((kinds == JOINS) & ~bad)
    pairs = before[joins].astype(np.int64) << 32 | here[joins]
    bad[joins] = (tables.classes[before[joins]] > 0) | np.isin(pairs, tables.pairs)
    if bad.any():
        starts = np.flatnonzero(some & 0xC0 != 0x80)[places[bad]] + begin  # of the characters, in bytes
        found[np.searchsorted(offsets, starts, side="right") - 1] = True
    return found


class Tables(NamedTuple):
    """What NFC does, by code point.

    `kinds`: uint8. `watched`: bool, those that are not plain. `classes`: uint8, canonical combining classes; `last`: uint8,
    those of the last character of the decomposition. `pairs`: int64, two characters that become one: the first << 32 | the other.
    """

    kinds: npt.NDArray[np.uint8]
    watched: npt.NDArray[np.bool_]
    classes: npt.NDArray[np.uint8]
    last: npt.NDArray[np.uint8]
    pairs: npt.NDArray[np.int64]


@functools.lru_cache(maxsize=1)
def nfc_tables() -> Tables:
    """Return the tables: Python's, compared character by character with the library's; 0.4 s."""
    kinds, classes, last = (np.zeros(CODE_POINTS, np.uint8) for _ in range(3))
    for begin, end in _UNASSIGNED:
        kinds[begin:end] = FOREIGN
    pairs = []
    for point in [*range(0xC0, _UNASSIGNED[0][0]), *range(_UNASSIGNED[0][1], _UNASSIGNED[1][0])]:
        letter = chr(point)
        if unicodedata.category(letter) == "Cn":
            kinds[point] = FOREIGN
            continue
        classes[point] = last[point] = unicodedata.combining(letter)
        if classes[point]:
            kinds[point] = max(kinds[point], MARK)
        if unicodedata.decomposition(letter)[:1] not in ("", "<"):
            letters = unicodedata.normalize("NFD", letter)
            last[point] = unicodedata.combining(letters[-1])
            if not unicodedata.is_normalized("NFC", letter):
                kinds[point] = CHANGES
            elif len(first := unicodedata.normalize("NFC", letters[:-1])) == 1:
                pairs.append(ord(first) << 32 | ord(letters[-1]))
                kinds[ord(letters[-1])] = max(kinds[ord(letters[-1])], JOINS)
            else:
                kinds[ord(letters[-1])] = CHANGES
    kinds[0x1160:0x1200] = np.maximum(kinds[0x1160:0x1200], CHANGES)  # vowels and ends of Hangul, which join by rule
    for point in _otherwise(kinds, classes):
        kinds[point] = FOREIGN
    return Tables(kinds, kinds > PLAIN, classes, last, np.array(pairs, np.int64))


def _otherwise(kinds: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8]) -> set[int]:
    """Return the characters with which the library does something else than Python: alone, and behind and before marks."""
    from tokenizers import normalizers

    asked = np.flatnonzero((kinds > PLAIN) & (kinds < FOREIGN)).tolist()
    asked += [point for point in range(0xC0, 0x2FA20) if unicodedata.decomposition(chr(point))[:1] not in ("", "<")]
    asked = sorted(set(asked))
    around = (("", ""), ("a\u0334", ""), ("a\u0345", ""), ("a\u0301", ""), ("a\u0327", ""), ("a", "\u0334"), ("a", "\u0301"))
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    library = {form: getattr(normalizers, form)() for form in forms}
    found = set()
    for before, behind in around:
        texts = [before + chr(point) + behind for point in asked]
        for form, normalizer in library.items():
            got = normalizer.normalize_str("\n".join(texts)).split("\n")
            expected = [unicodedata.normalize(form, text) for text in texts]
            found |= {point for point, one, other in zip(asked, got, expected, strict=True) if one != other}
    return found


def _nfc(text: str) -> str:
    if text.isascii():
        return text
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    tables = nfc_tables()
    # Python's time grows with the square of the marks on one letter, the library's does not.
    if (tables.kinds[points] == FOREIGN).any() or np.count_nonzero(tables.classes[points]) > MANY_MARKS:
        return _library({"type": "NFC"})(text)
    return unicodedata.normalize("NFC", text)


def _step(part: Mapping[str, object]) -> Step:
    """Return one step: by Python where that is the same, else by the library."""
    match part:
        case {"type": "NFC"}:
            return _nfc
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)} if old:
            return lambda text: text.replace(old, new)
        case {"type": "Prepend", "prepend": str(first)}:
            return lambda text: first + text if text else text
        case {"type": "Strip", "strip_left": bool(left), "strip_right": bool(right)}:
            return lambda text: _strip(text, left, right)
        case {"type": "Lowercase"}:
            slow = _library(part)
            return lambda text: text.lower() if text.isascii() else slow(text)
    return _library(part)


def _strip(text: str, left: bool, right: bool) -> str:
    text = text.lstrip(_SPACES) if left else text
    return text.rstrip(_SPACES) if right else text


def _library(part: Mapping[str, object]) -> Step:
    """Return a step that the library does."""
    from tokenizers import Tokenizer

    model = {"type": "BPE", "vocab": {}, "merges": []}
    file = json.dumps({"version": "1.0", "added_tokens": [], "normalizer": part, "model": model})
    about = f"key normalizer: the library cannot read {json.dumps(part)[:200]}"
    with library_call(lambda error: UnreadableNormalizer(f"{about}: {error}")):
        tokenizer = Tokenizer.from_str(file)
    normalizer = tokenizer.normalizer
    assert normalizer is not None
    return lambda text: str(normalizer.normalize_str(text)) if text else text
