"""Compiled byte-pair merging of one sequence of ids, in place: the merge of lowest rank again and again, leftmost first.

Reads and writes a stretch of an array of ids. Short sequences look for the lowest rank at each step; long ones keep a heap of
places, so that time is n log n.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from stages.tokenizer.encoding.words import NONE, find_merge

SHORT = 64  # a step over so many ranks costs less than a heap's

Ids = npt.NDArray[np.uint32]
Table = npt.NDArray[np.uint64]
_ONE, _TWO, _HALF = np.uint64(1), np.uint64(2), np.uint64(32)
_LOW = np.uint64(2**32 - 1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def merge_short(
    ids: Ids, ranks: Ids, begin: np.uint64, count: np.uint64, table: Table, shift: np.uint64, joined: Ids
) -> np.uint64:
    """Merge ids[begin:begin+count] and return how many are left.

    `ranks`: uint32 [at least count]; the first count - 1 hold the ranks of the pairs of neighbours.
    """
    pairs = count - _ONE
    while True:
        best, at = NONE, np.uint64(0)
        for i in range(pairs):
            if ranks[i] < best:
                best, at = ranks[i], np.uint64(i)
        if best == NONE:
            return pairs + _ONE
        ids[begin + at] = joined[best]
        pairs -= _ONE
        for i in range(at, pairs):
            ids[begin + np.uint64(i) + _ONE] = ids[begin + np.uint64(i) + _TWO]
            ranks[np.uint64(i)] = ranks[np.uint64(i) + _ONE]
        if at < pairs:
            ranks[at] = find_merge(table, shift, ids[begin + at], ids[begin + at + _ONE])
        if at > 0:
            ranks[at - _ONE] = find_merge(table, shift, ids[begin + at - _ONE], ids[begin + at])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def merge_long(ids: Ids, begin: np.uint64, count: np.uint64, table: Table, shift: np.uint64, joined: Ids) -> np.uint64:
    """Merge ids[begin:begin+count] and return how many are left; needs 40 bytes an id for the time being."""
    ranks = np.empty(count, np.uint32)
    before, behind = np.empty(count, np.uint32), np.empty(count, np.uint32)
    heap = np.empty(np.uint64(3) * count, np.uint64)
    size = np.uint64(0)
    for i in range(count):
        at = np.uint64(i)
        before[at], behind[at] = np.uint32(at - _ONE), np.uint32(at + _ONE)
        ranks[at] = find_merge(table, shift, ids[begin + at], ids[begin + at + _ONE]) if at + _ONE < count else NONE
        if ranks[at] != NONE:
            size = _push(heap, size, np.uint64(ranks[at]) << _HALF | at)
    while size > 0:
        top = heap[0]
        size = _pop(heap, size)
        at = top & _LOW
        if np.uint64(ranks[at]) != top >> _HALF:
            continue
        gone = np.uint64(behind[at])
        ids[begin + at] = joined[ranks[at]]
        ranks[gone] = NONE
        after = np.uint64(behind[gone])
        behind[at] = np.uint32(after)
        ranks[at] = NONE
        if after < count:
            before[after] = np.uint32(at)
            ranks[at] = find_merge(table, shift, ids[begin + at], ids[begin + after])
            if ranks[at] != NONE:
                size = _push(heap, size, np.uint64(ranks[at]) << _HALF | at)
        if at > 0:
            previous = np.uint64(before[at])
            ranks[previous] = find_merge(table, shift, ids[begin + previous], ids[begin + at])
            if ranks[previous] != NONE:
                size = _push(heap, size, np.uint64(ranks[previous]) << _HALF | previous)
    left, at = np.uint64(0), np.uint64(0)
    while at < count:
        ids[begin + left] = ids[begin + at]
        left += _ONE
        at = np.uint64(behind[at])
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _push(heap: Table, size: np.uint64, value: np.uint64) -> np.uint64:
    at = size
    while at > 0:
        parent = (at - _ONE) >> _ONE
        if heap[parent] <= value:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = value
    return size + _ONE


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _pop(heap: Table, size: np.uint64) -> np.uint64:
    size -= _ONE
    value = heap[size]
    at, child = np.uint64(0), _ONE
    while child < size:
        if child + _ONE < size and heap[child + _ONE] < heap[child]:
            child += _ONE
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
        child = _TWO * at + _ONE
    heap[at] = value
    return size
