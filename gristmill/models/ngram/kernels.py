"""The compiled loops that estimate a Kneser-Ney model: counting n-grams, joining lower orders to higher ones, finding contexts.

They read Arrow's buffers and numpy arrays and fill arrays that the caller made; all release the GIL.

An n-gram key is a row of 64-bit words: its tokens, newest first, from the highest bits down, `64 // bits` tokens a word. So
keys in order of size stand in order of their suffixes, and all n-grams that end alike lie together.

A table of n-grams of one order is an array of slots [slots, 2] of 64 bits: key and number (empty: `EMPTY`); a key is the slot
of the context in the table of the order below (of one token: the token), then the last token: exact at any order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer

Words = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

EMPTY = np.uint64(2**64 - 1)
SHIFT = np.uint64(32)
MIX_1 = np.uint64(0x9E3779B97F4A7C15)  # odd constants that spread the bits of a product
MIX_2 = np.uint64(0xD6E8FEB86659FD93)
ZERO, ONE = np.uint64(0), np.uint64(1)


@outer
def pack(ids: Ids, bounds: Ints, order: int, bits: int, begin: int, end: int, keys: Words) -> int:
    """Write the key of the n-gram that ends at each token and at each document's end; return 0, or 1 for an id ≥ `begin`.

    Args:
        ids: uint32 [tokens].
        bounds: int64 [documents + 1].
        order: tokens of an n-gram; places before a document hold `begin`.
        bits: of a token.
        begin: the id that stands for a document's start.
        end: the id that stands for its end.
        keys: zeros [tokens + documents, words], to be filled.
    """
    per, row = 64 // bits, 0
    for document in range(bounds.size - 1):
        first, last = bounds[document], bounds[document + 1]
        for at in range(first, last + 1):
            if at < last and ids[at] >= begin:
                return 1
            for back in range(order):
                place = at - back
                token = np.int64(begin) if place < first else np.int64(end) if place == last else np.int64(ids[place])
                keys[row, back // per] |= np.uint64(token) << np.uint64(64 - bits * (back % per + 1))
            row += 1
    return 0


@inner
def _compare(left: Words, i: int, right: Words, j: int) -> int:
    """Return −1, 0 or 1: how the keys left[i] and right[j] stand."""
    for word in range(left.shape[1]):
        if left[i, word] != right[j, word]:
            return -1 if left[i, word] < right[j, word] else 1
    return 0


@outer
def squeeze(keys: Words, counts: Ints) -> int:
    """Keep one row of each run of equal keys, in place, and write how many there were; return the rows left."""
    kept = 0
    for row in range(keys.shape[0]):
        if kept > 0 and _compare(keys, row, keys, kept - 1) == 0:
            counts[kept - 1] += 1
            continue
        for word in range(keys.shape[1]):
            keys[kept, word] = keys[row, word]
        counts[kept] = 1
        kept += 1
    return kept


@outer
def merge(left: Words, left_counts: Ints, right: Words, right_counts: Ints, keys: Words, counts: Ints) -> int:
    """Merge two sorted lists of keys, counts of equal keys added, into `keys` and `counts`; return the rows written."""
    i, j, row = 0, 0, 0
    while i < left_counts.size or j < right_counts.size:
        if i == left_counts.size:
            side = 1
        elif j == right_counts.size:
            side = -1
        else:
            side = _compare(left, i, right, j)
        counts[row] = 0
        if side >= 0:
            for word in range(keys.shape[1]):
                keys[row, word] = right[j, word]
            counts[row] += right_counts[j]
            j += 1
        if side <= 0:
            for word in range(keys.shape[1]):
                keys[row, word] = left[i, word]
            counts[row] += left_counts[i]
            i += 1
        row += 1
    return row


@inner
def _token(keys: Words, row: int, back: int, bits: int) -> np.uint64:
    """Return the token `back` places before the newest of a key."""
    per = 64 // bits
    word: np.uint64 = keys[row, back // per]
    return (word >> np.uint64(64 - bits * (back % per + 1))) & ((ONE << np.uint64(bits)) - ONE)


@outer
def compare_neighbours(keys: Words, order: int, bits: int, begin: int, shared: Small, reach: Small) -> None:
    """Fill `shared`: newest tokens that a key shares with the one before it; `reach`: its tokens up to the first `begin`."""
    start = np.uint64(begin)
    for row in range(keys.shape[0]):
        same = 0
        while row > 0 and same < order and _token(keys, row, same, bits) == _token(keys, row - 1, same, bits):
            same += 1
        shared[row] = same
        length = 1
        while length < order and _token(keys, row, length - 1, bits) != start:
            length += 1
        reach[row] = length


@outer
def gather(order: int, length: int, counts: Ints, shared: Small, reach: Small, rows: Ints, adjusted: Ints, raw: Ints) -> int:
    """Gather the n-grams of one length from the keys of the longest; return how many.

    Args:
        order: tokens of the keys.
        length: tokens of these n-grams.
        counts: of the keys [n].
        shared: see `compare_neighbours` [n].
        reach: see `compare_neighbours` [n].
        rows: filled with the first key of each.
        adjusted: filled with the different tokens before each; with its occurrences at a document's start and for the longest.
        raw: filled with the occurrences of each.
    """
    found = -1
    for row in range(counts.size):
        if reach[row] < length:
            continue
        if shared[row] < length:
            found += 1
            rows[found] = row
            adjusted[found] = 0
            raw[found] = 0
        raw[found] += counts[row]
        if length == order or reach[row] == length:
            adjusted[found] += counts[row]
        elif shared[row] <= length:
            adjusted[found] += 1
    return found + 1


@inner
def _find(table: Words, key: np.uint64) -> np.int64:
    """Return the slot of a key, or of the empty slot where it would be."""
    size = np.uint64(table.shape[0])
    mixed = key * MIX_1
    mixed = (mixed ^ (mixed >> SHIFT)) * MIX_2
    slot = ((mixed >> SHIFT) * size) >> SHIFT
    while table[slot, 0] != key and table[slot, 0] != EMPTY:
        slot += ONE
        if slot == size:
            slot = ZERO
    return np.int64(slot)


@outer
def enter(keys: Words, rows: Ints, length: int, bits: int, tables: Words, starts: Ints, contexts: Ints) -> None:
    """Enter n-grams of one length into their table, and find the context of each.

    Args:
        keys: of the longest n-grams.
        rows: a key of each n-gram, see `gather`.
        length: tokens of these n-grams, at least 2.
        bits: of a token.
        tables: all tables one after the other [slots, 2]; the payload is the number of the n-gram.
        starts: where the table of each length begins [order + 2]; all shorter ones are filled.
        contexts: filled with the number of the context among n-grams of its length (of one token: the token).
    """
    for i in range(rows.size):
        parent = _token(keys, rows[i], length - 1, bits)
        context = parent
        for back in range(length - 2, -1, -1):
            size = length - back
            table = tables[starts[size] : starts[size + 1]]
            key = parent << SHIFT | _token(keys, rows[i], back, bits)
            slot = _find(table, key)
            if back == 0:
                contexts[i] = np.int64(context)
                table[slot, 0] = key
                table[slot, 1] = np.uint64(i)
            parent, context = np.uint64(slot), table[slot, 1]
