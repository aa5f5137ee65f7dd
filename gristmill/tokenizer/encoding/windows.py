"""Encoding many documents some at a time, for encoders whose memory is a multiple of the text they look at.

Reads flat texts; gives flat ids. A document is never cut: one of 10 MB is a window of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

WINDOW_BYTES = 1 << 20  # of text: with the ends of its pieces and its ids it stays near the caches

Text = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]


class FlatEncoder(Protocol):
    """What every way of encoding gives."""

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """Return the ids of all documents and where each begins.

        Args:
            text: uint8 [bytes], valid UTF-8, documents one after the other.
            offsets: int64 [documents + 1], ascending; from offsets[0] to offsets[-1].

        Returns:
            uint32 [tokens]; int64 [documents + 1], from 0. Special tokens are neither found in texts nor added.
        """


def encode_windows(text: Text, offsets: Offsets, encode: Callable[[Text, Offsets], tuple[Ids, Offsets]]) -> tuple[Ids, Offsets]:
    """Return what `encode` gives for all documents, called with whole documents of about `WINDOW_BYTES` together."""
    text = text.view()
    text.flags.writeable = False  # as Arrow's buffers come: compiled loops are compiled for one type of array only
    ids: list[Ids] = []
    ends = np.zeros(len(offsets), np.int64)
    count = 0
    for first, last in _windows(offsets):
        found, places = encode(text[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
        ends[first + 1 : last + 1] = places[1:] + count
        count += len(found)
        ids.append(found)
    return np.concatenate(ids) if ids else np.zeros(0, np.uint32), ends


def _windows(offsets: Offsets) -> Iterator[tuple[int, int]]:
    """Yield first document and end of documents of each window: as many as fit, at least one."""
    first, size = 0, len(offsets) - 1
    while first < size:
        last = int(np.searchsorted(offsets, offsets[first] + WINDOW_BYTES, side="right")) - 1
        last = min(max(last, first + 1), size)
        yield first, last
        first = last
