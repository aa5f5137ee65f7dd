"""How often each pair of tokens occurs in the words of each group, after each of the first merges of a tokenizer.

Reads words with counts by group (`training/words.py`) and merges; returns flat arrays. Memory: the changes of counts, about
as many as the merges have different neighbours, and one chunk of words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.tokenizer.training.words import Words

CHUNK_BYTES = 1_000_000


@dataclass(frozen=True)
class History:
    """Counts of pairs over time; row i says that pair `pair[i]` has `counts[i]` before each merge t, begin[i] <= t < end[i].

    `pair`: int64 [rows], numbered from 0. `begin`, `end`: int64 [rows]. `counts`: float64 [rows, groups]. `merged`: float64
    [merges, groups], the counts of the pair that each merge joins, before it.
    """

    pair: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    counts: np.ndarray
    merged: np.ndarray


def history(words: Sequence[Words], merges: np.ndarray) -> History:
    """Return the counts of all pairs while `merges` are applied one after the other, as a trainer does.

    Args:
        words: of each group.
        merges: int64 [merges, 2]; ids below 256 are bytes, 256 + t is what merge t makes.
    """
    changes = [_changes(part, merges) for part in words]
    keys = np.unique(np.concatenate([key for key, _ in changes]))
    counts = np.zeros((len(keys), len(words)))
    for group, (key, by) in enumerate(changes):
        counts[np.searchsorted(keys, key), group] = by
    pair, begin = keys >> 16, keys & 0xFFFF
    first = np.concatenate([[True], pair[1:] != pair[:-1]]) if len(pair) else np.zeros(0, bool)
    number = np.cumsum(first) - 1
    counts = _running(counts, first, number)
    end = np.full(len(keys), len(merges), np.int64)
    end[:-1] = np.where(first[1:], len(merges), begin[1:])
    merged = _looked_up(pair, begin, counts, merges)
    alive = (begin < end) & (counts > 0).any(axis=1)
    return History(number[alive], begin[alive], end[alive], counts[alive], merged)


def _running(changes: np.ndarray, first: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return the sums of changes [rows, groups] from the first row of each pair on."""
    total: np.ndarray = np.cumsum(changes, axis=0)  # whole numbers below 2**53: exact
    starts = np.flatnonzero(first)
    before = np.concatenate([np.zeros((1, total.shape[1])), total])[starts]
    running: np.ndarray = total - before[number]
    return running


def _looked_up(pair: np.ndarray, begin: np.ndarray, counts: np.ndarray, merges: np.ndarray) -> np.ndarray:
    """Return the counts of merge t's pair just before t, float64 [merges, groups]."""
    wanted = (((merges[:, 0] << 16) | merges[:, 1]) << 16) | np.arange(len(merges))
    row = np.searchsorted((pair << 16) | begin, wanted, side="right") - 1
    there = (row >= 0) & (pair[row] == wanted >> 16) if len(pair) else np.zeros(len(merges), bool)
    found = np.zeros((len(merges), counts.shape[1]))
    found[there] = counts[row[there]]
    return found


def _changes(words: Words, merges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the changes of one group: sorted keys (pair << 16 | time), int64, and by how much, int64."""
    from gristmill.tokenizer.measuring.kernels import make_table, replay

    keys, steps = make_table(merges)
    held: list[tuple[np.ndarray, np.ndarray]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for text, offsets, counts in _chunks(words):
        changed, by = np.empty(6 * len(text) + 1, np.int64), np.empty(6 * len(text) + 1, np.int64)
        filled = replay(text, offsets, counts, keys, steps, changed, by)
        held.append(_sum(changed[:filled], by[:filled]))
        # Sums of equal size, as in a merge sort: nothing is gone through more than log2(chunks) times.
        while len(held) > 1 and len(held[-1][0]) * 2 > len(held[-2][0]):
            held[-2:] = [_sum(*(np.concatenate(each) for each in zip(*held[-2:], strict=True)))]
    return _sum(*(np.concatenate(each) for each in zip(*held, strict=True)))


def _sum(keys: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted keys and the sum of each; without those that come to nothing."""
    order = np.argsort(keys, kind="stable")
    keys, by = keys[order], by[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, np.int64)
    sums = np.add.reduceat(by, starts) if len(starts) else by
    return keys[starts][sums != 0], sums[sums != 0]


def _chunks(words: Words) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the words in parts of about CHUNK_BYTES: bytes, offsets from 0, counts."""
    at = 0
    while at < len(words):
        end = max(at + 1, int(np.searchsorted(words.offsets, words.offsets[at] + CHUNK_BYTES, side="right")) - 1)
        offsets = words.offsets[at : end + 1]
        yield words.text[offsets[0] : offsets[-1]], offsets - offsets[0], words.counts[at:end]
        at = end
