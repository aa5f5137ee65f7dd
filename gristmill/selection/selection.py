"""From what models say of tokens to what a policy selects: pure functions on flat arrays.

    signals of tokens → scores of each gate → histograms (of the gates whose share is of many documents) → cuts → mask or weights

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

from gristmill.selection import histogram
from gristmill.selection.histogram import EMPTY, Cut, Histogram
from gristmill.selection.policy import Gate, Policy

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
    that gives a mask. `candidates`: bool [tokens], which had all signals. `scores`: of each gate, see `scores_of`.
    """

    selected: Marks
    weight: Singles | None
    candidates: Marks
    scores: list[Singles]


def scores_of(gate: Gate | Policy, tokens: Tokens) -> Singles:
    """Return the score of each token: float32, nats or nats a byte, NaN where a signal is missing.

    The terms are added in float64, in their order, whatever type the signals have.
    """
    total = np.zeros(int(tokens.bounds[-1]), np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite losses: their difference is missing
        for term in gate.score:
            total += term.weight * tokens.signals[term.model, term.signal].astype(np.float64)
        if gate.per == "byte":
            assert tokens.lengths is not None, "a score per byte needs the lengths of the tokens"
            total /= np.maximum(tokens.lengths, 1)
        return total.astype(np.float32)


def scores_of_gates(policy: Policy, tokens: Tokens) -> tuple[list[Singles], Marks]:
    """Return the scores of each gate, and which tokens are candidates: those with all of them."""
    scores = [scores_of(gate, tokens) for gate in policy.gates()]
    candidates = np.ones(int(tokens.bounds[-1]), np.bool_)
    for each in scores:
        candidates &= ~np.isnan(each)
    return scores, candidates


def decided(policy: Policy, tokens: Tokens, scores: Sequence[Singles], candidates: Marks) -> Marks:
    """Return which candidates pass all gates that need no cut: thresholds, and shares of a document or less."""
    passed = candidates.copy()
    for gate, score in zip(policy.gates(), scores, strict=True):
        if not gate.pooled:
            passed &= _decide(gate, tokens, score, candidates)[0]
    return passed


def count(gate: Gate, tokens: Tokens, score: Singles, candidates: Marks, passed: Marks) -> dict[int, Histogram]:
    """Return the histogram of a gate whose share is of many documents, by group: `ALL`, or the shard."""
    if gate.scope == "global":
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
        cuts: for each of `policy.gates()` its cut by group (see `count`); None for those that need none.
    """
    scores, candidates = scores_of_gates(policy, tokens)
    selected = candidates.copy()
    weight = candidates.astype(np.float32) if policy.weighs else None
    for gate, score, cut in zip(policy.gates(), scores, cuts, strict=True):
        if cut is None:
            passed, edges = _decide(gate, tokens, score, candidates)
        else:
            passed, edges = _cut(gate, tokens, score, candidates, cut)
        selected &= passed
        if weight is not None:
            weight *= passed if gate.soft is None else _soft(gate, score, edges)
    if weight is not None:
        weight[~candidates] = 0.0
    return Judged(selected, weight, candidates, scores)


def judge(policy: Policy, tokens: Tokens) -> Judged:
    """Return what a policy selects of tokens that are all there is: its shares are of these."""
    scores, candidates = scores_of_gates(policy, tokens)
    cuts: list[Mapping[int, Cut] | None] = []
    for gate, score in zip(policy.gates(), scores, strict=True):
        if not gate.pooled:
            cuts.append(None)
            continue
        assert gate.keep is not None
        groups = count(gate, tokens, score, candidates, candidates)
        cuts.append({group: histogram.cut_of(each, gate.keep, gate.unit, gate.direction) for group, each in groups.items()})
    return select_of(policy, tokens, cuts)


def _decide(gate: Gate, tokens: Tokens, score: Singles, candidates: Marks) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return which candidates pass a gate that needs no cut, and the score at the edge for each token (or for all)."""
    if gate.threshold is not None:
        wide = score.astype(np.float64)  # the limit is compared as it is written
        return candidates & (wide > gate.threshold if gate.direction == "high" else wide <= gate.threshold), _one(gate.threshold)
    return _share_of_groups(gate, tokens, score, candidates)


def _share_of_groups(gate: Gate, tokens: Tokens, score: Singles, candidates: Marks) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return the best of each document or sequence, and the score at the edge for each token."""
    from gristmill.selection import kernels

    assert gate.keep is not None
    bounds = tokens.bounds if gate.sequence_tokens is None else pieces(tokens.bounds, gate.sequence_tokens)
    lengths = EMPTY
    if gate.unit == "bytes":
        assert tokens.lengths is not None, "a share of bytes needs the lengths of the tokens"
        lengths = tokens.lengths
    groups = np.repeat(np.arange(len(bounds) - 1, dtype=np.int32), np.diff(bounds))
    totals = np.empty(len(bounds) - 1, np.int64)
    kernels.totals(candidates, lengths, bounds, totals)
    share = Fraction(repr(float(gate.keep)))  # exact, on the decimal as it is written
    doubled = np.array([2 * share.numerator * total // share.denominator for total in totals.tolist()], np.int64)
    ranked = np.empty(len(score), np.uint64)
    written = kernels.keys(score.view(np.int32), candidates, gate.direction == "high", ranked)
    ranked = np.sort(ranked[:written])
    passed, edges = np.zeros(len(score), np.bool_), np.full(len(totals), -1, np.int32)
    kernels.take(ranked, groups, lengths, doubled, np.zeros(len(totals), np.int64), passed, edges)
    at_edge = np.append(score, np.float32(np.nan))[edges].astype(np.float64)  # −1: a group without a candidate
    return passed, at_edge[groups]


def _cut(
    gate: Gate, tokens: Tokens, score: Singles, candidates: Marks, cuts: Mapping[int, Cut]
) -> tuple[Marks, npt.NDArray[np.float64]]:
    """Return which candidates are beyond the cut of their group, and the score at the edge for each token."""
    from gristmill.selection import kernels

    documents = len(tokens.bounds) - 1
    if gate.scope == "global":
        own = [cuts[ALL]] * documents
    else:
        assert tokens.shards is not None, "a share of a shard needs the shards of the documents"
        own = [cuts.get(shard, histogram.NO_CUT) for shard in tokens.shards.tolist()]  # one where no token has a score has none
        counted = np.isin(tokens.shards, np.fromiter(cuts, np.uint64, len(cuts)))
        assert not candidates[np.repeat(~counted, np.diff(tokens.bounds))].any(), "select: a shard that was not counted"
    out = np.empty(len(score), np.bool_)
    lengths = tokens.lengths if gate.unit == "bytes" else None
    kernels.above(
        score.view(np.int32),
        candidates,
        EMPTY if lengths is None else lengths,
        tokens.bounds,
        gate.direction == "high",
        np.array([cut.bin for cut in own], np.int64),
        np.array([cut.part for cut in own], np.float64),
        tokens.starts,
        np.empty(1 if lengths is None else kernels.KINDS),
        out,
    )
    edges = np.array([np.nan if cut.threshold is None else cut.threshold for cut in own], np.float64)
    return out, np.repeat(edges, np.diff(tokens.bounds))


def _soft(gate: Gate, score: Singles, edges: npt.NDArray[np.float64]) -> Singles:
    """Return the weights: 1 / (1 + exp(−(score − edge) / soft)), by tanh, which has no overflow."""
    assert gate.soft is not None
    half = 0.5 / gate.soft if gate.direction == "high" else -0.5 / gate.soft
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
