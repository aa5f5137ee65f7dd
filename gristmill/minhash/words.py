"""The classes of characters that decide where a word begins and ends; reads nothing, makes one lookup table.

The rule, fixed by the ranges below and not by a Unicode version, so that it never changes under a build:

- ASCII letters and digits belong to words, upper case counts as lower case; every other ASCII character separates.
- Characters of scripts written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar, ...) are a word each.
- Spaces, punctuation and symbols beyond ASCII separate (`SEPARATORS`; emoji and private use too).
- Every other character beyond ASCII belongs to a word; as which, `folding.py` says.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SEPARATOR, LETTER, SINGLE = 0, 1, 2

Ranges = tuple[tuple[int, int], ...]

# First and last code point of each range.
SEPARATORS: Ranges = (
    (0x80, 0xA9),  # Latin-1 controls, signs
    (0xAB, 0xB1),
    (0xB4, 0xB4),
    (0xB6, 0xB8),
    (0xBB, 0xBB),
    (0xBF, 0xBF),
    (0xD7, 0xD7),
    (0xF7, 0xF7),
    (0x2C2, 0x2C5),  # modifier symbols
    (0x2D2, 0x2DF),
    (0x37E, 0x37E),  # Greek
    (0x387, 0x387),
    (0x55A, 0x55F),  # Armenian
    (0x589, 0x58F),
    (0x5BE, 0x5BE),  # Hebrew
    (0x5C0, 0x5C0),
    (0x5C3, 0x5C3),
    (0x5C6, 0x5C6),
    (0x5F3, 0x5F4),
    (0x600, 0x60F),  # Arabic
    (0x61B, 0x61F),
    (0x66A, 0x66D),
    (0x6D4, 0x6D4),
    (0x700, 0x70F),  # Syriac
    (0x964, 0x965),  # dandas
    (0x970, 0x970),
    (0xDF4, 0xDF4),  # Sinhala
    (0xE3F, 0xE3F),  # baht
    (0xE4F, 0xE4F),  # Thai
    (0xE5A, 0xE5B),
    (0xF01, 0xF17),  # Tibetan: syllables end in a tsheg (0F0B)
    (0xF3A, 0xF3D),
    (0x104A, 0x104F),  # Myanmar
    (0x1360, 0x1368),  # Ethiopic
    (0x1680, 0x1680),
    (0x17D4, 0x17D6),  # Khmer
    (0x17D8, 0x17DB),
    (0x1800, 0x180A),  # Mongolian
    (0x2000, 0x206F),  # general punctuation, joiners, marks of direction
    (0x207A, 0x207E),
    (0x208A, 0x208E),
    (0x20A0, 0x20CF),  # currencies
    (0x2190, 0x245F),  # arrows, mathematics, technical, pictures
    (0x249C, 0x24E9),
    (0x2500, 0x2775),  # boxes, blocks, shapes, dingbats
    (0x2794, 0x2BFF),
    (0x2E00, 0x2E7F),  # supplemental punctuation
    (0x2FF0, 0x3004),  # ideographic descriptions and punctuation
    (0x3008, 0x3020),
    (0x3030, 0x3030),
    (0x3036, 0x3037),
    (0x303D, 0x303F),
    (0x30A0, 0x30A0),
    (0x30FB, 0x30FB),
    (0xA60D, 0xA60F),
    (0xD800, 0xF8FF),  # surrogates (never in UTF-8), private use
    (0xFD3E, 0xFD4F),  # ornate parentheses
    (0xFDFC, 0xFDFF),
    (0xFE10, 0xFE1F),  # vertical forms
    (0xFE30, 0xFE6F),  # compatibility and small forms
    (0xFEFF, 0xFEFF),
    (0xFF01, 0xFF0F),  # full-width punctuation
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF65),
    (0xFFE0, 0xFFFF),
    (0x1D000, 0x1D3FF),  # music, counting rods
    (0x1F000, 0x1FBEF),  # emoji, symbols
    (0xE0000, 0xE00FF),  # tags
    (0xF0000, 0x10FFFF),  # private use
)

SINGLES: Ranges = (
    (0xE00, 0xEFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17DF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FEF),  # radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3021, 0x303C),
    (0x3041, 0x312F),  # kana, Bopomofo
    (0x3190, 0x31FF),  # kanbun, Bopomofo, strokes, phonetic extensions
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA9E0, 0xA9FE),  # Myanmar extended
    (0xAA60, 0xAADF),  # Myanmar extended, Tai Viet
    (0xF900, 0xFAFF),  # Han compatibility
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1AFF0, 0x1B16F),  # kana supplements
    (0x20000, 0x3FFFF),  # Han of the supplementary planes
)


def classes() -> npt.NDArray[np.uint8]:
    """Return the class of each code point: uint8[0x110000] of SEPARATOR, LETTER, SINGLE."""
    table = np.full(0x110000, LETTER, np.uint8)
    for ranges, kind in ((SINGLES, SINGLE), (SEPARATORS, SEPARATOR)):
        for first, last in ranges:
            table[first : last + 1] = kind
    table[:0x80] = [LETTER if chr(c).isalnum() else SEPARATOR for c in range(0x80)]
    return table


def folded() -> npt.NDArray[np.uint8]:
    """Return the byte that stands for each ASCII byte in a word, 0 where it separates: uint8[128]."""
    table = np.zeros(128, np.uint8)
    for c in range(0x80):
        if chr(c).isalnum():
            table[c] = ord(chr(c).lower())
    return table
