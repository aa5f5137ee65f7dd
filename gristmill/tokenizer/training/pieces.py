"""Where the pieces of a batch of texts end.

Reads flat buffers; compiled for the patterns that tokenizers use, by the Hugging Face library for all others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.training.corpus import Batch


def open_cutter(cuts: tuple[Pattern, ...]) -> Callable[[Batch], np.ndarray]:
    """Return f(batch) -> the end of each piece, int64 [pieces], positions in its text; no piece is of two documents."""
    from gristmill.tokenizer.cutting.cutter import make_cutter
    from gristmill.tokenizer.cutting.regex import UnsupportedPattern
    from gristmill.tokenizer.training.word_kernels import batch_ends

    try:
        cutter = make_cutter(cuts)
    except UnsupportedPattern:
        return _library(cuts)

    def ends(batch: Batch) -> np.ndarray:
        # Copies: what comes through Ray cannot be written to, for which everything would be compiled a second time.
        return batch_ends(cutter, batch.text.copy(), batch.offsets.copy())

    return ends


def _library(cuts: tuple[Pattern, ...]) -> Callable[[Batch], np.ndarray]:
    from gristmill.tokenizer.cutting.library import library_cutter

    cut = library_cutter(cuts)

    def ends(batch: Batch) -> np.ndarray:
        starts = batch.offsets[:-1].tolist()
        found = [cut(text.decode()) + start for text, start in zip(batch.documents(), starts, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    return ends
