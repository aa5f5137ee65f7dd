"""The compiled loops of encoding: pieces cut at barriers, short parts from memory, the rest merged.

They take addresses (see `words`): `c` is that of a context, a row of uint64 that holds the addresses and sizes named below;
`encoder` makes it and holds the arrays. The ids of the first phase are written where the second leaves its own, which are never more.

The memory is bounded. Parts of up to 15 bytes with up to three ids lie in sets of two entries of 32 bytes, one cache line: bytes and
length, ids and their number; a new entry pushes out the older. Longer ones and those with more ids lie in a pool, which is emptied when
it is full. An entry is only used if all its bytes are the same, so a hash never decides on ids.

All in one file: numba's cache does not see changes of what a function calls in another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, types

from stages.tokenizer.encoding.words import EMPTY, MIX, MOST_IDS, SHIFT, byte_at, bytes_at, id_at, put_id, put_word, word_at

SLACK = 4  # ids that may be written behind the last one
SHORT_BYTES = 15  # the sixteenth holds the length
LONG_BYTES = 255
SHORT_SETS = 1 << 17  # of 64 bytes
LONG_SETS = 1 << 15  # of 64 bytes: four entries (hash, place in the pool << 16 | length << 8 | ids)
POOL_WORDS = 1 << 20  # bytes of a part, then its ids, two in a word
SHORT_COUNT = 64  # a merge in so many ids looks at all ranks; in more it uses a heap

NAMES = (
    "ASCII", "EDGES", "CHARACTERS", "CHARACTERS_SHIFT", "BYTE_IDS", "BYTE_PAIRS", "LOW", "LOW_SHIFT", "LOW_MASK", "LOW_JOINED", "HIGH",
    "HIGH_SHIFT", "HIGH_MASK", "HIGH_JOINED", "LINKS", "LINKS_SHIFT", "SHORT", "LONG", "POOL", "FILLED", "RANKS", "TWO_PHASES",
    "TOKENS", "TOKENS_MASK", "SPANS", "SPELLED", "LONGEST",
)  # fmt: skip
(
    ASCII, EDGES, CHARACTERS, CHARACTERS_SHIFT, BYTE_IDS, BYTE_PAIRS, LOW, LOW_SHIFT, LOW_MASK, LOW_JOINED, HIGH,
    HIGH_SHIFT, HIGH_MASK, HIGH_JOINED, LINKS, LINKS_SHIFT, SHORT, LONG, POOL, FILLED, RANKS, TWO_PHASES,
    TOKENS, TOKENS_MASK, SPANS, SPELLED, LONGEST,
) = (np.uint64(i) for i in range(len(NAMES)))  # fmt: skip

NONE = np.uint64(2**32 - 1)
_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = (np.uint64(i) for i in range(10))
_15, _16, _31, _32, _56, _63, _64, _80, _255 = (np.uint64(i) for i in (15, 16, 31, 32, 56, 63, 64, 0x80, 255))
_E0, _F0, _FIRST_10, _FIRST_15, _ID = (np.uint64(i) for i in (0xE0, 0xF0, 0x3FF, 0x7FFF, 2**32 - 1))
_ALL, _RANK, _MIX_2 = EMPTY, np.uint64(MOST_IDS - 1), np.uint64(0xC2B2AE3D27D4EB4F)
_LONG_BYTES, _SHORT_COUNT, _POOL_WORDS = np.uint64(LONG_BYTES), np.uint64(SHORT_COUNT), np.uint64(POOL_WORDS)
_SHORT_SHIFT, _LONG_SHIFT = np.uint64(65 - SHORT_SETS.bit_length()), np.uint64(65 - LONG_SETS.bit_length())
_LONG_WORDS, _MOST_WORDS = (
    np.uint64(LONG_SETS * 8),
    np.uint64((LONG_BYTES + 8) // 8 + (LONG_BYTES + 1) // 2),
)  # of an entry of the pool

U = np.uint64


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rank(table: U, shift: U, mask: U, left: U, right: U) -> U:
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _may_hold(bits: U, shift: U, left: U, right: U) -> bool:
    """Return False if a pair is certainly not in a set of `pair_bits`."""
    place = ((left << SHIFT | right) * MIX) >> shift
    return (byte_at(bits, place >> _3) >> (place & _7)) & _1 != _0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_short(ids: U, ranks: U, count: U, table: U, shift: U, mask: U, joined: U) -> U:
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
            put_id(ranks, at, _rank(table, shift, mask, new, id_at(ids, at + _1)))
        if at > _0:
            put_id(ranks, at - _1, _rank(table, shift, mask, id_at(ids, at - _1), new))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_long(ids: U, count: U, table: U, shift: U, mask: U, joined: U) -> U:
    """Do the same with a heap of (rank, place), so that time is n log n; needs 36 bytes an id for the time being."""
    ranks, before, behind = np.empty(count, np.uint32), np.empty(count, np.uint32), np.empty(count, np.uint32)
    heap = np.empty(_3 * count, np.uint64)
    size, at = _0, _0
    while at < count:
        before[at], behind[at] = np.uint32(at - _1), np.uint32(at + _1)
        rank = _rank(table, shift, mask, id_at(ids, at), id_at(ids, at + _1)) if at + _1 < count else NONE
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
            rank = _rank(table, shift, mask, new, id_at(ids, after))
        ranks[at] = np.uint32(rank)
        size = _push(heap, size, rank << _32 | at) if rank != NONE else size
        if at > _0:
            at = U(before[at])
            rank = _rank(table, shift, mask, id_at(ids, at), new)
            ranks[at] = np.uint32(rank)
            size = _push(heap, size, rank << _32 | at) if rank != NONE else size
    left, at = _0, _0
    while at < count:
        put_id(ids, left, id_at(ids, at))
        left += _1
        at = U(behind[at])
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _short_key(text: U, begin: U, size: U, limit: U) -> tuple[U, U]:
    """Return the up to 15 bytes from `begin` on and their number as two words; reads nothing from `limit` on."""
    if begin + _16 <= limit:
        first, second = bytes_at(text, begin), bytes_at(text, begin + _8)
    else:
        first, second = _0, _0
        i = _0
        while i < size:
            byte = byte_at(text, begin + i) << (_8 * (i & _7))
            first, second = (first | byte, second) if i < _8 else (first, second | byte)
            i += _1
    if size <= _8:
        return first & (_ALL >> (_64 - _8 * size)), size << _56
    return first, second & ((_1 << (_8 * (size - _8))) - _1) | size << _56


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _short_set(c: U, first: U, second: U) -> U:
    """Return the address of the set of a short part."""
    mixed = first * MIX ^ second * _MIX_2
    return word_at(c, SHORT) + (((mixed ^ mixed >> _32) * MIX) >> _SHORT_SHIFT << _6)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _recall_short(c: U, first: U, second: U, ids: U) -> U:
    """Write the ids of a short part and return how many they are, 0 if it is not known; writes three whatever they are."""
    entry = _short_set(c, first, second)
    if word_at(entry, _0) != first or word_at(entry, _1) != second:
        entry += _32
        if word_at(entry, _0) != first or word_at(entry, _1) != second:
            return _0
    pair, last = word_at(entry, _2), word_at(entry, _3)
    put_id(ids, _0, pair)
    put_id(ids, _1, pair >> _32)
    put_id(ids, _2, last)
    return last >> _32


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep_short(c: U, first: U, second: U, ids: U, count: U) -> None:
    """Remember a short part and its up to three ids; reads three whatever they are."""
    entry = _short_set(c, first, second)
    i = _0
    while i < _4:
        put_word(entry, i + _4, word_at(entry, i))
        i += _1
    put_word(entry, _0, first)
    put_word(entry, _1, second)
    put_word(entry, _2, id_at(ids, _0) | id_at(ids, _1) << _32)
    put_word(entry, _3, id_at(ids, _2) | count << _32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _some_bytes(text: U, begin: U, end: U) -> U:
    """Return the up to eight bytes text[begin:end] as a number."""
    if begin + _8 <= end:
        return bytes_at(text, begin)
    word, shift = _0, _0
    while begin < end:
        word |= byte_at(text, begin) << shift
        begin += _1
        shift += _8
    return word


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hash(text: U, begin: U, end: U) -> U:
    """Return a hash of text[begin:end], not 0."""
    mixed = end - begin
    while begin < end:
        mixed = (mixed ^ _some_bytes(text, begin, end)) * MIX
        mixed ^= mixed >> _32
        begin += _8
    return mixed * _MIX_2 | _1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _recall_long(c: U, mixed: U, text: U, begin: U, end: U, ids: U) -> U:
    """Write the ids of text[begin:end] and return how many they are, 0 if it is not known."""
    pool = word_at(c, POOL)
    entry = word_at(c, LONG) + (mixed >> _LONG_SHIFT << _6)
    for _ in range(4):
        facts = word_at(entry, _1)
        if word_at(entry, _0) == mixed and (facts >> _8) & _255 == end - begin:
            word, at = facts >> _16, begin
            while at < end and word_at(pool, word) == _some_bytes(text, at, end):
                word += _1
                at += _8
            if at >= end:
                count, i = facts & _255, _0
                while i < count:
                    put_id(ids, i, id_at(pool + (word << _3), i))
                    i += _1
                return count
        entry += _16
    return _0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep_long(c: U, mixed: U, text: U, begin: U, end: U, ids: U, count: U) -> None:
    """Remember text[begin:end], at most LONG_BYTES, and its ids."""
    pool, filled = word_at(c, POOL), word_at(c, FILLED)
    word = word_at(filled, _0)
    if word + _MOST_WORDS > _POOL_WORDS:
        i = _0
        while i < _LONG_WORDS:
            put_word(word_at(c, LONG), i, _0)
            i += _1
        word = _0
    facts = word << _16 | (end - begin) << _8 | count
    at = begin
    while at < end:
        put_word(pool, word, _some_bytes(text, at, end))
        word += _1
        at += _8
    i = _0
    while i < count:
        put_id(pool + (word << _3), i, id_at(ids, i))
        i += _1
    put_word(filled, _0, word + ((count + _1) >> _1))
    entry = word_at(c, LONG) + (mixed >> _LONG_SHIFT << _6)
    i = _7
    while i >= _2:  # the oldest of the set goes
        put_word(entry, i, word_at(entry, i - _2))
        i -= _1
    put_word(entry, _0, mixed)
    put_word(entry, _1, facts)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _point(text: U, at: U, first: U) -> tuple[U, U]:
    """Return the code point and the size of the character at `at` with this first byte, not ASCII."""
    point = (first & _31) << _6 | byte_at(text, at + _1) & _63
    if first < _E0:
        return point, _2
    point = (point & _FIRST_10) << _6 | byte_at(text, at + _2) & _63
    if first < _F0:
        return point, _3
    return (point & _FIRST_15) << _6 | byte_at(text, at + _3) & _63, _4


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _next_barrier(c: U, text: U, begin: U, end: U) -> U:
    """Return the first place behind `begin` that no merge of the first phase crosses, `end` at the latest."""
    ascii_ = word_at(c, ASCII)
    at, before = begin + _1, byte_at(text, begin)
    if before >= _80:
        before, size = _point(text, begin, before)
        at = begin + size
    while at < end:
        behind = byte_at(text, at)
        if (behind | before) < _80:
            if byte_at(ascii_, before << _7 | behind) == _0:
                return at
            before = behind
            at += _1
            continue
        edge, size = byte_at(text, at - _1) << _8 | behind, _1
        if behind >= _80:
            behind, size = _point(text, at, behind)
        if byte_at(word_at(c, EDGES), edge) == _0:
            if not _may_hold(word_at(c, CHARACTERS), word_at(c, CHARACTERS_SHIFT), before, behind):
                return at
        before = behind
        at += size
    return end


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_bytes(c: U, text: U, begin: U, end: U, ids: U) -> U:
    """Write the ids of text[begin:end] by the merges of the first phase; return their number."""
    count, byte_ids, pairs, ranks = end - begin, word_at(c, BYTE_IDS), word_at(c, BYTE_PAIRS), word_at(c, RANKS)
    byte, i = byte_at(text, begin), _0
    few = count <= _SHORT_COUNT
    while True:
        put_id(ids, i, id_at(byte_ids, byte))
        begin += _1
        if begin == end:
            break
        behind = byte_at(text, begin)
        if few:
            put_id(ranks, i, id_at(pairs, byte << _8 | behind))
        byte = behind
        i += _1
    table, shift, mask, joined = word_at(c, LOW), word_at(c, LOW_SHIFT), word_at(c, LOW_MASK), word_at(c, LOW_JOINED)
    if few:
        return _merge_short(ids, ranks, count, table, shift, mask, joined)
    return _merge_long(ids, count, table, shift, mask, joined)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _learn(c: U, text: U, begin: U, end: U, limit: U, ids: U) -> U:
    """Write the ids of a part that the short memory does not have, remember them, return their number."""
    if end - begin > _LONG_BYTES:
        return _merge_bytes(c, text, begin, end, ids)
    mixed = _hash(text, begin, end)
    count = _recall_long(c, mixed, text, begin, end, ids)
    if count == _0:
        count = _merge_bytes(c, text, begin, end, ids)
        if end - begin <= _15 and count <= _3:
            first, second = _short_key(text, begin, end - begin, limit)
            _keep_short(c, first, second, ids, count)
        else:
            _keep_long(c, mixed, text, begin, end, ids, count)
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_phase(c: U, text: U, begin: U, end: U, limit: U, ids: U) -> U:
    """Write the ids of a piece by the merges of the first phase; return the address where they end."""
    while begin < end:
        stop = _next_barrier(c, text, begin, end)
        count = _0
        if stop - begin <= _15:
            first, second = _short_key(text, begin, stop - begin, limit)
            count = _recall_short(c, first, second, ids)
        if count == _0:
            count = _learn(c, text, begin, stop, limit, ids)
        ids += count << _2
        begin = stop
    return ids


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _second_phase(c: U, ids: U, end: U) -> U:
    """Apply the merges of the second phase to the ids at addresses ids to end, in place; return the address where they end."""
    links, links_shift, ranks = word_at(c, LINKS), word_at(c, LINKS_SHIFT), word_at(c, RANKS)
    table, shift, mask, joined = word_at(c, HIGH), word_at(c, HIGH_SHIFT), word_at(c, HIGH_MASK), word_at(c, HIGH_JOINED)
    left = ids
    while ids < end:
        stop = ids + _4
        before = id_at(ids, _0)
        count = _1
        while stop < end:
            behind = id_at(stop, _0)
            if not _may_hold(links, links_shift, before, behind):
                break
            if count <= _SHORT_COUNT:
                put_id(ranks, count - _1, _rank(table, shift, mask, before, behind))
            before = behind
            stop += _4
            count += _1
        if count > _SHORT_COUNT:
            count = _merge_long(ids, count, table, shift, mask, joined)
        elif count > _1:
            count = _merge_short(ids, ranks, count, table, shift, mask, joined)
        while count > _0:
            put_id(left, _0, id_at(ids, _0))
            left += _4
            ids += _4
            count -= _1
        ids = stop
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find_token(c: U, text: U, begin: U, end: U) -> U:
    """Return the id of the token that text[begin:end] is as a whole, or NONE."""
    tokens, mask, spans, spelled = word_at(c, TOKENS), word_at(c, TOKENS_MASK), word_at(c, SPANS), word_at(c, SPELLED)
    slot = _hash(text, begin, end) & mask
    while id_at(tokens, slot) != NONE:
        token = id_at(tokens, slot)
        first, at = word_at(spans, token), begin
        if word_at(spans, token + _1) - first == end - begin:
            while at < end and byte_at(spelled, first + at - begin) == byte_at(text, at):
                at += _1
            if at == end:
                return token
        slot = (slot + _1) & mask
    return NONE


@njit(types.void(types.uint64, types.uint64), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill_tokens(c: U, wanted: U) -> None:
    """Enter the tokens numbered `wanted` (an address of uint32, NONE behind the last) into the empty table TOKENS."""
    tokens, mask, spans, spelled = word_at(c, TOKENS), word_at(c, TOKENS_MASK), word_at(c, SPANS), word_at(c, SPELLED)
    while id_at(wanted, _0) != NONE:
        token = id_at(wanted, _0)
        slot = _hash(spelled, word_at(spans, token), word_at(spans, token + _1)) & mask
        while id_at(tokens, slot) != NONE:
            slot = (slot + _1) & mask
        put_id(tokens, slot, token)
        wanted += _4


@njit(types.uint64(*[types.uint64] * 6), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def encode_pieces(c: U, text: U, begin: U, ends: U, pieces: U, ids: U) -> U:
    """Write the ids of the pieces of a text that begins at `begin`, and over each end in `ends` how many ids end there.

    `ends`: address of the ends of the pieces, uint64. `ids`: address of uint32, with room for as many as there are bytes and SLACK.
    Returns the number of ids.
    """
    out, i, limit = ids, _0, word_at(ends, pieces - _1) if pieces else _0
    longest, two_phases = word_at(c, LONGEST), word_at(c, TWO_PHASES)
    while i < pieces:
        end = word_at(ends, i)
        token = NONE
        if end - begin < longest:
            token = _find_token(c, text, begin, end)
        if token != NONE:
            put_id(out, _0, token)
            out += _4
        else:
            behind = _first_phase(c, text, begin, end, limit, out)
            out = _second_phase(c, out, behind) if two_phases else behind
        put_word(ends, i, (out - ids) >> _2)
        begin = end
        i += _1
    return (out - ids) >> _2
