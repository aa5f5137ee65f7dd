"""Inference `least_tokens`: each piece in as few tokens as there can be.

Reads flat texts; gives flat ids. The segmentation of PathPiece (Schmidt et al. 2024, "Tokenization Is More Than Compression",
arXiv 2402.18376), a shortest path on the places of a piece. Among shortest paths it is theirs too (PathPieceL): the longest last
token, then the longest before it, and so on to the front. Needs no merges: any list of tokens will do.

Where no token reaches across a place, every path goes through it: what lies before is settled then. So a document of any size
takes the memory of the longest stretch in which tokens overlap, a few dozen bytes in most texts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import compiled, inner
from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.encoding.trie import BASE, BASE_SHIFT, ID_SHIFT, LABEL, ROOT, USED, Cells, make_trie
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from gristmill.tokenizer.vocabulary import Vocabulary

FAR = np.uint32(0xFFFFFFFF)
STEPS = 1024  # places that there is room for at first

Steps = npt.NDArray[np.uint32]


class LeastTokens:
    """Encoder by the fewest tokens; time is at most length × longest token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Build the trie of the tokens and the cutter; raises ValueError as `make_trie` does."""
        self._cells = make_trie(vocabulary)
        self._sizes = np.array([len(token) for token in vocabulary.tokens], np.uint32)
        self._longest = np.uint64(self._sizes.max())
        self._cut = open_cutter(vocabulary.cuts)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        ids, places = np.empty(len(text), np.uint32), np.zeros(len(offsets), np.int64)
        count = _least_tokens(self._cells, self._sizes, self._longest, text, offsets, self._cut(text, offsets), ids, places)
        return ids[:count].copy(), places


@compiled
def _grown(last: Steps) -> Steps:
    """Return the array twice as long."""
    more = np.empty(2 * len(last), np.uint32)
    for i in range(len(last)):
        more[i] = last[i]
    return more


@inner
def _settle(last: Steps, sizes: Steps, at: np.uint64, ids: Ids, end: np.uint64) -> None:
    """Write the ids of the path to place `at`, the last of them before ids[end]."""
    while at > 0:
        end -= np.uint64(1)
        ids[end] = last[at]
        at -= np.uint64(sizes[last[at]])


@compiled
def _least_tokens(
    cells: Cells, sizes: Steps, room: np.uint64, text: Text, offsets: Offsets, ends: Offsets, ids: Ids, places: Offsets
) -> int:
    """Write the ids of the pieces that end at `ends`, and where those of each document end; return their number.

    `sizes`: of each token in bytes, uint32; `room`: the largest of them.
    """
    # By place: the last token of the best path there, counted from what is settled; and the number of its tokens, in a ring.
    last = np.empty(STEPS, np.uint32)
    ring = np.uint64(1)
    while ring <= room:
        ring *= np.uint64(2)
    numbers = np.full(ring, FAR, np.uint32)
    mask = ring - np.uint64(1)
    root = cells[ROOT]
    piece, count = 0, np.uint64(0)
    for document in range(len(offsets) - 1):
        at, stop = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        settled, reach = at, at
        numbers[at & mask] = 0
        while at < stop:
            end = np.uint64(ends[piece])
            piece += 1
            while at < end:
                if at - settled + room >= np.uint64(len(last)):
                    last = _grown(last)
                number = numbers[at & mask] + np.uint32(1)
                numbers[at & mask] = FAR
                node, here = root, at
                while here < end:
                    byte = np.uint64(text[here])
                    node = cells[((node >> BASE_SHIFT) & BASE) ^ byte]
                    if node & LABEL != byte | USED:
                        break
                    here += np.uint64(1)
                    if node >> ID_SHIFT:
                        # Strictly fewer: of equals the first stays, which begins first, so it is the longest.
                        if number < numbers[here & mask]:
                            numbers[here & mask] = number
                            last[here - settled] = (node >> ID_SHIFT) - np.uint64(1)
                        reach = max(reach, here)
                at += np.uint64(1)
                if at == reach:
                    count += np.uint64(numbers[at & mask])
                    _settle(last, sizes, at - settled, ids, count)
                    settled = at
                    numbers[at & mask] = 0
        numbers[at & mask] = FAR
        places[document + 1] = count
    return int(count)
