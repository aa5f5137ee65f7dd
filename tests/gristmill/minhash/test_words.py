"""The table of character classes against Unicode's categories, for what the world writes."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from gristmill.minhash import words

CLASSES = words.classes()


def category(point: int) -> str:
    return unicodedata.category(chr(point))


def test_no_letter_separates():
    letters = [point for point in range(0x20000) if category(point)[0] == "L"]
    wrong = [hex(point) for point in letters if CLASSES[point] == words.SEPARATOR]
    assert wrong == ["0x2e2f"]  # a modifier among punctuation of medieval manuscripts


def test_every_space_and_control_separates():
    points = [point for point in range(0x10000) if category(point) in {"Zs", "Zl", "Zp", "Cc"}]
    assert len(points) > 80
    assert not CLASSES[points].any()


@pytest.mark.parametrize("first, last", [(0x00, 0x17F), (0x370, 0x5FF), (0x2000, 0x206F), (0x3000, 0x30FF), (0xFF00, 0xFFEF)])
def test_punctuation_of_common_blocks_separates(first, last):
    points = [point for point in range(first, last + 1) if category(point)[0] == "P"]
    assert points
    assert not CLASSES[points].any()


@pytest.mark.parametrize("text", ["漢字かなカナ", "ภาษาไทย", "ລາວ", "ខ្មែរ", "မြန်မာ"])
def test_scripts_without_spaces_are_a_word_a_character(text):
    assert (CLASSES[[ord(c) for c in text]] == words.SINGLE).all()


@pytest.mark.parametrize("text", ["été", "Привет", "ελληνικά", "עברית", "العربية", "हिन्दी", "한국어", "አማርኛ", "ქართული"])
def test_scripts_with_spaces_are_words(text):
    assert (CLASSES[[ord(c) for c in text]] == words.LETTER).all()


def test_ranges_are_in_order_and_apart():
    for ranges in (words.SEPARATORS, words.SINGLES):
        flat = np.array(ranges).reshape(-1)
        assert (np.diff(flat)[1::2] > 0).all()
        assert (np.diff(flat)[0::2] >= 0).all()
