"""The compiled loops that count pairs of a stream of ids and merge them, in place.

The stream stays flat: a token of n slots has its id in the first, and -n in the second and the last; every slot that is not
the first of a token is negative. So both neighbours of a token are found without links. The first token of a piece carries
`FIRST`, which no merge crosses. Importing this module compiles nothing; the first calls do, or load numba's cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stages.tokenizer.training.pairs import FIRST, LOW, PAIRS, PLAIN, POOL, Pairs, add, after, best, find, forget, tracked
from stages.tokenizer.training.tokens import Tokens, allowed, join

BLOCK = 5  # log2 of the slots of one entry of Work.blocks

# Why `merge` comes back.
PAUSE, ENOUGH, NOTHING, NO_PAIRS, NO_POOL, NO_PLACES, NO_TEXT = range(7)
IDS, LOGGED, NEED = range(3)  # places in Log.numbers


class Work(NamedTuple):
    """The stream.

    `ids`: int32 [slots]. `ends`: int64 [pieces]. `group_ends`: int64 [groups], in slots.
    `weights`: int64 [pieces], empty if all are 1. `blocks`: int32 [slots / 32], the piece of each 32nd slot, if there are weights.
    """

    ids: Any
    ends: Any
    weights: Any
    blocks: Any
    group_ends: Any


class Scratch(NamedTuple):
    """Room to work in.

    `places`, `before_at`: uint32 [occurrences], where tokens made by a merge begin, and the tokens before them.
    `before`, `behind`: int32 [occurrences], their neighbours, -1 for none; `index.size - 1` for one made by the same merge.
    `index`: int32 [ids + 1], -1, or the number of that id among the `others` met in this merge.
    `others`: int32, `sizes`, `cursors`: int64 [ids + 1], `sums`: int64 [ids + 1, columns].
    """

    places: Any
    before_at: Any
    before: Any
    behind: Any
    index: Any
    others: Any
    sizes: Any
    cursors: Any
    sums: Any


class Log(NamedTuple):
    """What has been merged: `merges` int32 [rows, 3], `counts` int64 [rows], `left` int64 [rows, groups]: tokens left after it.

    `numbers`: int64 [3]: ids there are, rows filled, room that was lacking. `now`: int64 [groups], tokens left.
    """

    merges: Any
    counts: Any
    left: Any
    numbers: Any
    now: Any


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _weight(work: Work, at: int) -> int:
    """Return how often the piece that holds slot `at` occurs."""
    if work.weights.size == 0:
        return np.int64(1)
    piece = np.int64(work.blocks[at >> BLOCK])
    while work.ends[piece] <= at:
        piece += 1
    return np.int64(work.weights[piece])


@njit(cache=True, nogil=True)
def tally(work: Work, histogram: Any, now: Any) -> None:  # noqa: ANN401 - numba has no types
    """Count into `histogram` (int64 [ids]) the tokens that another of the piece follows; into `now` the tokens of each group."""
    ids = work.ids
    group = 0
    for at in range(ids.size):
        if ids[at] < 0:
            continue
        while at >= work.group_ends[group]:
            group += 1
        now[group] += _weight(work, at)
        following = after(ids, at)
        if following < ids.size and ids[following] < FIRST:
            histogram[ids[at] & PLAIN] += 1


@njit(cache=True, nogil=True)
def scatter(work: Work, low: int, high: int, cursors: Any, places: Any, rights: Any) -> None:  # noqa: ANN401
    """Write places and right neighbours of the tokens from id `low` to `high`, sorted by id; `cursors` is where each id begins."""
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


@njit(cache=True, nogil=True)
def _gather(work: Work, scratch: Scratch, places: Any, others: Any, count: int) -> int:  # noqa: ANN401
    """Sum up `places` by the id in `others` (those < 0 are left out); return how many different ids were met."""
    met = 0
    group = 0
    for i in range(count):
        other = others[i]
        if other < 0:
            continue
        at = np.int64(places[i])
        number = np.int64(scratch.index[other])
        if number < 0:
            number = met
            met += 1
            scratch.index[other], scratch.others[number], scratch.sizes[number] = number, other, 0
            for column in range(scratch.sums.shape[1]):
                scratch.sums[number, column] = 0
        weight = _weight(work, at)
        scratch.sizes[number] += 1
        scratch.sums[number, 0] += weight
        if scratch.sums.shape[1] > 1:
            while at >= work.group_ends[group]:
                group += 1
            scratch.sums[number, 1 + group] += weight
    return met


@njit(cache=True, nogil=True)
def _key(scratch: Scratch, number: int, token: int, chain: int, to_right: bool) -> int:
    """Return the key of the pair of `token` and a met id, which stands right of it or left of it."""
    other = np.int64(scratch.others[number])
    if other == scratch.index.size - 1:
        other = np.int64(chain)
    return token << 32 | other if to_right else other << 32 | token


@njit(cache=True, nogil=True)
def _subtract(pairs: Pairs, scratch: Scratch, met: int, token: int, chain: int, to_right: bool) -> None:
    """Take the sums from the counts of the pairs of `token` and the met ids."""
    for number in range(met):
        pair = find(pairs, _key(scratch, number, token, chain, to_right))
        if pair >= 0:
            for column in range(pairs.thresholds.size):
                pairs.counts[pair, column] -= scratch.sums[number, column]


@njit(cache=True, nogil=True)
def _track(
    pairs: Pairs,
    tokens: Tokens,
    rules: Any,  # noqa: ANN401
    scratch: Scratch,
    places: Any,  # noqa: ANN401
    others: Any,  # noqa: ANN401
    count: int,
    met: int,
    token: int,
    to_right: bool,
) -> None:
    """Track the pairs of `token` and the met ids that are frequent enough and allowed; what was known of them is forgotten."""
    for number in range(met):
        key = _key(scratch, number, token, token, to_right)
        pair = find(pairs, key)
        if pair >= 0:
            forget(pairs, pair)
        if tracked(pairs, scratch.sums[number]) and allowed(tokens, rules[0], rules[1], key >> 32, key & LOW):
            scratch.cursors[number] = pairs.used[POOL]
            add(pairs, key, scratch.sums[number], scratch.sizes[number])
        else:
            scratch.cursors[number] = -1
    for i in range(count):
        if others[i] >= 0:
            number = np.int64(scratch.index[others[i]])
            to = scratch.cursors[number]
            if to >= 0:
                pairs.pool[to] = places[i]
                scratch.cursors[number] = to + 1


@njit(cache=True, nogil=True)
def _clear(scratch: Scratch, met: int) -> None:
    """Make `index` as it was."""
    for number in range(met):
        scratch.index[scratch.others[number]] = -1


@njit(cache=True, nogil=True)
def _most_pairs(work: Work, pairs: Pairs, ids: int, occurrences: int) -> int:
    """Return a bound of the pairs that so many occurrences of one token can make with what stands on one side."""
    if work.weights.size == 0:
        least = pairs.thresholds.min()
        return min(ids, occurrences // least * pairs.thresholds.size)
    return min(ids, occurrences)


@njit(cache=True, nogil=True)
def _fits(pairs: Pairs, scratch: Scratch, met: int) -> bool:
    """Say if there is room for the frequent ones among the pairs of the met ids."""
    count, taken = pairs.used[PAIRS], pairs.used[POOL]
    for number in range(met):
        if tracked(pairs, scratch.sums[number]):
            count += 1
            taken += scratch.sizes[number]
    return count <= pairs.keys.size and taken <= pairs.pool.size


@njit(cache=True, nogil=True)
def collect(
    work: Work,
    tokens: Tokens,
    rules: Any,  # noqa: ANN401
    pairs: Pairs,
    scratch: Scratch,
    low: int,
    high: int,
    base: int,
    starts: Any,  # noqa: ANN401
    places: Any,  # noqa: ANN401
    rights: Any,  # noqa: ANN401
) -> int:
    """Track the pairs of left ids from `low` to `high`, sorted by `scatter`; return the first without room. `base`: where its arrays begin."""
    for token in range(low, high):
        begin, end = starts[token] - base, starts[token + 1] - base
        here, others = places[begin:end], rights[begin:end]
        met = _gather(work, scratch, here, others, end - begin)
        room = _fits(pairs, scratch, met)
        if room:
            _track(pairs, tokens, rules, scratch, here, others, end - begin, met, np.int64(token), True)
        _clear(scratch, met)
        if not room:
            return np.int64(token)
    return np.int64(high)


@njit(cache=True, nogil=True)
def _replace(work: Work, pairs: Pairs, scratch: Scratch, pair: int, token: int, now: Any) -> int:  # noqa: ANN401
    """Put `token` where the pair stands, from left to right; note the places and neighbours; return how many."""
    ids, chain = work.ids, scratch.index.size - 1
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
        mark = ids[at] & FIRST
        scratch.before[count] = -1
        if mark == 0:
            previous = at - 1 if ids[at - 1] >= 0 else at + ids[at - 1]
            if previous == last:
                scratch.behind[count - 1] = chain
            else:
                scratch.before[count], scratch.before_at[count] = ids[previous] & PLAIN, previous
        scratch.behind[count] = ids[end] if end < ids.size and ids[end] < FIRST else -1
        scratch.places[count] = at
        ids[at] = token | mark
        ids[at + 1] = ids[middle] = ids[end - 1] = at - end
        last = at
        count += 1
        while at >= work.group_ends[group]:
            group += 1
        now[group] -= _weight(work, at)
    return count


@njit(cache=True, nogil=True)
def _find_all(ids: Any, scratch: Scratch, token: int) -> int:  # noqa: ANN401
    """Note the places and neighbours of all occurrences of `token`; return how many."""
    chain = scratch.index.size - 1
    count, last = 0, np.int64(-1)
    for at in range(ids.size):
        if ids[at] & PLAIN != token:
            continue
        scratch.before[count] = -1
        if ids[at] < FIRST:
            previous = at - 1 if ids[at - 1] >= 0 else at + ids[at - 1]
            if previous == last:
                scratch.behind[count - 1] = chain
            else:
                scratch.before[count], scratch.before_at[count] = ids[previous] & PLAIN, previous
        end = after(ids, at)
        scratch.behind[count] = ids[end] if end < ids.size and ids[end] < FIRST else -1
        scratch.places[count] = at
        last = at
        count += 1
    return count


@njit(cache=True, nogil=True)
def _occurrences(ids: Any, token: int) -> int:  # noqa: ANN401
    """Return how many tokens have this id."""
    count = 0
    for at in range(ids.size):
        count += ids[at] & PLAIN == token
    return np.int64(count)


@njit(cache=True, nogil=True)
def _lacking(work: Work, pairs: Pairs, scratch: Scratch, log: Log, occurrences: int) -> int:
    """Say which room is lacking for a merge that makes so many occurrences, or `PAUSE` if none is."""
    most = 2 * _most_pairs(work, pairs, scratch.index.size, occurrences)
    for code, free, need in (
        (NO_PLACES, np.int64(scratch.places.size), occurrences),
        (NO_PAIRS, pairs.keys.size - pairs.used[PAIRS], most),
        (NO_POOL, pairs.pool.size - pairs.used[POOL], 2 * occurrences),
    ):
        if free < need:
            log.numbers[NEED] = need
            return code
    return PAUSE


@njit(cache=True, nogil=True)
def _neighbours(
    work: Work,
    tokens: Tokens,
    rules: Any,  # noqa: ANN401
    pairs: Pairs,
    scratch: Scratch,
    key: int,
    token: int,
    count: int,
    fresh: bool,
) -> None:
    """Bring the counts of the pairs around a merge up to date: the left and right id of `key` became `token` `count` times."""
    left, right = key >> 32, key & LOW
    met = _gather(work, scratch, scratch.before_at, scratch.before, count)
    _subtract(pairs, scratch, met, left, left, False)
    if fresh:
        _track(pairs, tokens, rules, scratch, scratch.before_at, scratch.before, count, met, token, False)
    _clear(scratch, met)
    met = _gather(work, scratch, scratch.places, scratch.behind, count)
    _subtract(pairs, scratch, met, right, left, True)
    if fresh:
        _track(pairs, tokens, rules, scratch, scratch.places, scratch.behind, count, met, token, True)
    _clear(scratch, met)


@njit(cache=True, nogil=True)
def _merge(work: Work, tokens: Tokens, rules: Any, pairs: Pairs, scratch: Scratch, log: Log, pair: int) -> int:  # noqa: ANN401
    """Merge one pair everywhere; return `PAUSE`, or which room was lacking: then nothing has been done."""
    key, known = pairs.keys[pair], log.numbers[IDS]
    left, right = key >> 32, key & LOW
    code = _lacking(work, pairs, scratch, log, pairs.sizes[pair])
    if code != PAUSE:
        return code
    length = tokens.starts[left + 1] - tokens.starts[left] + tokens.starts[right + 1] - tokens.starts[right]
    if tokens.starts[known] + length > tokens.text.size:
        log.numbers[NEED] = length
        return NO_TEXT
    token = join(tokens, known, left, right)
    fresh = token == known
    if not fresh:
        code = _lacking(work, pairs, scratch, log, _occurrences(work.ids, token) + pairs.sizes[pair])
        if code != PAUSE:
            return code
    row = log.numbers[LOGGED]
    log.merges[row, 0], log.merges[row, 1], log.merges[row, 2] = left, right, token
    log.counts[row] = pairs.counts[pair, 0]
    log.numbers[LOGGED] += 1
    log.numbers[IDS] += fresh
    count = _replace(work, pairs, scratch, pair, token, log.now)
    forget(pairs, pair)
    _neighbours(work, tokens, rules, pairs, scratch, key, token, count, fresh)
    if not fresh:  # the token was there before: count all that stands around it anew
        count = _find_all(work.ids, scratch, token)
        met = _gather(work, scratch, scratch.before_at, scratch.before, count)
        _track(pairs, tokens, rules, scratch, scratch.before_at, scratch.before, count, met, token, False)
        _clear(scratch, met)
        met = _gather(work, scratch, scratch.places, scratch.behind, count)
        _track(pairs, tokens, rules, scratch, scratch.places, scratch.behind, count, met, token, True)
        _clear(scratch, met)
    log.left[row] = log.now
    return PAUSE


@njit(cache=True, nogil=True)
def merge(
    work: Work,
    tokens: Tokens,
    rules: Any,  # noqa: ANN401
    pairs: Pairs,
    scratch: Scratch,
    log: Log,
    most_ids: int,
    effort: int,
) -> int:
    """Merge the best pairs until there are `most_ids` ids, the log is full, or `effort` places were visited; say why it ended."""
    while log.numbers[IDS] < most_ids:
        if effort <= 0 or log.numbers[LOGGED] == log.counts.size:
            return PAUSE
        pair = best(pairs, 0)
        if pair < 0:
            return NOTHING
        effort -= pairs.sizes[pair] + 1000
        code = _merge(work, tokens, rules, pairs, scratch, log, pair)
        if code != PAUSE:
            return code
    return ENOUGH
