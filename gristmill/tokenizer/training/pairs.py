"""The table of pairs that may be merged next: counts, places and heaps.

A pair is tracked when it is frequent enough (`thresholds`); as merges only ever take occurrences from a pair once all those of
its newer token are known, a pair below the threshold never comes back, and its count is exact as long as it is tracked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.compiling import Int, inner, outer
from gristmill.tokenizer.training.arrays import Int32s, Int64s, UInt32s

MIX = np.uint64(0x9E3779B97F4A7C15)
SHIFT = np.uint64(32)
LOW = 0xFFFFFFFF
FIRST = 1 << 30  # set in the slot of a piece's first token
PLAIN = ~FIRST

PAIRS, POOL = 0, 1  # places in Pairs.used


class Pairs(NamedTuple):
    """The tracked pairs, in the order in which they came.

    Counts have one column for the whole stream and, if there are quotas, one more for each group.

    `used`: int64 [2], pairs and places of the pool in use.
    `keys`: int64 [room], left id * 2^32 + right id.
    `counts`: int64 [room, columns], occurrences that are there now; 0 when merged.
    `offsets`, `sizes`: int64 [room], the pair's part of `pool`.
    `pool`: uint32 [room of places], the slots where the pair's left token begins, ascending; some may be outdated.
    `seats`: int32 [a power of two], pairs by key, -1 where free (open addressing).
    `heap`, `heights`: int32, int64 [columns, room], a binary heap of pairs a column with the counts they had when put there.
    `heap_sizes`: int64 [columns].
    `thresholds`: int64 [columns]: a pair is tracked if its count reaches any of them.
    """

    used: Int64s
    keys: Int64s
    counts: Int64s
    offsets: Int64s
    sizes: Int64s
    pool: UInt32s
    seats: Int32s
    heap: Int32s
    heights: Int64s
    heap_sizes: Int64s
    thresholds: Int64s


def make_pairs(columns: int, room: int, places: int, thresholds: Int64s) -> Pairs:
    """Return an empty table."""
    return Pairs(
        used=np.zeros(2, np.int64),
        keys=np.empty(room, np.int64),
        counts=np.empty((room, columns), np.int64),
        offsets=np.empty(room, np.int64),
        sizes=np.empty(room, np.int64),
        pool=np.empty(places, np.uint32),
        seats=np.full(1 << (2 * room).bit_length(), -1, np.int32),
        heap=np.empty((columns, room), np.int32),
        heights=np.empty((columns, room), np.int64),
        heap_sizes=np.zeros(columns, np.int64),
        thresholds=np.array(thresholds, np.int64),
    )


def grown(pairs: Pairs, room: int, places: int) -> Pairs:
    """Return the same table with more room; `settle` must be called on it."""
    used, taken = pairs.used
    larger = make_pairs(pairs.counts.shape[1], max(room, pairs.keys.size), max(places, pairs.pool.size), pairs.thresholds)
    for new, old in zip(larger[1:5], pairs[1:5], strict=True):
        new[:used] = old[:used]
    larger.pool[:taken] = pairs.pool[:taken]
    larger.used[:] = pairs.used
    return larger


@inner
def _above(pairs: Pairs, column: Int, height: Int, pair: Int, other: Int) -> bool:
    """Say if a pair of this height comes before what is at place `other` of the heap."""
    rival = pairs.heights[column, other]
    return bool(height > rival or (height == rival and pairs.keys[pair] < pairs.keys[pairs.heap[column, other]]))


@inner
def _push(pairs: Pairs, column: Int, pair: Int) -> None:
    """Put a pair into a heap."""
    height = pairs.counts[pair, column]
    at = pairs.heap_sizes[column]
    pairs.heap_sizes[column] += 1
    while at > 0:
        parent = (at - 1) >> 1
        if not _above(pairs, column, height, pair, parent):
            break
        pairs.heap[column, at] = pairs.heap[column, parent]
        pairs.heights[column, at] = pairs.heights[column, parent]
        at = parent
    pairs.heap[column, at], pairs.heights[column, at] = pair, height


@inner
def _sink(pairs: Pairs, column: Int, pair: Int, height: Int) -> None:
    """Put a pair in the place of the top of a heap."""
    size = pairs.heap_sizes[column]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _above(
            pairs, column, pairs.heights[column, child + 1], np.int64(pairs.heap[column, child + 1]), child
        ):
            child += 1
        if _above(pairs, column, height, pair, child):
            break
        pairs.heap[column, at] = pairs.heap[column, child]
        pairs.heights[column, at] = pairs.heights[column, child]
        at = child
    pairs.heap[column, at], pairs.heights[column, at] = pair, height


@inner
def best(pairs: Pairs, column: Int) -> Int:
    """Return the pair with the highest count in this column (ties: the smallest ids), or -1 if none reaches the threshold."""
    while pairs.heap_sizes[column] > 0:
        pair = np.int64(pairs.heap[column, 0])
        count = pairs.counts[pair, column]
        if count == pairs.heights[column, 0]:
            return pair
        if count < pairs.thresholds[column]:  # gone for good: its place goes to the last of the heap
            pairs.heap_sizes[column] -= 1
            last = pairs.heap_sizes[column]
            if last > 0:
                _sink(pairs, column, np.int64(pairs.heap[column, last]), pairs.heights[column, last])
        else:
            _sink(pairs, column, pair, count)
    return np.int64(-1)


@inner
def _seat(pairs: Pairs, key: Int) -> Int:
    """Return where a key sits in `seats`, or the free seat where it would."""
    mask = np.int64(pairs.seats.size - 1)
    at = np.int64((np.uint64(key) * MIX >> SHIFT) & np.uint64(mask))
    while pairs.seats[at] >= 0 and pairs.keys[pairs.seats[at]] != key:
        at = (at + 1) & mask
    return at


@inner
def find(pairs: Pairs, key: Int) -> Int:
    """Return the pair with this key, or -1."""
    return np.int64(pairs.seats[_seat(pairs, key)])


@inner
def tracked(pairs: Pairs, counts: Int64s, row: Int) -> bool:
    """Say if a pair with the counts of this row is to be tracked."""
    for column in range(pairs.thresholds.size):  # noqa: SIM110 - compiled
        if counts[row, column] >= pairs.thresholds[column]:
            return True
    return False


@inner
def add(pairs: Pairs, key: Int, counts: Int64s, row: Int, size: Int) -> None:
    """Track one more pair, with the counts of this row and `size` places; one of the same key must have been forgotten."""
    pair = pairs.used[PAIRS]
    pairs.keys[pair] = key
    pairs.offsets[pair], pairs.sizes[pair] = pairs.used[POOL], size
    pairs.used[PAIRS] += 1
    pairs.used[POOL] += size
    for column in range(pairs.thresholds.size):
        pairs.counts[pair, column] = counts[row, column]
        if counts[row, column] >= pairs.thresholds[column]:
            _push(pairs, column, pair)
    pairs.seats[_seat(pairs, key)] = pair


@inner
def forget(pairs: Pairs, pair: Int) -> None:
    """Leave nothing of a pair but its key."""
    pairs.sizes[pair] = 0
    for column in range(pairs.thresholds.size):
        pairs.counts[pair, column] = 0


@inner
def after(ids: Int32s, at: Int) -> Int:
    """Return the slot after the token that begins at slot `at`."""
    if at + 1 < ids.size and ids[at + 1] < 0:
        return np.int64(at - ids[at + 1])
    return np.int64(at + 1)


@outer
def settle(ids: Int32s, pairs: Pairs) -> None:
    """Drop pairs below the thresholds and outdated places, close the gaps, and make `seats` and heaps anew."""
    count, taken = 0, 0
    for pair in range(pairs.used[PAIRS]):
        if not tracked(pairs, pairs.counts, pair):
            continue
        left, right = pairs.keys[pair] >> 32, pairs.keys[pair] & LOW
        offset, end = pairs.offsets[pair], pairs.offsets[pair] + pairs.sizes[pair]
        pairs.keys[count], pairs.offsets[count] = pairs.keys[pair], taken
        for column in range(pairs.thresholds.size):
            pairs.counts[count, column] = pairs.counts[pair, column]
        for i in range(offset, end):
            at = np.int64(pairs.pool[i])
            if ids[at] & PLAIN == left:
                following = after(ids, at)
                if following < ids.size and ids[following] == right:
                    pairs.pool[taken] = pairs.pool[i]
                    taken += 1
        pairs.sizes[count] = taken - pairs.offsets[count]
        count += 1
    pairs.used[PAIRS], pairs.used[POOL] = count, taken
    for i in range(pairs.seats.size):
        pairs.seats[i] = -1
    for column in range(pairs.thresholds.size):
        pairs.heap_sizes[column] = 0
    for pair in range(count):
        pairs.seats[_seat(pairs, pairs.keys[pair])] = pair
        for column in range(pairs.thresholds.size):
            if pairs.counts[pair, column] >= pairs.thresholds[column]:
                _push(pairs, column, pair)
