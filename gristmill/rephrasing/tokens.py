"""How many tokens texts have: by a tokenizer, or estimated.

Reads the tokenizer's file, where one is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

BYTES_A_TOKEN = 4  # of UTF-8; English text has 4 to 5 by tokenizers of 32,000 tokens and more, other scripts more or as many

Count = Callable[[Sequence[str]], list[int]]
"""Returns the tokens of each text."""


def estimate(texts: Sequence[str]) -> list[int]:
    """Return the tokens of each text as a quarter of its bytes, rounded up: rather too many than too few.

    >>> estimate(["", "mill", "mills"])
    [0, 1, 2]
    """
    return [-(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN) for text in texts]


def counting(tokenizer: str | None) -> Count:
    """Return what counts tokens: a tokenizer, by its file or folder, or `estimate`. Raises InputError as `Tokenizer.open`."""
    if tokenizer is None:
        return estimate
    from gristmill.tokenizer.tokenizer import Tokenizer

    opened = Tokenizer.open(tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        _, offsets = opened.encode(list(texts))
        lengths: list[int] = np.diff(offsets).tolist()
        return lengths

    return count
