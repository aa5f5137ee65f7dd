"""The compiled loops that count the pairs of a stream of ids and replace them by joined tokens, in place.

The stream stays flat: a token of n slots has its id in the first, and -n in the second and the last; every slot that is not
the first of a token is negative. So both neighbours of a token are found without links. The first token of a piece carries
`FIRST`, which no merge crosses. Importing this module compiles nothing; the first calls do, or load numba's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gristmill.compiling import Int, inlined, inner, outer
from gristmill.tokenizer.training.arrays import Int32s, Int64s, Limits, UInt32s
from gristmill.tokenizer.training.pairs import FIRST, LOW, PAIRS, PLAIN, POOL, Pairs, add, after, find, forget, tracked
from gristmill.tokenizer.training.tokens import Tokens, allowed

BLOCK = 5  # log2 of the slots of one entry of Work.blocks


class Work(NamedTuple):
    """The stream.

    `ids`: int32 [slots]. `ends`: int64 [pieces]. `group_ends`: int64 [groups], in slots.
    `weights`: int64 [pieces], empty if all are 1. `blocks`: int32 [slots / 32], then: the piece of each 32nd slot.
    """

    ids: Int32s
    ends: Int64s
    weights: Int64s
    blocks: Int32s
    group_ends: Int64s


class Scratch(NamedTuple):
    """Capacity to work in.

    `places`, `before_at`: uint32 [occurrences], where tokens made by a merge begin, and the tokens before them.
    `before`, `behind`: int32 [occurrences], their neighbours, -1 for none; `index.size - 1` for one made by the same merge.
    `index`: int32 [ids + 1], -1, or the number of that id among the `others` met in this merge.
    `others`: int32, `sizes`, `cursors`: int64 [ids + 1], `sums`: int64 [ids + 1, columns].
    """

    places: UInt32s
    before_at: UInt32s
    before: Int32s
    behind: Int32s
    index: Any  # an Int32s, but a tuple has a method of this name
    others: Int32s
    sizes: Int64s
    cursors: Int64s
    sums: Int64s


def make_scratch(ids: int, columns: int, occurrences: int) -> Scratch:
    """Return room for so many ids, columns of counts, and occurrences of one token."""
    return Scratch(
        np.empty(occurrences, np.uint32),
        np.empty(occurrences, np.uint32),
        np.empty(occurrences, np.int32),
        np.empty(occurrences, np.int32),
        np.full(ids + 1, -1, np.int32),
        np.empty(ids + 1, np.int32),
        np.empty(ids + 1, np.int64),
        np.empty(ids + 1, np.int64),
        np.empty((ids + 1, columns), np.int64),
    )


@outer
def prepare(work: Work) -> None:
    """Mark the first token of each piece, and fill `blocks`."""
    start = np.int64(0)
    for piece in range(work.ends.size):
        end = work.ends[piece]
        if end > start:
            work.ids[start] |= FIRST
            if work.blocks.size:
                for block in range((start + 31) >> BLOCK, (end + 31) >> BLOCK):
                    work.blocks[block] = piece
        start = end


@inner
def weight(work: Work, at: Int) -> Int:
    """Return how often the piece that holds slot `at` occurs."""
    if work.weights.size == 0:
        return np.int64(1)
    piece = np.int64(work.blocks[at >> BLOCK])
    while work.ends[piece] <= at:
        piece += 1
    return np.int64(work.weights[piece])


@outer
def tally(work: Work, histogram: Int64s, frequency: Int64s, now: Int64s) -> None:
    """Count the tokens of each id, without weights, that another of the piece follows: int64 [ids].

    Also with weights all tokens of each id, int64 [ids], and of each group, int64 [groups].
    """
    ids = work.ids
    group = 0
    for at in range(ids.size):
        if ids[at] < 0:
            continue
        while at >= work.group_ends[group]:
            group += 1
        times = weight(work, at)
        now[group] += times
        frequency[ids[at] & PLAIN] += times
        following = after(ids, at)
        if following < ids.size and ids[following] < FIRST:
            histogram[ids[at] & PLAIN] += 1


@outer
def scatter(work: Work, low: Int, high: Int, cursors: Int64s, places: UInt32s, rights: Int32s) -> None:
    """Write places and right neighbours of the tokens from id `low` to `high`, sorted by id; `cursors`: where each id begins."""
    ids = work.ids
    for at in range(ids.size):
        value = ids[at]
        if value < 0:
            continue
        value &= PLAIN
        if low <= value < high:
            following = after(ids, at)
            if following < ids.size and ids[following] < FIRST:
                to = cursors[value - low]
                places[to], rights[to] = at, ids[following]
                cursors[value - low] = to + 1


@inlined
def _gather(work: Work, scratch: Scratch, places: UInt32s, others: Int32s, count: Int) -> Int:
    """Sum up `places` by the id in `others` (those < 0 are left out); return how many different ids were met."""
    met = 0
    group = 0
    columns = scratch.sums.shape[1]
    plain = work.weights.size == 0 and columns == 1
    for i in range(count):
        other = others[i]
        if other < 0:
            continue
        number = np.int64(scratch.index[other])
        if number < 0:
            number = np.int64(met)
            met += 1
            scratch.index[other], scratch.others[number], scratch.sizes[number] = number, other, 0
            for column in range(columns):
                scratch.sums[number, column] = 0
        scratch.sizes[number] += 1
        if plain:
            continue
        at = np.int64(places[i])
        times = weight(work, at)
        scratch.sums[number, 0] += times
        if columns > 1:
            while at >= work.group_ends[group]:
                group += 1
            scratch.sums[number, 1 + group] += times
    if plain:
        for row in range(met):
            scratch.sums[row, 0] = scratch.sizes[row]
    return np.int64(met)


@inlined
def _key(scratch: Scratch, number: Int, token: Int, chain: Int, to_right: bool) -> Int:
    """Return the key of the pair of `token` and a met id, which stands right of it or left of it."""
    other = np.int64(scratch.others[number])
    if other == scratch.index.size - 1:
        other = np.int64(chain)
    return np.int64(token << 32 | other if to_right else other << 32 | token)


@inlined
def _fits(pairs: Pairs, scratch: Scratch, met: Int) -> bool:
    """Say if there is room for the frequent ones among the pairs of the met ids."""
    count, taken = pairs.used[PAIRS], pairs.used[POOL]
    for number in range(met):
        if tracked(pairs, scratch.sums, number):
            count += 1
            taken += scratch.sizes[number]
    return bool(count <= pairs.keys.size and taken <= pairs.pool.size)


@inner
def account(
    work: Work,
    tokens: Tokens,
    rules: Limits,
    pairs: Pairs,
    scratch: Scratch,
    places: UInt32s,
    others: Int32s,
    token: Int,
    was: Int,
    chain: Int,
    to_right: bool,
) -> bool:
    """Bring the counts of pairs up to date on one side of the tokens at `places`, whose neighbours there are `others`.

    If `was` >= 0, the pairs of `was` and the neighbours are gone: their counts are lowered; `chain` is what stood where a token
    of the same merge stands now. If `token` >= 0, its pairs with the neighbours are new: those frequent enough and allowed are
    tracked, what was known of them is forgotten. False if there was no room; then nothing has been done.
    """
    met = _gather(work, scratch, places, others, others.size)
    room = token < 0 or _fits(pairs, scratch, met)
    if room and was >= 0:
        for number in range(met):
            pair = find(pairs, _key(scratch, number, was, chain, to_right))
            if pair >= 0:
                for column in range(pairs.thresholds.size):
                    pairs.counts[pair, column] -= scratch.sums[number, column]
    if room and token >= 0:
        for number in range(met):
            key = _key(scratch, number, token, token, to_right)
            pair = find(pairs, key)
            if pair >= 0:
                forget(pairs, pair)
            scratch.cursors[number] = -1
            if tracked(pairs, scratch.sums, number) and allowed(tokens, rules, key >> 32, key & LOW):
                scratch.cursors[number] = pairs.used[POOL]
                add(pairs, key, scratch.sums, number, scratch.sizes[number])
        for i in range(others.size):
            if others[i] >= 0:
                row = scratch.index[others[i]]
                to = scratch.cursors[row]
                if to >= 0:
                    pairs.pool[to] = places[i]
                    scratch.cursors[row] = to + 1
    for number in range(met):
        scratch.index[scratch.others[number]] = -1
    return bool(room)


@outer
def collect(
    work: Work,
    tokens: Tokens,
    rules: Limits,
    pairs: Pairs,
    scratch: Scratch,
    low: Int,
    high: Int,
    base: Int,
    starts: Int64s,
    places: UInt32s,
    rights: Int32s,
) -> Int:
    """Track the pairs of left ids from `low` to `high`, sorted by `scatter`, whose arrays begin with starts[...] = `base`.

    Return the first id that there was no room for, or `high`.
    """
    none = np.int64(-1)
    for token in range(low, high):
        begin, end = starts[token] - base, starts[token + 1] - base
        to_right = begin <= end  # always: the literal True would be another type, and all compiled once more
        if not account(
            work, tokens, rules, pairs, scratch, places[begin:end], rights[begin:end], np.int64(token), none, none, to_right
        ):
            return np.int64(token)
    return np.int64(high)


@inlined
def note(ids: Int32s, scratch: Scratch, at: Int, end: Int, last: Int, count: Int) -> None:
    """Note one more token, in slots `at` to `end`, and its neighbours; `last`: where the one noted before begins."""
    chain = scratch.index.size - 1
    scratch.places[count] = at
    scratch.before[count] = -1
    if ids[at] < FIRST:
        previous = at - 1 if ids[at - 1] >= 0 else at + ids[at - 1]
        if previous == last:
            scratch.behind[count - 1] = chain
        else:
            scratch.before[count], scratch.before_at[count] = ids[previous] & PLAIN, previous
    scratch.behind[count] = ids[end] if end < ids.size and ids[end] < FIRST else -1


@inner
def replace(work: Work, pairs: Pairs, scratch: Scratch, pair: Int, token: Int, now: Int64s) -> Int:
    """Put `token` where the pair stands, from left to right; note the places and neighbours; return how many."""
    ids = work.ids
    left, right = pairs.keys[pair] >> 32, pairs.keys[pair] & LOW
    count, last, group = 0, np.int64(-1), 0
    for i in range(pairs.offsets[pair], pairs.offsets[pair] + pairs.sizes[pair]):
        at = np.int64(pairs.pool[i])
        if ids[at] & PLAIN != left:
            continue
        middle = after(ids, at)
        if middle >= ids.size or ids[middle] != right:
            continue
        end = after(ids, middle)
        note(ids, scratch, at, end, last, count)
        ids[at] = token | ids[at] & FIRST
        ids[at + 1] = ids[middle] = ids[end - 1] = at - end
        last = at
        count += 1
        while at >= work.group_ends[group]:
            group += 1
        now[group] -= weight(work, at)
    return count


@inner
def find_all(ids: Int32s, scratch: Scratch, token: Int) -> Int:
    """Note the places and neighbours of all occurrences of `token`, as far as there is room; return how many there are."""
    count, last = 0, -1
    for at in range(ids.size):
        if ids[at] & PLAIN != token:
            continue
        if count < scratch.places.size:
            note(ids, scratch, at, after(ids, at), last, count)
        last = at
        count += 1
    return np.int64(count)
