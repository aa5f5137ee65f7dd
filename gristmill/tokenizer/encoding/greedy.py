"""Inference `longest_prefix`: in each piece, again and again the longest token that the rest begins with.

Reads flat texts; gives flat ids. This is MaxMatch as WordPiece has it, one of the inference methods that Uzan et al. 2024
("Greed is All You Need", arXiv 2403.01289) compare over one vocabulary. Needs no merges: any list of tokens will do.
"""

from __future__ import annotations

import numpy as np

from gristmill.compiling import compiled
from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.encoding.trie import BASE, BASE_SHIFT, ID_SHIFT, LABEL, ROOT, USED, Cells, make_trie
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from gristmill.tokenizer.vocabulary import Vocabulary


class LongestPrefix:
    """Encoder by the longest token at each place; time is at most length × longest token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Build the trie of the tokens and the cutter; raises ValueError as `make_trie` does."""
        self._cells = make_trie(vocabulary)
        self._cut = open_cutter(vocabulary.cuts)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        ids, places = np.empty(len(text), np.uint32), np.zeros(len(offsets), np.int64)
        count = _longest_prefixes(self._cells, text, offsets, self._cut(text, offsets), ids, places)
        return ids[:count].copy(), places


@compiled
def _longest_prefixes(cells: Cells, text: Text, offsets: Offsets, ends: Offsets, ids: Ids, places: Offsets) -> int:
    """Write the ids of the pieces that end at `ends`, and where those of each document end; return their number."""
    piece, count = 0, 0
    root = cells[ROOT]
    for document in range(len(offsets) - 1):
        at, stop = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        while at < stop:
            end = np.uint64(ends[piece])
            piece += 1
            while at < end:
                node, token, here = root, np.uint64(0), at
                while here < end:
                    byte = np.uint64(text[here])
                    node = cells[((node >> BASE_SHIFT) & BASE) ^ byte]
                    if node & LABEL != byte | USED:
                        break
                    here += np.uint64(1)
                    if node >> ID_SHIFT:
                        token, at = node >> ID_SHIFT, here
                ids[count] = token - np.uint64(1)
                count += 1
        places[document + 1] = count
    return count
