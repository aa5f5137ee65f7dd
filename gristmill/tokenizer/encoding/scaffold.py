"""Encoding with scaffold tokens (Scaffold-BPE, Lian et al. 2024, arXiv 2404.17808).

Reads flat texts and a vocabulary whose last ids are scaffolds; gives flat ids without them. All merges are done as in plain
BPE; a scaffold token that is left over is then taken apart into the two that it was merged from, and these again, until no
scaffold is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gristmill.tokenizer.encoding.encoder import Encoder
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text
from gristmill.tokenizer.vocabulary import Vocabulary


class ScaffoldEncoder:
    """Encoder of a vocabulary with scaffolds."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Make the tables of the ordinary encoder, and what each scaffold is taken apart into."""
        self._first = vocabulary.size
        self._encoder = Encoder(replace(vocabulary, scaffolds=0))
        self._parts, self._starts = take_apart(vocabulary)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        ids, ends = self._encoder.encode(text, offsets)
        at = np.flatnonzero(ids >= self._first)
        left = ids[at].astype(np.int64) - self._first
        sizes = np.ones(len(ids), np.int64)
        sizes[at] = self._starts[left + 1] - self._starts[left]
        begins = np.append(0, np.cumsum(sizes))
        found = np.repeat(ids, sizes)
        # The places of all parts: for each scaffold so many after its first.
        within = np.arange(sizes[at].sum()) - np.repeat(np.append(0, np.cumsum(sizes[at]))[:-1], sizes[at])
        found[np.repeat(begins[at], sizes[at]) + within] = self._parts[np.repeat(self._starts[left], sizes[at]) + within]
        return found, begins[ends]


def take_apart(vocabulary: Vocabulary) -> tuple[Ids, Offsets]:
    """Return what scaffolds become: the ids, uint32, and where those of each scaffold begin, int64 [scaffolds + 1].

    A scaffold that several merges make is taken apart by the first of them.
    """
    made: dict[int, tuple[int, int]] = {}
    for left, right, token in vocabulary.merges.tolist():
        made.setdefault(token, (left, right))
    parts: dict[int, list[int]] = {}

    def normal(token: int) -> list[int]:
        return parts[token] if token >= vocabulary.size else [token]

    # Shorter ones first: both parts of a token are shorter than it is.
    for token in sorted(range(vocabulary.size, len(vocabulary.tokens)), key=lambda i: len(vocabulary.tokens[i])):
        left, right = made[token]
        parts[token] = [*normal(left), *normal(right)]
    lists = [parts[token] for token in range(vocabulary.size, len(vocabulary.tokens))]
    starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return np.array([i for each in lists for i in each], np.uint32), starts
