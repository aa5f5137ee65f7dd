"""How each character counts for a linear model's words: one table of all code points; reads nothing.

An entry is `kind << 24 | code`: SEPARATOR ends a word, LETTER belongs to one, SINGLE is a word of its own. Letters of both cases
have one code where the model reads lower case, and composed letters are themselves. The tables of `gristmill.minhash` decide,
which no newer Unicode changes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from gristmill.minhash.folding import IGNORED, KIND, MARK, SEQUENCE, normalized
from gristmill.minhash.words import LETTER, SEPARATOR, SINGLE, classes

Table = npt.NDArray[np.uint32]

WHITE_SPACE = (*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
"""Unicode's White_Space, which is stable."""


@cache
def characters(words: str, lowercase: bool) -> Table:
    """Return how each code point counts, uint32 [0x110000].

    Args:
        words: see `file.Features`.
        lowercase: whether capitals are their small letters.
    """
    kinds = classes()
    if words == "spaces":
        kinds[:] = LETTER
    elif words == "marks":
        kinds[kinds == SEPARATOR] = SINGLE
        kinds[:0x20] = kinds[0x7F] = SEPARATOR
    kinds[list(WHITE_SPACE)] = SEPARATOR
    codes = _lower() if lowercase else np.arange(0x110000, dtype=np.uint32)
    return kinds.astype(np.uint32) << np.uint32(KIND) | codes


def _lower() -> npt.NDArray[np.uint32]:
    """Return the code point that stands for each: of those that are folded to the same, the last, which is a small letter."""
    table, pool = normalized()
    codes = np.arange(0x110000, dtype=np.uint32)
    kinds = table >> np.uint32(KIND)
    alone = (kinds != SEQUENCE) & (kinds != IGNORED) & (kinds != MARK)
    codes[alone] = table[alone] & np.uint32((1 << KIND) - 1)
    codes[0x41:0x5B] += np.uint32(0x20)
    same: dict[bytes, int] = {}
    sequences = np.flatnonzero(kinds == SEQUENCE)
    for point in sequences[(sequences < 0xAC00) | (sequences > 0xD7A3)].tolist():  # syllables of Hangul have no case
        first = int(table[point] & np.uint32((1 << KIND) - 1))
        parts = pool[first + 1 : first + 1 + int(pool[first])].tobytes()
        codes[point] = same.setdefault(parts, point)
    return codes
