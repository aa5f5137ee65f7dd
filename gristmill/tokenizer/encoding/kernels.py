"""The compiled loops of encoding: pieces cut at barriers into parts, these looked up or merged, then merged with each other.

They take addresses (see `intrinsics`): `c` is that of a `context`. The ids of the first phase are written where the second leaves
its own, which are never more.
"""

from __future__ import annotations

import numpy as np

from gristmill.compiling import compiled, inlined, inner
from gristmill.tokenizer.encoding.context import (
    ASCII,
    BYTE_IDS,
    BYTE_PAIRS,
    CHARACTERS,
    CHARACTERS_SHIFT,
    EDGES,
    HIGH,
    HIGH_JOINED,
    HIGH_MASK,
    HIGH_SHIFT,
    LINKS,
    LINKS_SHIFT,
    LONGEST,
    LOW,
    LOW_JOINED,
    LOW_MASK,
    LOW_SHIFT,
    NOWHERE,
    PARTS,
    RANKS,
    SPANS,
    SPELLED,
    TOKENS,
    TOKENS_MASK,
    TWO_PHASES,
    WHOLE,
)
from gristmill.tokenizer.encoding.memory import (
    LONG_BYTES,
    SHORT_BYTES,
    SHORT_IDS,
    hash_bytes,
    keep_long,
    keep_short,
    long_set,
    recall_long,
    recall_short,
    short_key,
    short_set,
)
from gristmill.tokenizer.encoding.merging import NONE, find_rank, may_hold, merge_long, merge_short
from gristmill.tokenizer.encoding.pair_tables import MIX, SHIFT
from gristmill.tokenizer.intrinsics import byte_at, id_at, lower_run, prefetch, put_id, put_word, trailing_ones, word_at

SLACK = 8  # ids that may be written behind the last one
SHORT_COUNT = 64  # a merge in so many ids looks at all ranks; in more it uses a heap
PARTS_AT_ONCE = 64
FIRST, SECOND, ENTRY, BEGIN, END, WHERE, KIND = (np.uint64(i) for i in range(7))  # of a part, in eight words
LOOKED_UP, LONG_PART, GIVEN = (np.uint64(i) for i in range(3))  # kinds of parts

_0, _1, _2, _3, _4, _6, _7, _8 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 6, 7, 8))
_16, _31, _63, _64, _80, _E0, _F0, _FIRST_10, _FIRST_15 = (
    np.uint64(i) for i in (16, 31, 63, 64, 0x80, 0xE0, 0xF0, 0x3FF, 0x7FFF)
)
_SHORT_BYTES, _SHORT_IDS, _LONG_BYTES = np.uint64(SHORT_BYTES), np.uint64(SHORT_IDS), np.uint64(LONG_BYTES)
_SHORT_COUNT, _PARTS = np.uint64(SHORT_COUNT), np.uint64(PARTS_AT_ONCE)

U = np.uint64


@inner
def _point(text: U, at: U, first: U) -> tuple[U, U]:
    """Return the code point and the size of the character at `at` with this first byte, not ASCII."""
    point = (first & _31) << _6 | byte_at(text, at + _1) & _63
    if first < _E0:
        return point, _2
    point = (point & _FIRST_10) << _6 | byte_at(text, at + _2) & _63
    if first < _F0:
        return point, _3
    return (point & _FIRST_15) << _6 | byte_at(text, at + _3) & _63, _4


@inner
def next_barrier(c: U, text: U, begin: U, end: U, limit: U) -> U:
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
        joined = byte_at(word_at(c, EDGES), edge) != _0
        if not joined and not may_hold(word_at(c, CHARACTERS), word_at(c, CHARACTERS_SHIFT), before, behind):
            return at
        before = behind
        at += size
    return min(at, end)


@compiled
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
        return merge_short(ids, ranks, count, table, shift, mask, joined)
    return merge_long(ids, count, table, shift, mask, joined)


@inner
def _find_token(c: U, text: U, begin: U, end: U) -> U:
    """Return the id of the token that text[begin:end] is as a whole, or NONE."""
    if end - begin >= word_at(c, LONGEST):
        return NONE
    tokens, mask, spans, spelled = word_at(c, TOKENS), word_at(c, TOKENS_MASK), word_at(c, SPANS), word_at(c, SPELLED)
    slot = hash_bytes(text, begin, end) & mask
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


@compiled
def fill_tokens(c: U, wanted: U) -> None:
    """Enter the tokens numbered `wanted` (an address of uint32, NONE behind the last) into the empty table TOKENS."""
    tokens, mask, spans, spelled = word_at(c, TOKENS), word_at(c, TOKENS_MASK), word_at(c, SPANS), word_at(c, SPELLED)
    while id_at(wanted, _0) != NONE:
        token = id_at(wanted, _0)
        slot = hash_bytes(spelled, word_at(spans, token), word_at(spans, token + _1)) & mask
        while id_at(tokens, slot) != NONE:
            slot = (slot + _1) & mask
        put_id(tokens, slot, token)
        wanted += _4


@compiled
def _learn(c: U, text: U, part: U, known: U, ids: U) -> U:
    """Write the ids of a part that the short memory does not have, remember them, return their number.

    `known`: how many they are if the short memory knows that they are too many for it, else 0.
    """
    begin, end, first, second = word_at(part, BEGIN), word_at(part, END), word_at(part, FIRST), word_at(part, SECOND)
    if end - begin > _LONG_BYTES:
        return _merge_bytes(c, text, begin, end, ids)
    if second >> _63:
        token = _find_token(c, text, begin, end)
        if token != NONE:
            put_id(ids, _0, token)
            keep_short(word_at(part, ENTRY), first, second, ids, _1)
            return _1
    if end - begin <= _SHORT_BYTES:
        mixed = hash_bytes(text, begin, end) if known else _0
    else:
        mixed, known = first, _1
    count = recall_long(c, mixed, text, begin, end, ids) if known else _0
    if count == _0:
        count = _merge_bytes(c, text, begin, end, ids)
        if end - begin > _SHORT_BYTES:
            keep_long(c, mixed, text, begin, end, ids, count)
        else:
            keep_short(word_at(part, ENTRY), first, second, ids, count)
            if count > _SHORT_IDS:
                keep_long(c, hash_bytes(text, begin, end), text, begin, end, ids, count)
    return count


@inlined
def _put_part(c: U, text: U, begin: U, end: U, limit: U, whole: U, part: U) -> None:
    """Describe a part at address `part`, and ask for the cache line where the memory would have it."""
    put_word(part, BEGIN, begin)
    put_word(part, END, end)
    put_word(part, KIND, LOOKED_UP)
    if end - begin <= _SHORT_BYTES:
        first, second = short_key(text, begin, end - begin, limit)
        second |= whole
        entry = short_set(c, first, second)
        put_word(part, SECOND, second)
    else:
        first = hash_bytes(text, begin, end) if end - begin <= _LONG_BYTES else _0
        entry = long_set(c, first)
        put_word(part, KIND, LONG_PART)
        put_word(part, SECOND, _0)
    prefetch(entry)
    put_word(part, FIRST, first)
    put_word(part, ENTRY, entry)


@inner
def _put_id_part(part: U, token: U, count: U) -> None:
    """Describe a part that is this token, or nothing if count is 0."""
    put_word(part, KIND, GIVEN)
    put_word(part, FIRST, token)
    put_word(part, SECOND, count)


@compiled
def _first_phase(c: U, text: U, parts: U, count: U, ids: U, out: U) -> U:
    """Write the ids of the parts described at `parts` to `out`, and how many end with each; return the address where they end."""
    stop = parts + (count << _6)
    while parts < stop:
        kind, got = word_at(parts, KIND), _0
        if kind == LOOKED_UP:
            got = recall_short(word_at(parts, ENTRY), word_at(parts, FIRST), word_at(parts, SECOND), out)
        if kind == GIVEN:
            put_id(out, _0, word_at(parts, FIRST))
            got = word_at(parts, SECOND)
        elif got - _1 >= _SHORT_IDS:
            got = _learn(c, text, parts, got, out)
        out += got << _2
        put_word(word_at(parts, WHERE), _0, (out - ids) >> _2)
        parts += _64
    return out


@compiled
def _merge_run(c: U, ids: U, count: U, left: U) -> U:
    """Apply the merges of the second phase to `count` ids, write what is left at address `left`; return where that ends."""
    table, shift, mask, joined = word_at(c, HIGH), word_at(c, HIGH_SHIFT), word_at(c, HIGH_MASK), word_at(c, HIGH_JOINED)
    if count == _2:
        first, second = id_at(ids, _0), id_at(ids, _1)
        rank = find_rank(table, shift, mask, first, second)
        if rank != NONE:
            put_id(left, _0, id_at(joined, rank))
            return left + _4
        put_id(left, _0, first)
        put_id(left, _1, second)
        return left + _8
    if count > _SHORT_COUNT:
        count = merge_long(ids, count, table, shift, mask, joined)
    else:
        ranks, i = word_at(c, RANKS), _1
        while i < count:
            put_id(ranks, i - _1, find_rank(table, shift, mask, id_at(ids, i - _1), id_at(ids, i)))
            i += _1
        count = merge_short(ids, ranks, count, table, shift, mask, joined)
    i = _0
    while i < count:
        put_id(left, i, id_at(ids, i))
        i += _1
    return left + (count << _2)


@compiled
def _second_phase(c: U, ids: U, end: U, left: U) -> U:
    """Apply the merges of the second phase to the ids at addresses ids to end; write the rest at `left`, return where it ends."""
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
                while ids + (count << _2) < end and may_hold(links, links_shift, id_at(ids, count - _1), id_at(ids, count)):
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


@compiled
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


@compiled
def encode_pieces(c: U, text: U, begin: U, ends: U, pieces: U, ids: U) -> U:
    """Write the ids of the pieces of a text that begins at `begin`, and over each end in `ends` how many ids end there.

    `ends`: address of the ends of the pieces, uint64. `ids`: address of uint32, with room for as many ids as there are bytes
    and SLACK. Returns the number of ids. Some parts are found before the first of them is looked up, as memory answers late.
    """
    out, i, limit, count = ids, _0, word_at(ends, pieces - _1) if pieces else _0, _0
    two_phases, longest, parts, nowhere = word_at(c, TWO_PHASES), word_at(c, LONGEST), word_at(c, PARTS), word_at(c, NOWHERE)
    short = _0 if two_phases else _SHORT_BYTES
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
                stop = next_barrier(c, text, begin, end, limit)
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
