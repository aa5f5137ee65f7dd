"""Encoding with merges of whole pieces across cuts (BoundlessBPE, Schmidt et al. 2025, arXiv 2504.00178).

Reads flat texts and a vocabulary with `whole`; gives flat ids. First all merges inside pieces; then, in each run of
neighbouring pieces that are one token each, the merge of two of them with the lowest rank again and again, the leftmost first
of equal ranks. That is the order of ranks: a merge across cuts always ranks behind those that make its pieces.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gristmill.compiling import Int, compiled, inner
from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.encoding.encoder import Encoder
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from gristmill.tokenizer.vocabulary import Vocabulary

Table = npt.NDArray[np.int64]
"""Merges by their ids, int64 [a power of two, 2]: left << 32 | right or -1 where free (open addressing), rank."""

_PLACE_BITS = 40  # of a heap entry: rank << 40 | place in the run
_PLACES = (1 << _PLACE_BITS) - 1
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2**64 divided by the golden ratio
_HIGH = np.uint64(32)
NONE = -1  # the rank of two ids that no merge joins


class WholeEncoder:
    """Encoder of a vocabulary some of whose merges join whole pieces; time is n log n in a run of n pieces."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Make the tables; of a pair given twice the first rank counts."""
        assert vocabulary.whole is not None, "a vocabulary without whole merges has the ordinary encoder"
        inside = replace(vocabulary, merges=vocabulary.merges[~vocabulary.whole], whole=None, cuts=())
        self._inside = Encoder(inside)
        self._cut = open_cutter(vocabulary.cuts)
        merges = vocabulary.merges[vocabulary.whole].astype(np.int64)
        self._table: Table = _make_table(merges[:, 0] << 32 | merges[:, 1])
        self._joined = merges[:, 2].astype(np.uint32)
        self._joins = np.zeros(len(vocabulary.tokens), np.bool_)
        self._joins[merges[:, :2]] = True

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        begins = np.append(0, self._cut(text, offsets))
        ids, places = self._inside.encode(text, begins)
        ends = np.zeros(len(offsets), np.int64)
        documents = np.searchsorted(begins, offsets)
        _join_documents(ids, places, documents, self._joins, self._table, self._joined, ends)
        return ids[: ends[-1]].copy(), ends


@inner
def _seat(table: Table, key: Int) -> int:
    """Return where a key sits, or the free seat where it would."""
    mask = len(table) - 1
    at = int((np.uint64(key) * _MIX) >> _HIGH) & mask
    while table[at, 0] >= 0 and table[at, 0] != key:
        at = (at + 1) & mask
    return at


@compiled
def _make_table(keys: Offsets) -> Table:
    """Return the table of merges in the order of ranks; of equal keys the first counts."""
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.full((size, 2), -1, np.int64)
    for rank in range(len(keys)):
        at = _seat(table, keys[rank])
        if table[at, 0] < 0:
            table[at, 0], table[at, 1] = keys[rank], rank
    return table


@inner
def _rank(table: Table, left: int, right: int) -> int:
    """Return the rank of the merge of two ids, or NONE."""
    at = _seat(table, np.int64(left) << 32 | np.int64(right))
    return int(table[at, 1])


@compiled
def _join_documents(
    ids: Ids,
    places: Offsets,
    documents: Offsets,
    joins: npt.NDArray[np.bool_],
    table: Table,
    joined: Ids,
    ends: Offsets,
) -> None:
    """Join the pieces of each document in place.

    Args:
        ids: ids of all pieces; those left move to the front.
        places: where the ids of each piece begin, int64 [pieces + 1].
        documents: the first piece of each document, int64 [documents + 1].
        joins: whether an id is part of any merge of pieces, bool [ids].
        table: of the merges. joined: the id that each makes, by rank.
        ends: filled with where the ids of each document end, int64 [documents + 1].
    """
    count = 0
    for document in range(len(documents) - 1):
        piece = documents[document]
        while piece < documents[document + 1]:
            end = piece
            while end < documents[document + 1] and places[end + 1] - places[end] == 1 and joins[ids[places[end]]]:
                end += 1
            if end > piece:  # single ids: pieces and ids are counted alike
                size = end - piece
                first = places[piece]
                if size > 1:
                    size = _join_run(ids[first : first + size], table, joined)
            else:
                first, size = places[piece], places[piece + 1] - places[piece]
                end = piece + 1
            for i in range(size):
                ids[count + i] = ids[first + i]
            count += size
            piece = end
        ends[document + 1] = count


@compiled
def _join_run(run: Ids, table: Table, joined: Ids) -> int:
    """Merge in a run of ids, in place; return how many are left, at the front."""
    size = len(run)
    waiting = 0
    for at in range(size - 1):
        if _rank(table, run[at], run[at + 1]) != NONE:
            waiting += 1
    if waiting == 0:
        return size
    heap = np.empty(waiting + 2 * size, np.int64)
    before, behind = np.arange(-1, size - 1), np.arange(1, size + 1)
    filled: Int = np.int64(0)  # 0 would be another type, and the heap compiled twice
    for at in range(size - 1):
        filled = _push(heap, filled, _rank(table, run[at], run[at + 1]), at)
    while filled > 0:
        rank, at = heap[0] >> _PLACE_BITS, heap[0] & _PLACES
        filled = _pop(heap, filled)
        right = behind[at]
        # A place that was merged into the one before has no neighbour; one that has another neighbour now has another rank.
        if right >= size or _rank(table, run[at], run[right]) != rank:
            continue
        run[at] = joined[rank]
        behind[at] = behind[right]
        behind[right] = size
        if behind[at] < size:
            before[behind[at]] = at
            filled = _push(heap, filled, _rank(table, run[at], run[behind[at]]), at)
        if before[at] >= 0:
            filled = _push(heap, filled, _rank(table, run[before[at]], run[at]), before[at])
    count, at = 0, 0
    while at < size:
        run[count] = run[at]
        count += 1
        at = behind[at]
    return count


@inner
def _push(heap: Offsets, filled: Int, rank: int, at: int) -> Int:
    """Put a pair into a heap of `filled` entries, if there is a merge of it; return how many there are then."""
    if rank == NONE:
        return filled
    entry = rank << _PLACE_BITS | at
    child = filled
    while child > 0 and heap[(child - 1) >> 1] > entry:
        heap[child] = heap[(child - 1) >> 1]
        child = (child - 1) >> 1
    heap[child] = entry
    return filled + 1


@inner
def _pop(heap: Offsets, filled: Int) -> Int:
    """Take out the smallest entry; return how many are left."""
    filled -= 1
    entry = heap[filled]
    parent = 0
    while 2 * parent + 1 < filled:
        child = 2 * parent + 1
        if child + 1 < filled and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = entry
    return filled
