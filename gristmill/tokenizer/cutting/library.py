"""Text to pieces by the Hugging Face library: for patterns that the compiled cutter does not know, some ten times slower.

Reads one text at a time; writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gristmill.tokenizer.patterns import Pattern, steps


def library_cutter(cuts: Sequence[Pattern]) -> Callable[[str], np.ndarray]:
    """Return f(text) -> the end of each piece in bytes of UTF-8, int64 [pieces]."""
    from tokenizers import pre_tokenizers

    # The last step writes one letter for each byte, so the length of a piece is its bytes.
    cut = pre_tokenizers.Sequence([*steps(cuts), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def ends(text: str) -> np.ndarray:
        return np.cumsum([len(piece) for piece, _ in cut.pre_tokenize_str(text)], dtype=np.int64)

    return ends
