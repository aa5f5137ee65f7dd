"""Pieces of text with how often they occur: what merges inside words are learned from.

Reads the batches of a corpus; the counts of batches add up, so they can be made anywhere and in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.progress import Progress
from gristmill.tokenizer.training.corpus import Batch, Corpus
from gristmill.tokenizer.training.stream import Stream


@dataclass(frozen=True)
class Words:
    """Different pieces. `text`: uint8, all of them; `offsets`: int64 [words + 1]; `counts`: int64 [words]."""

    text: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        """Return the number of different pieces."""
        return len(self.counts)


def count_words(corpus: Corpus, cuts: Sequence[Pattern], progress: Progress) -> list[Words]:
    """Return the pieces of each group, in the order of groups.

    Args:
        corpus: the texts.
        cuts: where a text is cut into pieces.
        progress: called with the bytes read.
    """
    total, done = corpus.bytes, 0
    held: list[list[Words]] = [[] for _ in corpus.groups]
    progress("count words", 0, total, "bytes")
    for batch, words in zip(corpus.batches, corpus.run(partial(counter, tuple(cuts)), corpus.batches), strict=True):
        mine = held[batch.group]
        mine.append(words)
        # Sums of equal size, as in a merge sort: no word is gone through more than log2(batches) times.
        while len(mine) > 1 and len(mine[-1]) * 2 > len(mine[-2]):
            mine[-2:] = [add(mine[-2:])]
        done += len(batch.text)
        progress("count words", done, total, "bytes")
    return [add(mine) for mine in held]


def counter(cuts: tuple[Pattern, ...]) -> Callable[[Batch], Words]:
    """Return f(batch) -> its different pieces."""
    cut = open_cutter(cuts)

    def count(batch: Batch) -> Words:
        ends = cut(batch.text, batch.offsets)
        return _unique(batch.text, np.concatenate([np.zeros(1, np.int64), ends]), np.ones(len(ends), np.int64))

    return count


def add(parts: Sequence[Words]) -> Words:
    """Return the pieces of all parts with the sums of their counts."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.text) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    text = np.concatenate([np.zeros(0, np.uint8), *(part.text for part in parts)])
    counts = np.concatenate([np.zeros(0, np.int64), *(part.counts for part in parts)])
    return _unique(text, np.concatenate([*offsets, starts[-1:]]).astype(np.int64), counts)


def word_stream(words: Sequence[Words], byte_ids: np.ndarray) -> Stream:
    """Return the pieces as a stream of byte tokens, weighted by their counts.

    Args:
        words: of each group.
        byte_ids: int32 [256], the id of each byte.
    """
    starts = np.cumsum([0, *(len(part.text) for part in words)])
    ends = [part.offsets[1:] + start for part, start in zip(words, starts[:-1], strict=True)]
    return Stream(
        ids=byte_ids[np.concatenate([part.text for part in words])],
        ends=np.concatenate(ends),
        weights=np.concatenate([part.counts for part in words]),
        groups=np.cumsum([0, *map(len, words)]),
    )


def _unique(text: np.ndarray, offsets: np.ndarray, counts: np.ndarray) -> Words:
    from gristmill.tokenizer.training.word_kernels import gather, unique

    first, sums = unique(text, offsets, counts)
    sizes = offsets[first + 1] - offsets[first]
    kept = np.zeros(len(first) + 1, np.int64)
    np.cumsum(sizes, out=kept[1:])
    return Words(gather(text, offsets[first], kept), kept, sums)
