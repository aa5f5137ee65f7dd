"""The compiled loops of encoding: a document cut into pieces, these at barriers, short pieces from memory, the rest merged.

Reads text as bytes and the tables of `barriers`; writes ids. The ids of the first phase are written where the second will leave its own,
which never are more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from stages.tokenizer.cutting.cutter import Cutter, cut_into
from stages.tokenizer.encoding.memory import (
    LONG_BYTES,
    SHORT_BYTES,
    SHORT_IDS,
    Memory,
    hash_long,
    keep_long,
    keep_short,
    recall_long,
    recall_short,
    short_key,
)
from stages.tokenizer.encoding.merging import SHORT, merge_long, merge_short
from stages.tokenizer.encoding.words import NONE, find_merge, may_hold

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]
Words = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]

SLACK = 4  # ids that may be written behind the last one

_0, _1, _2, _3, _4, _6, _7, _8 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 6, 7, 8))
_80, _SHORT, _LONG, _SHORT_IDS, _MERGE_SHORT = (np.uint64(i) for i in (0x80, SHORT_BYTES, LONG_BYTES, SHORT_IDS, SHORT))
_WHOLE = np.uint64(1 << 63)  # in the key of a short piece that is a whole one, where that makes a difference


class Tables(NamedTuple):
    """A vocabulary for the loops; the hash tables' shifts are in `facts`.

    `ascii`, `edges`, `characters`: see `Barriers`. `bytes`: id of each byte, uint32 [256]. `pairs`: ranks of merges of two bytes, uint32
    [65536]. `low`, `high`: merges of the first and the second phase; `low_joined`, `high_joined`: what they make, uint32 by rank.
    `links`: see `find_links`. `tokens`: hash table of whole tokens: places in `spans` or -1, int64; `spans`: where the bytes of each
    token end in `spelled`. `facts`: uint64: see the names below.
    """

    ascii: Bytes
    edges: Bytes
    characters: Bytes
    bytes: Ids
    pairs: Ids
    low: Words
    low_joined: Ids
    high: Words
    high_joined: Ids
    links: Bytes
    tokens: Offsets
    spans: Offsets
    spelled: Bytes
    facts: Words


CHARACTERS_SHIFT, LOW_SHIFT, HIGH_SHIFT, LINKS_SHIFT, TWO_PHASES, WHOLE_TOKENS, HAS_CUTS, LONGEST, FACTS = range(9)


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _point(text: Bytes, at: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Return the code point and the size of the character at `at`."""
    first = np.uint64(text[at])
    if first < _80:
        return first, _1
    low = np.uint64(63)
    point = (first & np.uint64(31)) << _6 | np.uint64(text[at + _1]) & low
    if first < np.uint64(0xE0):
        return point, _2
    point = (point & np.uint64(0x3FF)) << _6 | np.uint64(text[at + _2]) & low
    if first < np.uint64(0xF0):
        return point, _3
    return (point & np.uint64(0x7FFF)) << _6 | np.uint64(text[at + _3]) & low, _4


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _next_barrier(tables: Tables, text: Bytes, begin: np.uint64, end: np.uint64) -> np.uint64:
    """Return the first place behind `begin` that no merge of the first phase crosses, `end` at the latest."""
    ascii_, edges, characters = tables.ascii, tables.edges, tables.characters
    shift = tables.facts[CHARACTERS_SHIFT]
    before, size = _point(text, begin)
    at = begin + size
    while at < end:
        byte = np.uint64(text[at])
        if (byte | before) < _80:
            if ascii_[before << _7 | byte] == 0:
                return at
            before = byte
            at += _1
            continue
        behind, size = _point(text, at)
        edge = np.uint64(text[at - _1]) << _8 | byte
        if edges[edge] == 0 and not may_hold(characters, shift, before, behind):
            return at
        before = behind
        at += size
    return end


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _merge_bytes(tables: Tables, text: Bytes, begin: np.uint64, end: np.uint64, ranks: Ids, ids: Ids, at: np.uint64) -> np.uint64:
    """Write the ids of text[begin:end] by the merges of the first phase at ids[at]; return their number."""
    count = end - begin
    for i in range(count):
        ids[at + np.uint64(i)] = tables.bytes[text[begin + np.uint64(i)]]
    if count == 1:
        return count
    if count > _MERGE_SHORT:
        return merge_long(ids, at, count, tables.low, tables.facts[LOW_SHIFT], tables.low_joined)
    for i in range(count - _1):
        here = begin + np.uint64(i)
        ranks[np.uint64(i)] = tables.pairs[np.uint64(text[here]) << _8 | np.uint64(text[here + _1])]
    return merge_short(ids, ranks, at, count, tables.low, tables.facts[LOW_SHIFT], tables.low_joined)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _learn(
    tables: Tables, memory: Memory, text: Bytes, begin: np.uint64, end: np.uint64, ranks: Ids, ids: Ids, at: np.uint64
) -> np.uint64:
    """Write the ids of a part without barriers that the short memory does not have, and remember them."""
    size = end - begin
    if size > _LONG:
        return _merge_bytes(tables, text, begin, end, ranks, ids, at)
    mixed = hash_long(text, begin, end)
    count = recall_long(memory, mixed, text, begin, end, ids, at)
    if count:
        return count
    count = _merge_bytes(tables, text, begin, end, ranks, ids, at)
    if size <= _SHORT and count <= _SHORT_IDS:
        first, second = short_key(text, begin, size)
        keep_short(memory.short, first, second, ids, at, count)
    else:
        keep_long(memory, mixed, text, begin, end, ids, at, count)
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _first_phase(
    tables: Tables, memory: Memory, text: Bytes, begin: np.uint64, end: np.uint64, ranks: Ids, ids: Ids, at: np.uint64
) -> np.uint64:
    """Write the ids of a piece by the merges of the first phase at ids[at]; return where they end."""
    while begin < end:
        stop = _next_barrier(tables, text, begin, end)
        count = _0
        if stop - begin <= _SHORT:
            first, second = short_key(text, begin, stop - begin)
            count = recall_short(memory.short, first, second, ids, at)
        if count == 0:
            count = _learn(tables, memory, text, begin, stop, ranks, ids, at)
        at += count
        begin = stop
    return at


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _second_phase(tables: Tables, ranks: Ids, ids: Ids, begin: np.uint64, end: np.uint64) -> np.uint64:
    """Apply the merges of the second phase to ids[begin:end] in place; return where they end."""
    links, links_shift = tables.links, tables.facts[LINKS_SHIFT]
    high, shift, joined = tables.high, tables.facts[HIGH_SHIFT], tables.high_joined
    at, left = begin, begin
    while at < end:
        stop = at + _1
        while stop < end and may_hold(links, links_shift, np.uint64(ids[stop - _1]), np.uint64(ids[stop])):
            stop += _1
        count = stop - at
        if count > _MERGE_SHORT:
            count = merge_long(ids, at, count, high, shift, joined)
        elif count > _1:
            for i in range(count - _1):
                here = at + np.uint64(i)
                ranks[np.uint64(i)] = find_merge(high, shift, ids[here], ids[here + _1])
            count = merge_short(ids, ranks, at, count, high, shift, joined)
        for i in range(count):
            ids[left + np.uint64(i)] = ids[at + np.uint64(i)]
        left += count
        at = stop
    return left


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def find_token(tables: Tables, mixed: np.uint64, text: Bytes, begin: np.uint64, end: np.uint64) -> np.int64:
    """Return the id of the token that text[begin:end] is as a whole, or -1."""
    mask = np.uint64(tables.tokens.size) - _1
    slot = mixed & mask
    while tables.tokens[slot] >= 0:
        token = np.uint64(tables.tokens[slot])
        first = np.uint64(tables.spans[token])
        same = np.uint64(tables.spans[token + _1]) - first == end - begin
        here = begin
        while same and here < end:
            same = tables.spelled[first + here - begin] == text[here]
            here += _1
        if same:
            return np.int64(token)
        slot = (slot + _1) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fill_tokens(tables: Tables, wanted: npt.NDArray[np.bool_]) -> None:
    """Enter the tokens that are wanted into the hash table, which is empty."""
    mask = np.uint64(tables.tokens.size) - _1
    for i in range(wanted.size):
        token = np.uint64(i)
        if wanted[token]:
            slot = hash_long(tables.spelled, np.uint64(tables.spans[token]), np.uint64(tables.spans[token + _1])) & mask
            while tables.tokens[slot] >= 0:
                slot = (slot + _1) & mask
            tables.tokens[slot] = np.int64(token)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _encode_piece(
    tables: Tables, memory: Memory, text: Bytes, begin: np.uint64, end: np.uint64, ranks: Ids, ids: Ids, at: np.uint64
) -> np.uint64:
    """Write the ids of a piece at ids[at]; return where they end."""
    if tables.facts[WHOLE_TOKENS] and end - begin <= tables.facts[LONGEST]:
        token = find_token(tables, hash_long(text, begin, end), text, begin, end)
        if token >= 0:
            ids[at] = np.uint32(token)
            return at + _1
    behind = _first_phase(tables, memory, text, begin, end, ranks, ids, at)
    if tables.facts[TWO_PHASES]:
        return _second_phase(tables, ranks, ids, at, behind)
    return behind


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def encode_documents(
    tables: Tables, memory: Memory, cutter: Cutter, text: Bytes, offsets: Offsets, ends: Offsets, ids: Ids, places: Offsets
) -> None:
    """Write the ids of the documents text[offsets[d]:offsets[d+1]] to `ids` and where they end to places[d+1].

    `ends`: int64, room for the ends of the pieces of any document. `ids`: uint32, room for as many as there are bytes and SLACK.
    """
    ranks = np.empty(_MERGE_SHORT, np.uint32)
    at = _0
    for document in range(offsets.size - 1):
        begin, end = offsets[document], offsets[document + 1]
        if end > begin:
            pieces = 1
            if tables.facts[HAS_CUTS]:
                pieces = cut_into(cutter, text, begin, end, ends)
            else:
                ends[0] = end
            here = np.uint64(begin)
            for i in range(pieces):
                stop = np.uint64(ends[i])
                at = _encode_piece(tables, memory, text, here, stop, ranks, ids, at)
                here = stop
        places[document + 1] = np.int64(at)
