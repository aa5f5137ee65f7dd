"""Histograms of scores: bins that keep the order, sums in any order, cuts that select a share however many scores are equal."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.selection import bins, kernels
from gristmill.selection import histogram as hist
from gristmill.selection.histogram import Histogram, bins_of, count, cut_of, merge, starts_of, worst_of
from tests.random_examples import examples

SINGLES = st.floats(allow_nan=False, width=32)


def singles(values):
    return np.array(values, np.float32)


def rows(histogram):
    return [(int(number), *counts) for number, counts in zip(histogram.bins, histogram.counts.tolist(), strict=True)]


@examples(80)
@given(st.lists(SINGLES, min_size=2, max_size=20))
def test_bins_keep_the_order(values):
    ordered = singles(sorted(values))
    assert (np.diff(bins_of(ordered)) >= 0).all()
    assert bins_of(-ordered).tolist() == [-number for number in bins_of(ordered)]


def test_equal_bins_mean_equal_numbers_of_float16():
    """All 63,488 finite ones: what is stored as float16 is not made coarser."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.unique(halves[np.isfinite(halves)])  # one zero
    assert len(np.unique(bins_of(halves.astype(np.float32)))) == len(halves) == 63_487


def test_bins_are_a_4096th_of_an_octave():
    edges = 2.0 ** np.arange(-24, 20)
    for low, high in pairwise(edges):
        inside = np.linspace(low, high, 4096, endpoint=False, dtype=np.float32)
        assert (np.diff(bins_of(inside)) == 1).all()
    ends = bins_of(singles([0.0, -0.0, 1e-12, -1e-12, 1e30, np.inf, -1e30, -np.inf]))
    assert ends.tolist() == [0, 0, 0, 0, *[bins.MOST] * 2, *[-bins.MOST] * 2]


@examples(200)
@given(st.integers(1 - bins.MOST, bins.MOST))
def test_the_worst_score_of_a_bin_is_in_it_and_none_below(number):
    worst = np.float32(worst_of(number))
    assert bins_of(singles([worst])).tolist() == [number]
    assert number == 0 or bins_of(singles([np.nextafter(worst, np.float32(-np.inf))])).tolist() == [number - 1]


TOKENS = st.tuples(st.sampled_from([0.0, -1.5, 2.25, 2.2500001, 7.0, float("nan")]), st.integers(-1, 9), st.booleans())


def counted(tokens):
    """Return the histogram of tokens; those without a score are not counted."""
    scores = singles([score for score, _, _ in tokens])
    lengths, passed = np.array([size for _, size, _ in tokens], np.int32), np.array([mark for *_, mark in tokens], np.bool_)
    return count(scores, ~np.isnan(scores), lengths, passed)


@examples(40)
@given(st.lists(TOKENS, max_size=30), st.randoms(use_true_random=False))
def test_parts_in_any_order_add_up_to_a_slow_count_of_the_whole(tokens, random):
    expected: dict[int, Counter] = {}
    for score, size, passed in tokens:
        if score == score:
            bin_ = expected.setdefault(int(bins_of(singles([score]))[0]), Counter())
            bin_.update({0: 1, 1: max(size, 0), 2: passed, 3: max(size, 0) * passed})
    whole = [(number, *(bin_[i] for i in range(4))) for number, bin_ in sorted(expected.items())]
    assert rows(counted(tokens)) == whole
    cuts = sorted(random.choices(range(len(tokens) + 1), k=3))
    parts = [counted(tokens[low:high]) for low, high in pairwise([0, *cuts, len(tokens)])]
    assert rows(merge(parts)) == whole
    random.shuffle(parts)
    assert rows(merge([merge(parts[:2]), merge([]), merge(parts[2:])])) == whole


def test_without_lengths_and_marks_all_pass_and_have_no_bytes():
    scores = singles([1, 1, 2])
    assert [counts for _, *counts in rows(count(scores, np.ones(3, np.bool_)))] == [[2, 0, 2, 0], [1, 0, 1, 0]]


def select(scores, cut, direction, documents, lengths=hist.EMPTY):
    """Return which tokens of documents of equal lengths a cut selects."""
    bounds = np.linspace(0, len(scores), documents + 1).astype(np.int64)
    out = np.empty(len(scores), np.bool_)
    marks = np.ones(len(scores), np.bool_)
    starts = starts_of([f"document {number}" for number in range(documents)])
    bins, parts = np.full(documents, cut.bin), np.full(documents, cut.part)
    owed = np.empty(kernels.KINDS if len(lengths) else 1)
    kernels.above(scores.view(np.int32), marks, lengths, bounds, direction == "high", bins, parts, starts, owed, out)
    return out


def scores_of(kind, rng, size=60_000):
    made = {
        "smooth": lambda: rng.normal(1, 2, size),
        "five values": lambda: rng.integers(0, 5, size) / 4,
        "one value": lambda: np.full(size, 3.5),
        "half zero": lambda: np.where(rng.random(size) < 0.5, 0, rng.gamma(2, 2, size).astype(np.float16)),
    }
    return made[kind]().astype(np.float32)


@pytest.mark.parametrize("direction", ["high", "low"])
@pytest.mark.parametrize("unit", ["tokens", "bytes"])
@pytest.mark.parametrize("kind", ["smooth", "five values", "one value", "half zero"])
def test_the_share_is_within_a_tenth_of_a_point(kind, unit, direction):
    rng = np.random.default_rng(5)
    scores, lengths = scores_of(kind, rng), rng.integers(0, 12, 60_000).astype(np.int32)
    whole = count(scores, np.ones(len(scores), np.bool_), lengths)
    weights = lengths if unit == "bytes" else np.ones(len(scores), np.int32)
    for keep in (0.001, 0.1, 1 / 3, 0.6, 0.95, 1.0):
        cut = cut_of(whole, keep, unit, direction)
        chosen = select(scores, cut, direction, 50, lengths if unit == "bytes" else hist.EMPTY)
        assert abs(weights[chosen].sum() / weights.sum() - keep) < 0.001, keep
        for stated, real, total in zip(cut.kept, (chosen.sum(), lengths[chosen].sum()), cut.total, strict=True):
            assert abs(stated - real) < 0.002 * total, keep  # what the manifest says
        better = scores if direction == "high" else -scores
        left, kept = better[~chosen], better[chosen]
        assert not len(left) or left.max() <= kept.min() + abs(kept.min()) / 4096, "none beyond the bin of the edge is left"
        assert cut.total == (60_000, int(lengths.sum()))
        in_bin = bins_of(scores) == (cut.bin if direction == "high" else -cut.bin)
        assert cut.error == weights[in_bin].sum() / weights.sum()
        assert cut.error < 0.0005 or kind != "smooth"


def test_equal_scores_are_taken_evenly_in_each_document():
    """Within a token of the part, wherever the document lies; and not the same places in all."""
    scores = np.full(12_000, 2.0, np.float32)
    cut = cut_of(count(scores, np.ones(len(scores), np.bool_)), 0.3, "tokens", "high")
    assert (cut.part, cut.error) == (0.3, 1.0)
    chosen = select(scores, cut, "high", 400).reshape(400, 30)
    taken = chosen.sum(axis=1)
    assert set(taken.tolist()) == {9} or set(taken.tolist()) <= {8, 9, 10}
    assert abs(chosen.mean(axis=0) - 0.3).max() < 0.15, "each place in some documents"
    odd = select(np.full(400 * 7, 2.0, np.float32), cut, "high", 400).reshape(400, 7)
    assert set(odd.sum(axis=1).tolist()) == {2, 3} and abs(odd.mean() - 0.3) < 0.01, "2.1 of 7, on average"
    again = select(scores[:300], cut, "high", 10)
    assert np.array_equal(again, chosen[:10].ravel()), "what stands behind has no influence"


def test_of_equal_scores_long_tokens_are_taken_as_often_as_short_ones():
    """Also where the two take turns, so that every second token would be all of a kind."""
    scores, lengths = np.full(6000, 2.0, np.float32), np.tile(np.array([1, 9], np.int32), 3000)
    cut = cut_of(count(scores, np.ones(len(scores), np.bool_), lengths), 0.5, "bytes", "high")
    chosen = select(scores, cut, "high", 10, lengths).reshape(10, 600)
    assert abs(chosen[:, 0::2].sum(axis=1) - 150).max() <= 1 and abs(chosen[:, 1::2].sum(axis=1) - 150).max() <= 1


def test_ends_of_the_range():
    nothing = cut_of(Histogram(hist.EMPTY, np.zeros((0, 4), np.int64)), 0.5, "tokens", "high")
    assert (nothing.threshold, nothing.total, nothing.kept, nothing.error) == (None, (0, 0), (0.0, 0.0), 0.0)
    assert not select(singles([1, np.inf]), nothing, "high", 1).any()
    scores = singles([-np.inf, -3, 0, 5, np.inf])
    whole = count(scores, np.ones(5, np.bool_), np.array([1, 0, 2, 0, 0], np.int32))
    for unit in ("tokens", "bytes"):
        for direction in ("high", "low"):
            assert select(scores, cut_of(whole, 1.0, unit, direction), direction, 1).all(), "all, those without bytes too"
    assert select(scores, cut_of(whole, 0.4, "tokens", "high"), "high", 1).tolist() == [False, False, False, True, True]
    assert cut_of(whole, 0.4, "tokens", "high").threshold == 5.0
    assert select(scores, cut_of(whole, 0.4, "tokens", "low"), "low", 1).tolist() == [True, True, False, False, False]
    assert cut_of(whole, 0.4, "tokens", "low").threshold == -3.0


def test_starts_are_the_documents_own():
    starts = starts_of(["a", "b", "é", ""])
    assert ((starts > 0) & (starts <= 1)).all() and len(set(starts.tolist())) == 4
    assert starts_of(["é"])[0] == starts[2] and len(starts_of([])) == 0
    many = starts_of([str(number) for number in range(4000)])
    assert abs(np.sort(many) - np.linspace(0, 1, 4000)).max() < 0.03, "spread evenly"
