"""The compiled loops of encoding: pieces cut at barriers, short parts from memory, the rest merged.

They take addresses (see `words`): `c` is that of a context, a row of uint64 that holds the addresses and sizes named below;
`encoder` makes it and holds the arrays. The ids of the first phase are written where the second leaves its own, which are never more.

The memory is bounded. Parts of up to 15 bytes with up to five ids lie in sets of two entries of 32 bytes, one cache line: bytes and
length, ids and their number; a new entry pushes out the older. Longer ones and those with more ids lie in a pool, which is emptied when
it is full. An entry is only used if all its bytes are the same, so a hash never decides on ids.

All in one file: numba's cache does not see changes of what a function calls in another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, types

from stages.tokenizer.encoding.words import EMPTY, MIX, MOST_IDS, SHIFT, byte_at, bytes_at, id_at, lower_run, prefetch, put_id, put_word, trailing_ones, word_at

SLACK = 8  # ids that may be written behind the last one
SHORT_BYTES = 15  # the sixteenth holds the length
LONG_BYTES = 255
SHORT_SETS = 1 << 17  # of 64 bytes
LONG_SETS = 1 << 15  # of 64 bytes: four entries (hash, place in the pool << 16 | length << 8 | ids)
POOL_WORDS = 1 << 20  # bytes of a part, then its ids, two in a word
SHORT_COUNT = 64  # a merge in so many ids looks at all ranks; in more it uses a heap

NAMES = (
    "ASCII", "EDGES", "CHARACTERS", "CHARACTERS_SHIFT", "BYTE_IDS", "BYTE_PAIRS", "LOW", "LOW_SHIFT", "LOW_MASK", "LOW_JOINED", "HIGH",
    "HIGH_SHIFT", "HIGH_MASK", "HIGH_JOINED", "LINKS", "LINKS_SHIFT", "SHORT", "LONG", "POOL", "FILLED", "RANKS", "TWO_PHASES",
    "TOKENS", "TOKENS_MASK", "SPANS", "SPELLED", "LONGEST", "WHOLE", "PARTS", "NOWHERE",
)  # fmt: skip
(
    ASCII, EDGES, CHARACTERS, CHARACTERS_SHIFT, BYTE_IDS, BYTE_PAIRS, LOW, LOW_SHIFT, LOW_MASK, LOW_JOINED, HIGH,
    HIGH_SHIFT, HIGH_MASK, HIGH_JOINED, LINKS, LINKS_SHIFT, SHORT, LONG, POOL, FILLED, RANKS, TWO_PHASES,
    TOKENS, TOKENS_MASK, SPANS, SPELLED, LONGEST, WHOLE, PARTS, NOWHERE,
) = (np.uint64(i) for i in range(len(NAMES)))  # fmt: skip

PARTS_AT_ONCE = 64
FIRST, SECOND, ENTRY, BEGIN, END, WHERE, KIND = (np.uint64(i) for i in range(7))  # of a part, in eight words

NONE = np.uint64(2**32 - 1)
_0, _1, _2, _3, _4, _5, _6, _7, _8, _9 = (np.uint64(i) for i in range(10))
_15, _16, _31, _32, _42, _56, _63, _64, _80, _255 = (np.uint64(i) for i in (15, 16, 31, 32, 42, 56, 63, 64, 0x80, 255))
_E0, _F0, _FIRST_10, _FIRST_15, _ID = (np.uint64(i) for i in (0xE0, 0xF0, 0x3FF, 0x7FFF, 2**32 - 1))
_ALL, _RANK, _MIX_2 = EMPTY, np.uint64(MOST_IDS - 1), np.uint64(0xC2B2AE3D27D4EB4F)
_LONG_BYTES, _SHORT_COUNT, _POOL_WORDS = np.uint64(LONG_BYTES), np.uint64(SHORT_COUNT), np.uint64(POOL_WORDS)
_SHORT_SHIFT, _LONG_SHIFT = np.uint64(65 - SHORT_SETS.bit_length()), np.uint64(65 - LONG_SETS.bit_length())
_LONG_WORDS, _MOST_WORDS = (
    np.uint64(LONG_SETS * 8),
    np.uint64((LONG_BYTES + 8) // 8 + (LONG_BYTES + 1) // 2),
)  # of an entry of the pool

_PARTS = np.uint64(PARTS_AT_ONCE)

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
        first = _some_bytes(text, begin, min(begin + _8, limit))
        second = _some_bytes(text, begin + _8, limit) if begin + _8 < limit else _0
    more = max(size, _8)
    first &= _ALL >> (_64 - _8 * (size + _8 - more))
    return first, second & ((_1 << (_8 * (more - _8))) - _1) | size << _56


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _short_set(c: U, first: U, second: U) -> U:
    """Return the address of the set of a short part."""
    mixed = first * MIX ^ second * _MIX_2
    return word_at(c, SHORT) + (((mixed ^ mixed >> _32) * MIX) >> _SHORT_SHIFT << _6)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _recall_short(entry: U, first: U, second: U, ids: U) -> U:
    """Write the ids of a short part whose set is at `entry`, return how many they are, 0 if unknown; writes five whatever they are."""
    other = (word_at(entry, _0) ^ first) | (word_at(entry, _1) ^ second)
    if other != _0 and ((word_at(entry, _4) ^ first) | (word_at(entry, _5) ^ second)) != _0:
        return _0
    entry += ((other | (_0 - other)) >> _63) << _5  # no branch: which of the two it is, no processor can guess
    three, more = word_at(entry, _2), word_at(entry, _3)
    put_id(ids, _0, three & _RANK)
    put_id(ids, _1, three >> SHIFT & _RANK)
    put_id(ids, _2, three >> _42)
    put_id(ids, _3, more & _RANK)
    put_id(ids, _4, more >> SHIFT & _RANK)
    return more >> _42


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _keep_short(entry: U, first: U, second: U, ids: U, count: U) -> None:
    """Remember a short part whose set is at `entry`, and its up to five ids; reads five whatever they are."""
    i = _0
    while i < _4:
        put_word(entry, i + _4, word_at(entry, i))
        i += _1
    put_word(entry, _0, first)
    put_word(entry, _1, second)
    put_word(entry, _2, id_at(ids, _0) & _RANK | (id_at(ids, _1) & _RANK) << SHIFT | id_at(ids, _2) << _42)
    put_word(entry, _3, id_at(ids, _3) & _RANK | (id_at(ids, _4) & _RANK) << SHIFT | count << _42)


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
def _next_barrier(c: U, text: U, begin: U, end: U, limit: U) -> U:
    """Return the first place behind `begin` that no merge of the first phase crosses, `end` at the latest.

    Places between lower-case letters are passed over: hardly any of them is one.
    """
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
            if at + _16 <= limit:
                at += max(lower_run(text, at), _1)
                before = byte_at(text, at - _1)
            else:
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
    return min(at, end)


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
def _merge_run(c: U, ids: U, count: U, left: U) -> U:
    """Apply the merges of the second phase to `count` ids, write what is left at address `left`; return where that ends."""
    table, shift, mask, joined = word_at(c, HIGH), word_at(c, HIGH_SHIFT), word_at(c, HIGH_MASK), word_at(c, HIGH_JOINED)
    if count == _2:
        first, second = id_at(ids, _0), id_at(ids, _1)
        rank = _rank(table, shift, mask, first, second)
        if rank != NONE:
            put_id(left, _0, id_at(joined, rank))
            return left + _4
        put_id(left, _0, first)
        put_id(left, _1, second)
        return left + _8
    if count > _SHORT_COUNT:
        count = _merge_long(ids, count, table, shift, mask, joined)
    else:
        ranks, i = word_at(c, RANKS), _1
        while i < count:
            put_id(ranks, i - _1, _rank(table, shift, mask, id_at(ids, i - _1), id_at(ids, i)))
            i += _1
        count = _merge_short(ids, ranks, count, table, shift, mask, joined)
    i = _0
    while i < count:
        put_id(left, i, id_at(ids, i))
        i += _1
    return left + (count << _2)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _second_phase(c: U, ids: U, end: U, left: U) -> U:
    """Apply the merges of the second phase to the ids at addresses ids to end; write what is left at `left`, return where it ends."""
    links, links_shift = word_at(c, LINKS), word_at(c, LINKS_SHIFT)
    while ids < end:
        window = min((end - ids) >> _2, _64)
        linked, i, before = _0, _1, id_at(ids, _0)
        while i < window:  # no branches: which ids are linked, no processor can guess
            behind = id_at(ids, i)
            place = ((before << SHIFT | behind) * MIX) >> links_shift
            linked |= (byte_at(links, place >> _3) >> (place & _7) & _1) << (i - _1)
            before = behind
            i += _1
        i = _0
        while i < window:
            more = trailing_ones(linked)
            count = more + _1
            if i + count == window and ids + (window << _2) < end:
                if i > _0:
                    break  # the next window begins with this run
                while ids + (count << _2) < end and _may_hold(
                    links, links_shift, id_at(ids, count - _1), id_at(ids, count)
                ):
                    count += _1
                window = count
            if more == _0:
                put_id(left, _0, id_at(ids, i))
                left += _4
            else:
                left = _merge_run(c, ids + (i << _2), count, left)
            linked >>= count & _63
            i += count
        ids += i << _2
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _find_token(c: U, text: U, begin: U, end: U) -> U:
    """Return the id of the token that text[begin:end] is as a whole, or NONE."""
    if end - begin >= word_at(c, LONGEST):
        return NONE
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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _learn(c: U, text: U, part: U, ids: U) -> U:
    """Write the ids of a part that the short memory does not have, remember them, return their number."""
    begin, end, first, second = word_at(part, BEGIN), word_at(part, END), word_at(part, FIRST), word_at(part, SECOND)
    if end - begin > _LONG_BYTES:
        return _merge_bytes(c, text, begin, end, ids)
    if second >> _63:
        token = _find_token(c, text, begin, end)
        if token != NONE:
            put_id(ids, _0, token)
            _keep_short(word_at(part, ENTRY), first, second, ids, _1)
            return _1
    mixed = _hash(text, begin, end) if end - begin <= _15 else first
    count = _recall_long(c, mixed, text, begin, end, ids)
    if count == _0:
        count = _merge_bytes(c, text, begin, end, ids)
        if end - begin <= _15 and count <= _5:
            _keep_short(word_at(part, ENTRY), first, second, ids, count)
        else:
            _keep_long(c, mixed, text, begin, end, ids, count)
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_part(c: U, text: U, begin: U, end: U, limit: U, whole: U, part: U) -> None:
    """Describe a part at address `part`, and ask for the cache line where the memory would have it."""
    put_word(part, BEGIN, begin)
    put_word(part, END, end)
    put_word(part, KIND, _0)
    if end - begin <= _15:
        first, second = _short_key(text, begin, end - begin, limit)
        second |= whole
        entry = _short_set(c, first, second)
        put_word(part, SECOND, second)
    else:
        first = _hash(text, begin, end) if end - begin <= _LONG_BYTES else _0
        entry = word_at(c, LONG) + (first >> _LONG_SHIFT << _6)
        put_word(part, KIND, _1)
        put_word(part, SECOND, _0)
    prefetch(entry)
    put_word(part, FIRST, first)
    put_word(part, ENTRY, entry)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _put_id_part(part: U, token: U, count: U) -> None:
    """Describe a part that is this token, or nothing if count is 0."""
    put_word(part, KIND, _2)
    put_word(part, FIRST, token)
    put_word(part, SECOND, count)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_phase(c: U, text: U, parts: U, count: U, ids: U, out: U) -> U:
    """Write the ids of the parts described at `parts` to `out`, and how many end with each; return the address where they end."""
    stop = parts + (count << _6)
    while parts < stop:
        kind, got = word_at(parts, KIND), _0
        if kind == _0:
            got = _recall_short(word_at(parts, ENTRY), word_at(parts, FIRST), word_at(parts, SECOND), out)
        if kind == _2:
            put_id(out, _0, word_at(parts, FIRST))
            got = word_at(parts, SECOND)
        elif got == _0:
            got = _learn(c, text, parts, out)
        out += got << _2
        put_word(word_at(parts, WHERE), _0, (out - ids) >> _2)
        parts += _64
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_pieces(c: U, ends: U, pieces: U, ids: U) -> U:
    """Apply the second phase to the pieces whose ids end at `ends`; write there where they end now, return the last."""
    out, begin, i = ids, ids, _0
    while i < pieces:
        end = ids + (word_at(ends, i) << _2)
        out = _second_phase(c, begin, end, out)
        put_word(ends, i, (out - ids) >> _2)
        begin = end
        i += _1
    return (out - ids) >> _2


@njit(types.uint64(*[types.uint64] * 6), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def encode_pieces(c: U, text: U, begin: U, ends: U, pieces: U, ids: U) -> U:
    """Write the ids of the pieces of a text that begins at `begin`, and over each end in `ends` how many ids end there.

    `ends`: address of the ends of the pieces, uint64. `ids`: address of uint32, with room for as many as there are bytes and SLACK.
    Returns the number of ids. Some parts are found before the first of them is looked up, as memory answers late.
    """
    out, i, limit, count = ids, _0, word_at(ends, pieces - _1) if pieces else _0, _0
    two_phases, longest, parts, nowhere = word_at(c, TWO_PHASES), word_at(c, LONGEST), word_at(c, PARTS), word_at(c, NOWHERE)
    short = _0 if two_phases else _15
    while i < pieces:
        end = word_at(ends, i)
        last = ends + (i << _3)
        i += _1
        part = parts + (count << _6)
        if end - begin - _1 < short:
            _put_part(c, text, begin, end, limit, word_at(c, WHOLE), part)
            put_word(part, WHERE, last)
            begin = end
            count += _1
        else:
            token = _find_token(c, text, begin, end) if end - begin < longest else NONE
            if token != NONE or begin == end:
                _put_id_part(part, token, _0 if begin == end else _1)
                put_word(part, WHERE, last)
                begin = end
                count += _1
            while begin < end:
                stop = _next_barrier(c, text, begin, end, limit)
                part = parts + (count << _6)
                _put_part(c, text, begin, stop, limit, _0, part)
                put_word(part, WHERE, last if stop == end else nowhere)
                begin = stop
                count += _1
                if count == _PARTS:
                    out = _first_phase(c, text, parts, count, ids, out)
                    count = _0
        if count == _PARTS:
            out = _first_phase(c, text, parts, count, ids, out)
            count = _0
    out = _first_phase(c, text, parts, count, ids, out)
    return _merge_pieces(c, ends, pieces, ids) if two_phases else (out - ids) >> _2
