"""The compiled choice of the pair that is merged next: the most frequent, or what a quota or the scaffold rule asks for.

**Quotas.** Every group (language) has a target of tokens that it should come down to. The group furthest above its target, as a
ratio, is served: the pair most frequent in that group is merged, as in parity-aware BPE (arXiv 2508.04796). But a merge spent
early on a group that the common merges would serve as well is wasted; so the most frequent pair of all is merged as long as the
merges to come are more than `reserve` times those that the groups behind still need, by their own counts of pairs. That
forecast is made anew all the time, so its errors are corrected on the way.

**Scaffold tokens** (Scaffold-BPE, Lian et al. 2024, arXiv 2404.17808, algorithm 1). After a merge each of its two parts that now
occurs less often than the head of the queue is marked as scaffold and does not count towards the vocabulary. It waits in the
queue with its own frequency: when it comes to the head, it is a token again. Initial tokens are never marked.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.compiling import Int, inner
from gristmill.tokenizer.training.arrays import Doubles, Int32s, Int64s, UInt8s
from gristmill.tokenizer.training.pairs import Pairs, best

NOTHING, RECONSIDER, DONE = -1, -2, -3  # what `choose` returns instead of a pair
# Places in Policy.numbers.
INITIAL, TARGET, MADE, SCAFFOLDS, LEFT, RIGHT, COLUMN, LEAST, AGE = range(9)
FORECASTS = 32  # merges between two forecasts
BUCKETS = 64 * 16  # of counts: 16 for each power of two


class Policy(NamedTuple):
    """What decides the choice.

    `numbers`: int64 [9]: initial tokens; new tokens wanted, and there; scaffold tokens; parts of the last merge that are to be
    judged, or -1; the column in which nothing was found; the least count of a pair; merges since the last forecast.
    `targets`: float64 [groups], empty without quotas. `out`: uint8 [groups], 1 if nothing is left to merge for it.
    `forecast`: float64 [2], how many times the merges needed are kept in reserve; merges needed by the groups behind.
    `frequency`: int64 [ids], occurrences of each token, empty without scaffolds. `marks`: uint8 [ids], 1 for a scaffold token.
    `waiting`: int32 [ids], the scaffold tokens. `buckets`: int64 [BUCKETS].
    """

    numbers: Int64s
    targets: Doubles
    out: UInt8s
    forecast: Doubles
    frequency: Int64s
    marks: UInt8s
    waiting: Int32s
    buckets: Int64s


def make_policy(initial: int, wanted: int, least: int, targets: Doubles, reserve: float, frequency: Int64s) -> Policy:
    """Return the state before the first merge."""
    return Policy(
        numbers=np.array([initial, wanted, 0, 0, -1, -1, 0, least, FORECASTS], np.int64),
        targets=targets,
        out=np.zeros(targets.size, np.uint8),
        forecast=np.array([reserve, 0.0]),
        frequency=frequency,
        marks=np.zeros(frequency.size, np.uint8),
        waiting=np.zeros(frequency.size, np.int32),
        buckets=np.zeros(BUCKETS, np.int64),
    )


def grown(policy: Policy, ids: int) -> Policy:
    """Return the same state with room for so many ids."""
    arrays = {name: np.resize(getattr(policy, name), ids) for name in ("frequency", "marks", "waiting")}
    for name, array in arrays.items():
        array[getattr(policy, name).size :] = 0
    return policy._replace(**arrays)


@inner
def count_in(policy: Policy, left: Int, right: Int, token: Int, count: Int, fresh: bool) -> None:
    """Take a merge of `count` occurrences into account."""
    policy.numbers[MADE] += fresh
    policy.numbers[AGE] += 1
    if policy.frequency.size:
        policy.frequency[left] -= count
        policy.frequency[right] -= count
        policy.frequency[token] += count
        policy.numbers[LEFT], policy.numbers[RIGHT] = left, right


@inner
def _first_waiting(policy: Policy) -> Int:
    """Return the place in `waiting` of the most frequent scaffold token (ties: the smallest id), or -1."""
    first = -1
    for i in range(policy.numbers[SCAFFOLDS]):
        token = policy.waiting[i]
        if first < 0 or ((policy.frequency[token], -token) > (policy.frequency[policy.waiting[first]], -policy.waiting[first])):
            first = i
    return first


@inner
def _scaffold(pairs: Pairs, policy: Policy, pair: Int) -> Int:
    """Judge the parts of the last merge; take back a scaffold token that is at the head of the queue; else return `pair`."""
    head = pairs.counts[pair, 0] if pair >= 0 else 0
    first = _first_waiting(policy)
    if first >= 0:
        head = max(head, policy.frequency[policy.waiting[first]])
    for place in (LEFT, RIGHT):
        token = policy.numbers[place]
        if token >= policy.numbers[INITIAL] and not policy.marks[token] and policy.frequency[token] < head:
            policy.marks[token] = 1
            policy.waiting[policy.numbers[SCAFFOLDS]] = token
            policy.numbers[SCAFFOLDS] += 1
        policy.numbers[place] = -1
    if policy.numbers[MADE] - policy.numbers[SCAFFOLDS] >= policy.numbers[TARGET]:
        return DONE
    if first >= 0 and policy.frequency[policy.waiting[first]] == head and head >= policy.numbers[LEAST]:
        policy.marks[policy.waiting[first]] = 0
        policy.numbers[SCAFFOLDS] -= 1
        policy.waiting[first] = policy.waiting[policy.numbers[SCAFFOLDS]]
        return RECONSIDER
    return pair


@inner
def _bucket(count: Int) -> Int:
    """Return the bucket of a count: equal up to a sixteenth."""
    power = 0
    while count >= 32:
        count >>= 1
        power += 1
    return power * 16 + count


@inner
def _needed(pairs: Pairs, policy: Policy, column: Int, excess: float) -> float:
    """Return how many merges of pairs of this column take `excess` tokens away, most frequent first."""
    for bucket in range(BUCKETS):
        policy.buckets[bucket] = 0
    for i in range(pairs.heap_sizes[column]):
        count = pairs.counts[pairs.heap[column, i], column]
        if count > 0:
            policy.buckets[_bucket(count)] += 1
    merges = 0.0
    for bucket in range(BUCKETS - 1, 0, -1):
        found = policy.buckets[bucket]
        if found:
            power = max(bucket // 16 - 1, 0)
            each = float((bucket - power * 16) << power)
            if found * each >= excess:
                return merges + excess / each
            merges += found
            excess -= found * each
    return float(merges + excess / max(pairs.thresholds[column] - 1, 1))


@inner
def _column(pairs: Pairs, policy: Policy, now: Int64s) -> Int:
    """Return the column of counts in which the next pair is the most frequent: 0 for all groups together."""
    worst, ratio = -1, 1.0
    for group in range(policy.targets.size):
        if not policy.out[group] and now[group] / policy.targets[group] > ratio:
            worst, ratio = group, now[group] / policy.targets[group]
    if worst < 0:
        return 0
    if policy.numbers[AGE] >= FORECASTS:
        policy.numbers[AGE] = 0
        policy.forecast[1] = 0.0
        for group in range(policy.targets.size):
            if not policy.out[group] and now[group] > policy.targets[group]:
                policy.forecast[1] += _needed(pairs, policy, 1 + group, now[group] - policy.targets[group])
    to_come = policy.numbers[TARGET] - policy.numbers[MADE] + policy.numbers[SCAFFOLDS]
    if to_come > policy.forecast[0] * policy.forecast[1]:
        return 0
    policy.forecast[1] = max(policy.forecast[1] - 1.0, 0.0)
    return 1 + worst


@inner
def choose(pairs: Pairs, policy: Policy, now: Int64s) -> Int:
    """Return the pair to merge; or `NOTHING`: none in column `COLUMN` reaches its threshold; `RECONSIDER`; or `DONE`."""
    numbers = policy.numbers
    if policy.frequency.size == 0 and numbers[MADE] >= numbers[TARGET]:
        return np.int64(DONE)
    column = _column(pairs, policy, now)
    pair = best(pairs, column)
    if pair < 0:
        if pairs.thresholds[column] > numbers[LEAST] or column == 0:
            numbers[COLUMN] = column
            if policy.frequency.size == 0 or pairs.thresholds[column] > numbers[LEAST]:
                return np.int64(NOTHING)
        else:
            policy.out[column - 1] = 1
            return np.int64(RECONSIDER)
    if policy.frequency.size:
        return np.int64(_scaffold(pairs, policy, pair))
    return pair
