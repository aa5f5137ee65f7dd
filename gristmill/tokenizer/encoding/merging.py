"""Compiled byte-pair merging of a row of ids in place: the merge of lowest rank again and again, leftmost first.

Takes addresses (see `intrinsics`). Short rows look at all ranks for the lowest; long ones keep a heap, so that time is n log n.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import compiled, inner
from gristmill.tokenizer.encoding.pair_tables import EMPTY, MIX, MOST_IDS, SHIFT
from gristmill.tokenizer.intrinsics import byte_at, id_at, put_id, word_at

NONE = np.uint64(2**32 - 1)
"""The rank of a pair that no merge joins."""

_0, _1, _2, _3, _7, _32 = (np.uint64(i) for i in (0, 1, 2, 3, 7, 32))
_ID, _RANK = np.uint64(2**32 - 1), np.uint64(MOST_IDS - 1)

U = np.uint64


@inner
def find_rank(table: U, shift: U, mask: U, left: U, right: U) -> U:
    """Return the rank of the merge of two ids, or NONE."""
    key = left << SHIFT | right
    slot = (key * MIX) >> shift
    while True:
        entry = word_at(table, slot)
        if entry >> SHIFT == key:
            return entry & _RANK
        if entry == EMPTY:
            return NONE
        slot = (slot + _1) & mask


@inner
def may_hold(bits: U, shift: U, left: U, right: U) -> bool:
    """Return False if a pair is certainly not in a set of `pair_bits`."""
    place = ((left << SHIFT | right) * MIX) >> shift
    return bool((byte_at(bits, place >> _3) >> (place & _7)) & _1 != _0)


@inner
def merge_short(ids: U, ranks: U, count: U, table: U, shift: U, mask: U, joined: U) -> U:
    """Merge `count` ids in place, the lowest rank first, leftmost first; return how many are left.

    `ranks`: of the pairs of neighbours, uint32 [count - 1].
    """
    pairs = count - _1
    while True:
        best, at, i = NONE, _0, _0
        while i < pairs:
            rank = id_at(ranks, i)
            if rank < best:
                best, at = rank, i
            i += _1
        if best == NONE:
            return pairs + _1
        put_id(ids, at, id_at(joined, best))
        pairs -= _1
        i = at
        while i < pairs:
            put_id(ids, i + _1, id_at(ids, i + _2))
            put_id(ranks, i, id_at(ranks, i + _1))
            i += _1
        new = id_at(ids, at)
        if at < pairs:
            put_id(ranks, at, find_rank(table, shift, mask, new, id_at(ids, at + _1)))
        if at > _0:
            put_id(ranks, at - _1, find_rank(table, shift, mask, id_at(ids, at - _1), new))


@compiled
def merge_long(ids: U, count: U, table: U, shift: U, mask: U, joined: U) -> U:
    """Do the same with a heap of (rank, place), so that time is n log n; needs 36 bytes an id for the time being."""
    ranks, before, behind = np.empty(count, np.uint32), np.empty(count, np.uint32), np.empty(count, np.uint32)
    heap = np.empty(_3 * count, np.uint64)
    size, at = _0, _0
    while at < count:
        before[at], behind[at] = np.uint32(at - _1), np.uint32(at + _1)
        rank = find_rank(table, shift, mask, id_at(ids, at), id_at(ids, at + _1)) if at + _1 < count else NONE
        ranks[at] = np.uint32(rank)
        size = _push(heap, size, rank << _32 | at) if rank != NONE else size
        at += _1
    while size > _0:
        top = heap[_0]
        size = _pop(heap, size)
        at, best = top & _ID, top >> _32
        if U(ranks[at]) != best:  # a merge took one of the two
            continue
        gone = U(behind[at])
        after = U(behind[gone])
        new = id_at(joined, best)
        put_id(ids, at, new)
        ranks[gone] = np.uint32(NONE)
        behind[at] = np.uint32(after)
        rank = NONE
        if after < count:
            before[after] = np.uint32(at)
            rank = find_rank(table, shift, mask, new, id_at(ids, after))
        ranks[at] = np.uint32(rank)
        size = _push(heap, size, rank << _32 | at) if rank != NONE else size
        if at > _0:
            at = U(before[at])
            rank = find_rank(table, shift, mask, id_at(ids, at), new)
            ranks[at] = np.uint32(rank)
            size = _push(heap, size, rank << _32 | at) if rank != NONE else size
    left, at = _0, _0
    while at < count:
        put_id(ids, left, id_at(ids, at))
        left += _1
        at = U(behind[at])
    return left


@inner
def _push(heap: npt.NDArray[np.uint64], size: U, value: U) -> U:
    at = size
    while at > _0:
        parent = (at - _1) >> _1
        if heap[parent] <= value:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = value
    return size + _1


@inner
def _pop(heap: npt.NDArray[np.uint64], size: U) -> U:
    size -= _1
    value = heap[size]
    at, child = _0, _1
    while child < size:
        if child + _1 < size and heap[child + _1] < heap[child]:
            child += _1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
        child = _2 * at + _1
    heap[at] = value
    return size
