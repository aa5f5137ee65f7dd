"""The linear program of mixture inference: which weights of the groups make each merge the most frequent pair of its time.

Reads the counts of pairs over time (`pair_counts.py`), gives a weight for each group. Hayase et al. 2024, arXiv 2407.16607,
section 3; scipy's HiGHS solves it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.tokenizer.measuring.pair_counts import History
from gristmill.tokenizer.progress import Progress, silent

ROUND = 4000  # constraints added at once
IDLE_ROUNDS = 3  # a constraint that did not bind for so long is left out again
DROPPING_ROUNDS = 50  # after these none is left out, so that it comes to an end
GAP = 0.005  # of the least slack: close enough


@dataclass(frozen=True)
class Solution:
    """`shares`: float64 [groups], sum 1. `slack`: the least sum of slacks, as a share of the counts of all merged pairs."""

    shares: np.ndarray
    slack: float


@dataclass(frozen=True)
class _Chosen:
    """Constraints: row `rows[i]` of the history at merge `times[i]`, which did not bind for `idle[i]` rounds."""

    rows: np.ndarray
    times: np.ndarray
    idle: np.ndarray

    def with_(self, rows: np.ndarray, times: np.ndarray) -> _Chosen:
        joined = (np.concatenate(pair) for pair in ((self.rows, rows), (self.times, times), (self.idle, np.zeros_like(rows))))
        return _Chosen(*joined)

    def where(self, kept: np.ndarray) -> _Chosen:
        return _Chosen(self.rows[kept], self.times[kept], self.idle[kept])


@dataclass(frozen=True)
class _Point:
    """A solution of the chosen constraints: shares [groups], slack by merge and by pair, and the sum of slacks."""

    shares: np.ndarray
    by_merge: np.ndarray
    by_pair: np.ndarray
    total: float


def solve(found: History, progress: Progress = silent) -> Solution:
    """Return the shares that need the least slack.

    With shares a, at each merge t and for each pair p: a·c[p, t] - a·c[merged, t] <= v[t] + u[p], and the sum of all v and u is
    least: v is the slack of a merge that nothing explains, u that of a pair which is commoner here than it was there. A merge
    of a pair that no group has says nothing about their shares: it has no constraints. Constraints are added where they are
    violated, until those that are not there could not matter.

    Args:
        found: counts by the same amount of text of each group.
        progress: called with the number of constraints.
    """
    seen = np.asarray(found.merged.any(axis=1))
    whole = float(found.merged.mean(axis=1).sum())
    pairs = int(found.pair.max(initial=0)) + 1
    groups = found.merged.shape[1]
    point = _Point(np.full(groups, 1 / groups), np.zeros(len(seen)), np.zeros(pairs), 0.0)
    none = np.zeros(0, np.int64)
    chosen = _Chosen(none, none, none)
    number = 0
    while True:
        over, at = _violations(found, point, seen)
        if _missing(over, at, found.pair) <= GAP * point.total + 1e-5 * whole:
            return Solution(point.shares / point.shares.sum(), point.total / whole if whole else 0.0)
        worst = np.flatnonzero(over > 0)
        worst = worst[np.argsort(-over[worst], kind="stable")[:ROUND]]
        chosen = chosen.with_(worst, at[worst])
        point, idle = _solve(found, chosen, pairs)
        chosen = _Chosen(chosen.rows, chosen.times, np.where(idle, chosen.idle + 1, 0))
        number += 1
        if number < DROPPING_ROUNDS:
            chosen = chosen.where(chosen.idle < IDLE_ROUNDS)
        progress("solve the linear program", number, 0, "rounds")


def _violations(found: History, point: _Point, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each row is over what is allowed, where it is least allowed, and at which merge that is."""
    allowed = np.where(seen, found.merged @ point.shares + point.by_merge, np.inf)
    bound, at = least(allowed, found.begin, found.end)
    over = found.counts @ point.shares - bound - point.by_pair[found.pair]
    return np.maximum(over, 0), at


def _missing(over: np.ndarray, at: np.ndarray, pair: np.ndarray) -> float:
    """Return slack that would be enough for all violations: each merge's worst, or each pair's."""
    by_merge, by_pair = np.zeros(int(at.max(initial=0)) + 1), np.zeros(int(pair.max(initial=0)) + 1)
    np.maximum.at(by_merge, at, over)
    np.maximum.at(by_pair, pair, over)
    return float(min(by_merge.sum(), by_pair.sum()))


def _solve(found: History, chosen: _Chosen, pairs: int) -> tuple[_Point, np.ndarray]:
    """Return the best point for these constraints, and which of them do not bind.

    Solved as the dual, which has few rows and is several times faster: a number for each constraint, such that those of a
    merge, and those of a pair, sum to one at most, and the least gain over all groups (the last unknown) is greatest.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, hstack, vstack

    count, groups = len(chosen.rows), found.merged.shape[1]
    unit = float(found.merged.max())  # numbers near 1 are what the solver's tolerances are made for
    excess = (found.counts[chosen.rows] - found.merged[chosen.times]) / unit
    merges, merge = np.unique(chosen.times, return_inverse=True)
    places, place = np.unique(found.pair[chosen.rows], return_inverse=True)
    parts = [hstack([csr_array(-excess.T), csr_array(np.ones((groups, 1)))])]
    for index, size in ((merge, len(merges)), (place, len(places))):
        parts.append(coo_array((np.ones(count), (index, np.arange(count))), shape=(size, count + 1)))
    limits = np.concatenate([np.zeros(groups), np.ones(len(merges) + len(places))])
    result = linprog(
        np.concatenate([np.zeros(count), [-1.0]]),
        A_ub=vstack(parts, format="csr"),
        b_ub=limits,
        bounds=np.array([(0, np.inf)] * count + [(-np.inf, np.inf)]),
        method="highs",
    )
    assert result.status == 0, result.message
    shares, by_merge, by_pair = np.split(-result.ineqlin.marginals, [groups, groups + len(merges)])
    point = _Point(shares, np.zeros(len(found.merged)), np.zeros(pairs), -result.fun * unit)
    point.by_merge[merges], point.by_pair[places] = by_merge * unit, by_pair * unit
    idle = excess @ shares - by_merge[merge] - by_pair[place] < -1e-7
    return point, idle


def least(values: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least of values[begin:end], and where it is first, for each range; no range is empty.

    Args:
        values: float64.
        begin: int64 [ranges].
        end: int64 [ranges].
    """
    level = np.frexp((end - begin).astype(float))[1] - 1  # of the largest power of two that fits
    at = np.empty(len(begin), np.int64)
    row = np.arange(len(values))  # where values[i : i + 2**each] is least
    for each in range(len(values).bit_length()):
        mine = np.flatnonzero(level == each)
        left, right = row[begin[mine]], row[end[mine] - (1 << each)]
        at[mine] = np.where(values[right] < values[left], right, left)
        left, right = row[: -(1 << each)], row[1 << each :]
        row = np.where(values[right] < values[left], right, left)
    return values[at], at
