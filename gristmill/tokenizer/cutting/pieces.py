"""Where the pieces of texts end, by any patterns.

Reads flat texts; compiled for the patterns that tokenizers use, by the Hugging Face library for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.patterns import Pattern

Ends = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], npt.NDArray[np.int64]]
"""f(text, offsets) -> the end of each piece, int64 [pieces], positions in `text`; no piece is of two documents."""


def open_cutter(cuts: tuple[Pattern, ...]) -> Ends:
    """Return what cuts texts by these patterns, one after the other; without patterns a document is one piece."""
    from gristmill.tokenizer.cutting.cutter import batch_ends, make_cutter
    from gristmill.tokenizer.cutting.regex import UnsupportedPattern

    try:
        cutter = make_cutter(cuts)
    except UnsupportedPattern:
        return _library(cuts)

    return partial(batch_ends, cutter)


def _library(cuts: tuple[Pattern, ...]) -> Ends:
    from gristmill.tokenizer.cutting.library import library_cutter

    cut = library_cutter(cuts)

    def ends(text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        found = [cut(text[begin:end].tobytes().decode()) + begin for begin, end in pairwise(offsets.tolist())]
        return np.concatenate([np.zeros(0, np.int64), *found])

    return ends
