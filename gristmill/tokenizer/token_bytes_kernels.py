"""The compiled loops of `token_bytes`: tokens spelled out one after the other, or compared with a text.

They read flat arrays and fill arrays that the caller made. Each document is computed from its own tokens alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import Int, outer

SPACE = 0x20


@outer
def spell(
    ids: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], text: npt.NDArray[np.uint8]
) -> None:
    """Write the bytes of the tokens one after the other."""
    filled = 0
    for token in ids:
        for i in range(starts[token], starts[np.int64(token) + 1]):
            text[filled] = data[i]
            filled += 1


@outer
def compare(
    ids: npt.NDArray[np.uint32],
    bounds: npt.NDArray[np.int64],
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    text: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    prefix: Int,
    same: npt.NDArray[np.bool_],
) -> None:
    """Write which documents' tokens have just the bytes of the text, after `prefix` spaces or none."""
    for document in range(same.size):
        begin, size = offsets[document], offsets[document + 1] - offsets[document]
        total = 0
        for i in range(bounds[document], bounds[document + 1]):
            total += starts[np.int64(ids[i]) + 1] - starts[ids[i]]
        at, good = size - total, total == size or total == size + prefix
        i = bounds[document]
        while good and i < bounds[document + 1]:
            for k in range(starts[ids[i]], starts[np.int64(ids[i]) + 1]):
                good &= data[k] == (SPACE if at < 0 else text[begin + at])
                at += 1
            i += 1
        same[document] = good
