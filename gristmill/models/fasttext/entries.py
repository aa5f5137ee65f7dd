"""The compiled loop that finds the words of a fastText model's dictionary in its file.

Reads the file's bytes; fills arrays that the caller made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import outer

LEAST = 10  # bytes of an entry: a word of none, its NUL, a count of 8, a kind


@outer
def find(
    data: npt.NDArray[np.uint8],
    at: int,
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.uint8],
) -> int:
    """Write where each entry's word begins, its bytes, its count and its kind (0 word, 1 label); return the byte behind the last.

    Args:
        data: uint8 [bytes], of the file.
        at: where the first entry begins.
        starts: [entries], to be filled, as the others.

    Returns:
        −1 where the file ends before the last entry does.
    """
    for entry in range(starts.size):
        end = at
        while end < data.size and data[end] != 0:
            end += 1
        if end + LEAST > data.size:
            return -1
        starts[entry], sizes[entry] = at, end - at
        count = np.uint64(0)
        for byte in range(8):
            count |= np.uint64(data[end + 1 + byte]) << np.uint64(8 * byte)
        counts[entry], kinds[entry] = np.int64(count), data[end + 9]
        at = end + LEAST
    return at
