"""From what models say of tokens to what a policy selects: pure functions on flat arrays.

    signals of tokens → scores of each test → histograms (of the tests whose share is of many documents) → cuts → mask or weights

`judge` does it all for tokens that are in memory; the stage `select` counts histograms in one pass and applies cuts in another.
Arrays are flat, one document after the other; `bounds`, int64 [documents + 1], says where documents begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.score import histogram
from stages.score import selection_kernels as kernels
from stages.score.histogram import EMPTY, Cut, Histogram
from stages.score.policy import Policy, Test

Singles = npt.NDArray[np.float32]
Marks = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Values = Mapping[tuple[str, str], npt.NDArray[np.floating[Any]]]

ALL: int = 0  # the group of a scope that spans everything


@dataclass(frozen=True)
class Tokens:
    """Tokens with what is known of them.

    `signals`: (model, "nll" or "entropy") → floats [tokens], NaN where there is none. `bounds`: see above. `starts`:
    `histogram.starts_of` the documents' ids. `lengths`: int32 [tokens], bytes of each; None when no policy asks for them.
    `shards`: [documents], a number for the input that each is from, for scope `shard`.
    """

    signals: Values
    bounds: Ints
    starts: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int32] | None = None
    shards: npt.NDArray[np.uint64] | None = None


@dataclass(frozen=True)
class Judged:
    """What a policy makes of tokens.

    `selected`: bool [tokens]; of a soft policy, where its weight is at least a half. `weight`: float32 [tokens], None of a policy
    that gives a mask. `candidates`: bool [tokens], which had all signals.
    """

    selected: Marks
    weight: Singles | None
    candidates: Marks


def scores_of(test: Test | Policy, tokens: Tokens) -> Singles:
    """Return the score of each token: float32, nats or nats a byte, NaN where a signal is missing.

    The terms are added in float64, in their order, whatever type the signals have.
    """
    size = int(tokens.bounds[-1])
    total = np.zeros(size, np.float64)
    for term in test.score:
        total += term.weight * tokens.signals[term.model, term.signal].astype(np.float64)
    if test.per == "byte":
        assert tokens.lengths is not None, "a score per byte needs the lengths of the tokens"
        total /= np.maximum(tokens.lengths, 1)
    with np.errstate(over="ignore"):
        return total.astype(np.float32)


def scores_of_tests(policy: Policy, tokens: Tokens) -> tuple[list[Singles], Marks]:
    """Return the scores of each test, and which tokens are candidates: those with all of them."""
    scores = [scores_of(test, tokens) for test in policy.tests()]
    candidates = np.ones(int(tokens.bounds[-1]), np.bool_)
    for each in scores:
        candidates &= ~np.isnan(each)
    return scores, candidates


def decided(policy: Policy, tokens: Tokens, scores: Sequence[Singles], candidates: Marks) -> Marks:
    """Return which candidates pass all tests that need no cut: thresholds, and shares of a document or less."""
    passed = candidates.copy()
    for test, score in zip(policy.tests(), scores, strict=True):
        if not test.pooled:
            passed &= _decide(test, tokens, score, candidates)[0]
    return passed


def count(test: Test, tokens: Tokens, score: Singles, candidates: Marks, passed: Marks) -> dict[int, Histogram]:
    """Return the histogram of a test whose share is of many documents, by group: `ALL`, or the shard."""
    if test.scope == "global":
        return {ALL: histogram.count(score, candidates, tokens.lengths, passed)}
    found = {}
    for shard, places in _by_shard(tokens):
        lengths = None if tokens.lengths is None else tokens.lengths[places]
        found[shard] = histogram.count(score[places], candidates[places], lengths, passed[places])
    return found


def select_of(policy: Policy, tokens: Tokens, cuts: Sequence[Mapping[int, Cut] | None]) -> Judged:
    """Return what a policy selects.

    Args:
        policy: not `online`.
        tokens: some documents.
        cuts: for each of `policy.tests()` its cut by group (see `count`); None for those that need none.
    """
    scores, candidates = scores_of_tests(policy, tokens)
    selected = candidates.copy()
    weight = candidates.astype(np.float32) if policy.weighs else None
    for test, score, cut in zip(policy.tests(), scores, cuts, strict=True):
        if cut is None:
            passed, edges = _decide(test, tokens, score, candidates)
        else:
            passed, edges = _cut(test, tokens, score, candidates, cut)
        selected &= passed
        if weight is not None:
            weight *= passed if test.soft is None else _soft(test, score, edges)
    if weight is not None:
        weight[~candidates] = 0.0
    return Judged(selected, weight, candidates)


def judge(policy: Policy, tokens: Tokens) -> Judged:
    """Return what a policy selects of tokens that are all there is: its shares are of these."""
    scores, candidates = scores_of_tests(policy, tokens)
    cuts: list[Mapping[int, Cut] | None] = []
    for test, score in zip(policy.tests(), scores, strict=True):
        if not test.pooled:
            cuts.append(None)
            continue
        assert test.keep is not None
        groups = count(test, tokens, score, candidates, candidates)
        cuts.append({group: histogram.cut_of(each, test.keep, test.unit, test.direction) for group, each in groups.items()})
    return select_of(policy, tokens, cuts)


def _decide(test: Test, tokens: Tokens, score: Singles, candidates: Marks) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return which candidates pass a test that needs no cut, and the score at the edge for each token (or for all)."""
    if test.threshold is not None:
        wide = score.astype(np.float64)  # the limit is compared as it is written
        return candidates & (wide > test.threshold if test.direction == "high" else wide <= test.threshold), _one(test.threshold)
    return _share_of_groups(test, tokens, score, candidates)


def _share_of_groups(test: Test, tokens: Tokens, score: Singles, candidates: Marks) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return the best of each document or sequence, and the score at the edge for each token."""
    assert test.keep is not None
    bounds = tokens.bounds if test.sequence_tokens is None else pieces(tokens.bounds, test.sequence_tokens)
    lengths = EMPTY
    if test.unit == "bytes":
        assert tokens.lengths is not None, "a share of bytes needs the lengths of the tokens"
        lengths = tokens.lengths
    groups = np.repeat(np.arange(len(bounds) - 1, dtype=np.int32), np.diff(bounds))
    totals = np.empty(len(bounds) - 1, np.int64)
    kernels.totals(candidates, lengths, bounds, totals)
    share = Fraction(repr(float(test.keep)))  # exact, on the decimal as it is written
    doubled = np.array([2 * share.numerator * total // share.denominator for total in totals.tolist()], np.int64)
    ranked = np.empty(len(score), np.uint64)
    written = kernels.keys(score.view(np.int32), candidates, test.direction == "high", ranked)
    ranked = np.sort(ranked[:written])
    passed, edges = np.zeros(len(score), np.bool_), np.full(len(totals), -1, np.int32)
    kernels.take(ranked, groups, lengths, doubled, np.zeros(len(totals), np.int64), passed, edges)
    at_edge = np.append(score, np.float32(np.nan))[edges].astype(np.float64)  # −1: a group without a candidate
    return passed, at_edge[groups]


def _cut(
    test: Test, tokens: Tokens, score: Singles, candidates: Marks, cuts: Mapping[int, Cut]
) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return which candidates are beyond the cut of their group, and the score at the edge for each token."""
    documents = len(tokens.bounds) - 1
    if test.scope == "global":
        own = [cuts[ALL]] * documents
    else:
        assert tokens.shards is not None, "a share of a shard needs the shards of the documents"
        own = [cuts[shard] for shard in tokens.shards.tolist()]
    out = np.empty(len(score), np.bool_)
    lengths = tokens.lengths if test.unit == "bytes" else None
    kernels.above(
        score.view(np.int32),
        candidates,
        EMPTY if lengths is None else lengths,
        tokens.bounds,
        test.direction == "high",
        np.array([cut.bin for cut in own], np.int64),
        np.array([cut.part for cut in own], np.float64),
        tokens.starts,
        out,
    )
    edges = np.array([np.nan if cut.threshold is None else cut.threshold for cut in own], np.float64)
    return out, np.repeat(edges, np.diff(tokens.bounds))


def _soft(test: Test, score: Singles, edges: npt.NDArray[np.float64]) -> Singles:
    """Return the weights: 1 / (1 + exp(−(score − edge) / soft)), by tanh, which has no overflow."""
    assert test.soft is not None
    half = 0.5 / test.soft if test.direction == "high" else -0.5 / test.soft
    with np.errstate(invalid="ignore", over="ignore"):
        return (0.5 + 0.5 * np.tanh((score.astype(np.float64) - edges) * half)).astype(np.float32)


def pieces(bounds: Ints, size: int) -> Ints:
    """Return where the pieces of `size` tokens of each document begin, and where the last ends."""
    lengths = np.diff(bounds)
    counts = -(-lengths // size)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(bounds[:-1], counts) + (np.arange(int(counts.sum())) - first) * size
    return np.append(begins, bounds[-1]).astype(np.int64)


def _by_shard(tokens: Tokens) -> list[tuple[int, npt.NDArray[np.intp]]]:
    """Return the places of the tokens of each shard."""
    assert tokens.shards is not None, "a share of a shard needs the shards of the documents"
    of_token = np.repeat(tokens.shards, np.diff(tokens.bounds))
    return [(int(shard), np.flatnonzero(of_token == shard)) for shard in np.unique(tokens.shards)]


def _one(value: float) -> npt.NDArray[np.float64]:
    return np.full(1, value)
