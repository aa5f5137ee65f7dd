"""The compiled main loop: choose a pair, join it everywhere, keep the counts, until there is a reason to come back.

Python then makes room, counts anew, or reports progress, and calls it again: the state is in arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.compiling import Int, inlined, inner, outer
from gristmill.tokenizer.training.arrays import Int32s, Int64s, Limits
from gristmill.tokenizer.training.choosing import NOTHING, RECONSIDER, Policy, choose, count_in
from gristmill.tokenizer.training.kernels import Scratch, Work, account, find_all, replace
from gristmill.tokenizer.training.pairs import LOW, PAIRS, POOL, Pairs, forget
from gristmill.tokenizer.training.tokens import Tokens, join

# Why `merge` comes back.
PAUSE, ENOUGH, NO_PAIR, NO_PAIRS, NO_POOL, NO_PLACES, NO_TEXT, NO_IDS = range(8)
IDS, LOGGED, NEED = range(3)  # places in Log.numbers


class Log(NamedTuple):
    """What has been merged: `merges` int32 [rows, 3], `counts` int64 [rows], `left` int64 [rows, groups]: tokens left after it.

    `numbers`: int64 [3]: ids there are, rows filled, room that was lacking. `now`: int64 [groups], tokens left.
    """

    merges: Int32s
    counts: Int64s
    left: Int64s
    numbers: Int64s
    now: Int64s


@inner
def _lacking(work: Work, pairs: Pairs, scratch: Scratch, numbers: Int64s, occurrences: Int) -> Int:
    """Say which room is lacking for a merge that makes so many occurrences, or `PAUSE` if none is."""
    most = occurrences
    if work.weights.size == 0:  # as many pairs as fit into a column of counts, on each side
        least = pairs.thresholds[0]
        for column in range(pairs.thresholds.size):
            least = min(least, pairs.thresholds[column])
        most = occurrences // least * pairs.thresholds.size
    most = 2 * min(most, scratch.index.size)
    if scratch.places.size < occurrences:
        numbers[NEED] = occurrences
        return NO_PLACES
    if pairs.keys.size - pairs.used[PAIRS] < most:
        numbers[NEED] = most
        return NO_PAIRS
    if pairs.pool.size - pairs.used[POOL] < 2 * occurrences:
        numbers[NEED] = 2 * occurrences
        return NO_POOL
    return PAUSE


@inlined
def _join(work: Work, tokens: Tokens, rules: Limits, pairs: Pairs, scratch: Scratch, policy: Policy, log: Log, pair: Int) -> Int:
    """Join one pair everywhere; return `PAUSE`, or which room was lacking: then nothing has been done."""
    key, known = pairs.keys[pair], log.numbers[IDS]
    left, right = key >> 32, key & LOW
    length = tokens.starts[left + 1] - tokens.starts[left] + tokens.starts[right + 1] - tokens.starts[right]
    code = _lacking(work, pairs, scratch, log.numbers, pairs.sizes[pair])
    if code == PAUSE and known == tokens.words.size:
        code = NO_IDS
    if code == PAUSE and tokens.starts[known] + length > tokens.text.size:
        log.numbers[NEED] = length
        code = NO_TEXT
    token: Int = np.int64(known)
    if code == PAUSE:
        token = join(tokens, known, left, right)
        if token != known:  # all of its occurrences will be looked at
            there = find_all(work.ids, scratch, token)
            code = _lacking(work, pairs, scratch, log.numbers, there + pairs.sizes[pair])
    if code != PAUSE:
        return code
    row = log.numbers[LOGGED]
    log.merges[row, 0], log.merges[row, 1], log.merges[row, 2] = left, right, token
    log.counts[row] = pairs.counts[pair, 0]
    before = log.now.sum()
    count = replace(work, pairs, scratch, pair, token, log.now)
    forget(pairs, pair)
    for step in range(4):  # neighbours left, right; once more, left, right, if the token was there before
        if step == 2:
            if token == known:
                break
            count = find_all(work.ids, scratch, token)
        to_right = step & 1 == 1
        places, others = (scratch.places, scratch.behind) if to_right else (scratch.before_at, scratch.before)
        new = token if token == known or step >= 2 else np.int64(-1)
        was = np.int64(-1) if step >= 2 else right if to_right else left
        account(work, tokens, rules, pairs, scratch, places[:count], others[:count], new, was, left, to_right)
    log.numbers[LOGGED] += 1
    log.numbers[IDS] += token == known
    for group in range(log.now.size):
        log.left[row, group] = log.now[group]
    count_in(policy, left, right, token, before - log.now.sum(), token == known)
    return PAUSE


@outer
def merge(
    work: Work,
    tokens: Tokens,
    rules: Limits,
    pairs: Pairs,
    scratch: Scratch,
    policy: Policy,
    log: Log,
    effort: Int,
) -> Int:
    """Join pairs until there are enough tokens, the log is full, or `effort` places were visited; say why it ended."""
    while effort > 0 and log.numbers[LOGGED] < log.counts.size:
        pair = choose(pairs, policy, log.now)
        if pair == RECONSIDER:
            continue
        if pair < 0:
            return NO_PAIR if pair == NOTHING else ENOUGH
        effort -= pairs.sizes[pair] + 1000
        code = _join(work, tokens, rules, pairs, scratch, policy, log, pair)
        if code != PAUSE:
            return code
    return PAUSE
