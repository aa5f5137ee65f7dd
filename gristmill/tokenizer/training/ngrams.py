"""The most frequent n-grams of a text in ids.

Reads ids batch by batch; gives n-grams in the order of their counts. A length is counted among what the length before has left:
an n-gram occurs at most as often as its two parts of one word less (Agrawal and Srikant 1994), so what is held are the ids, a
name for each place, and the counts of few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.tokenizer.progress import Progress

_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Text:
    """Some text. `ids`: int32 [tokens]. `joins`: bool [tokens], whether a token and the next one can be part of an n-gram."""

    ids: np.ndarray
    joins: np.ndarray


@dataclass(frozen=True)
class _Names:
    """What begins at each place of a text. `numbers`: int64 [tokens], of the n-gram. `valid`: bool [tokens], there is one."""

    numbers: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class _Level:
    """N-grams of one length by their numbers. `keys`: int64, ascending, number of the n-gram without its last word (or a word's
    id) << 32 | id of the last word. `counts`: int64."""

    keys: np.ndarray
    counts: np.ndarray


def frequent_ngrams(texts: Sequence[Text], longest: int, wanted: int, least: int, progress: Progress) -> list[tuple[int, ...]]:
    """Return n-grams of 2 to `longest` ids, the most frequent first; of equal counts short ones, then those of small ids.

    Args:
        texts: what is counted.
        longest: most ids in an n-gram.
        wanted: at least so many n-grams, if there are; none of the most frequent is missing.
        least: how often an n-gram must occur.
        progress: called with the lengths counted.
    """
    names = [_Names(text.ids.astype(np.int64), np.ones(len(text.ids), np.bool_)) for text in texts]
    levels: list[_Level] = []
    for size in range(2, longest + 1):
        progress("count n-grams", size - 2, longest - 1, "lengths")
        levels.append(_frequent(_count(texts, names, size), levels, wanted, least))
        if size < longest:
            names = [_lengthened(text, name, size, levels[-1].keys) for text, name in zip(texts, names, strict=True)]
    progress("count n-grams", longest - 1, longest - 1, "lengths")
    return _ordered(levels)


def _places(text: Text, names: _Names, size: int) -> np.ndarray:
    """Return the places at which an n-gram of `size` may begin: both its parts of one less are frequent."""
    if size == 2:
        return np.flatnonzero(text.joins)
    return np.flatnonzero(names.valid[:-1] & names.valid[1:])


def _keys(text: Text, names: _Names, size: int) -> np.ndarray:
    at = _places(text, names, size)
    keys: np.ndarray = names.numbers[at] << 32 | text.ids[at + size - 1]
    return keys


def _count(texts: Sequence[Text], names: Sequence[_Names], size: int) -> _Level:
    held: list[_Level] = []
    for text, name in zip(texts, names, strict=True):
        held.append(_Level(*np.unique(_keys(text, name, size), return_counts=True)))
        # Sums of equal size, as in a merge sort: no n-gram is gone through more than log2(texts) times.
        while len(held) > 1 and len(held[-1].keys) * 2 > len(held[-2].keys):
            held[-2:] = [_sum(held[-2:])]
    return _sum(held)


def _sum(parts: Sequence[_Level]) -> _Level:
    keys, places = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, places, np.concatenate([part.counts for part in parts]))
    return _Level(keys, counts)


def _frequent(level: _Level, before: Sequence[_Level], wanted: int, least: int) -> _Level:
    """Return the n-grams of a level that can be among the `wanted` most frequent."""
    every = np.concatenate([*(each.counts for each in before), level.counts])
    if len(every) > wanted:
        least = max(least, int(np.partition(every, -wanted)[-wanted]))
    kept = level.counts >= least
    return _Level(level.keys[kept], level.counts[kept])


def _lengthened(text: Text, names: _Names, size: int, keys: np.ndarray) -> _Names:
    """Return what n-grams of `size`, given by their keys, begin at each place."""
    at, mine = _places(text, names, size), _keys(text, names, size)
    numbers = np.searchsorted(keys, mine)
    valid = np.zeros(len(text.ids), np.bool_)
    valid[at] = np.append(keys, -1)[numbers] == mine
    found = np.zeros(len(text.ids), np.int64)
    found[at] = numbers
    return _Names(found, valid)


def _ordered(levels: Sequence[_Level]) -> list[tuple[int, ...]]:
    ngrams: list[tuple[int, int, tuple[int, ...]]] = []
    shorter: list[tuple[int, ...]] = []
    for size, level in enumerate(levels, 2):
        numbers, last = (level.keys >> 32).tolist(), (level.keys & _LOW).tolist()
        mine = [((number,) if size == 2 else shorter[number]) + (word,) for number, word in zip(numbers, last, strict=True)]
        ngrams += [(-count, size, words) for count, words in zip(level.counts.tolist(), mine, strict=True)]
        shorter = mine
    return [words for _, _, words in sorted(ngrams)]
