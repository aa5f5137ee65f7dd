"""Selections against plain Python over single tokens: exact shares, ties, missing scores, documents' pieces."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.reader.ranking import share_count, tail_count
from gristmill.reader.selection import Both, Quantile, SoftWeights, StoredMask, StoredWeights, Threshold, TopShare

NAN = float("nan")
# Few distinct values, so that ties are the rule; float16 rounds the last to another one than float32.
score = st.sampled_from([NAN, -math.inf, -1.5, -0.0, 0.0, 0.25, 1.0, 60000.0, math.inf, 0.1])
shares = st.sampled_from([0.0, 0.1, 0.25, 0.35, 0.5, 0.6, 0.7, 0.999])
scopes = st.sampled_from(["batch", "sequence", "document"])
directions = st.sampled_from(["high", "low"])
missings = st.sampled_from(["drop", "keep"])


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 12))

    def grid(elements):
        return np.array(draw(st.lists(elements, min_size=rows * length, max_size=rows * length))).reshape(rows, length)

    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    valid = grid(st.booleans()) if draw(st.integers(0, 9)) else np.zeros((rows, length), np.bool_)
    return grid(score).astype(dtype), valid, grid(st.sampled_from([False, False, False, True]))


def slow_groups(scope, starts):
    """Return the places, (row, position), of each group."""
    rows, length = starts.shape
    if scope == "batch":
        return [[(row, place) for row in range(rows) for place in range(length)]]
    groups = []
    for row in range(rows):
        for place in range(length):
            if place == 0 or (scope == "document" and starts[row, place]):
                groups.append([])
            groups[-1].append((row, place))
    return groups


def slow_mask(how, scores, valid, starts, choose):
    """Return the mask of what `choose` takes of each group's scored places, best first, and of missing ones as asked."""
    out = np.zeros(scores.shape, np.bool_)
    for group in slow_groups(how.scope, starts):
        known = [place for place in group if valid[place] and not math.isnan(scores[place])]
        sign = -1 if how.direction == "high" else 1
        known.sort(key=lambda place: sign * float(scores[place]))  # stable: the earlier of equals stays first
        for place in choose(known):
            out[place] = True
        for place in group:
            out[place] |= how.missing == "keep" and valid[place] and math.isnan(scores[place])
    return out


@given(batches(), shares, scopes, directions, missings)
def test_top_share_equals_sorting(batch, keep, scope, direction, missing):
    how = TopShare(keep=keep, scope=scope, direction=direction, missing=missing)
    scores, valid, starts = batch
    before = scores.copy()

    def choose(known):
        return known[: int((Decimal(str(keep)) * len(known)).to_integral_value(ROUND_HALF_UP))]

    mask = how.weigh([scores], valid, starts)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, slow_mask(how, scores, valid, starts, choose))
    np.testing.assert_array_equal(scores, before)


@given(batches(), shares, scopes, directions, missings)
def test_quantile_equals_its_definition(batch, alpha, scope, direction, missing):
    """The least score with at least alpha of all at or below it; everything from there up stays."""
    how = Quantile(column="loss", alpha=alpha, scope=scope, direction=direction, missing=missing)
    scores, valid, starts = batch
    sign = 1 if direction == "high" else -1

    def choose(known):
        values = [sign * float(scores[place]) for place in known]
        level = Decimal(str(alpha)) * len(known)
        quantile = min((v for v in values if sum(w <= v for w in values) >= level), default=0)
        return [place for place, value in zip(known, values, strict=True) if value >= quantile]

    np.testing.assert_array_equal(how.weigh([scores], valid, starts), slow_mask(how, scores, valid, starts, choose))


@given(batches(), st.sampled_from([None, -1.5, 0.1]), st.sampled_from([None, 0.25, 1.0]), missings)
def test_threshold(batch, low, high, missing):
    if low is None and high is None:
        low = 0.0
    scores, valid, _ = batch
    mask = Threshold(low=low, high=high, missing=missing).weigh([scores], valid, None)
    for place, value in np.ndenumerate(scores):
        number = float(value)
        passed = missing == "keep" if math.isnan(number) else (low is None or number >= low) and (high is None or number <= high)
        assert mask[place] == (passed and valid[place])


def test_threshold_compares_with_the_limit_as_written():
    """0.1 in float16 is 0.09998: below a limit of 0.1."""
    assert not Threshold(low=0.1).weigh([np.array([[0.1]], np.float16)], np.array([[True]]), None)[0, 0]


@given(
    batches(),
    st.sampled_from([-1.0, 0.0, 0.25]),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    directions,
)
def test_soft_weights_are_a_sigmoid(batch, centre, temperature, floor, direction):
    scores, valid, _ = batch
    how = SoftWeights(centre=centre, temperature=temperature, floor=floor, direction=direction)
    weights = how.weigh([scores], valid, None)
    assert weights.dtype == np.float32
    for place, value in np.ndenumerate(scores):
        at = (float(value) - centre) / temperature * (1 if direction == "high" else -1)
        expected = floor + (1 - floor) / (1 + math.exp(min(-at, 700.0)))
        expected = expected if valid[place] and not math.isnan(value) else 0.0
        assert weights[place] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(batches(), st.sampled_from([0.2, 1.0, 1e6]), missings)
def test_stored_weights_are_cut_to_their_range(batch, highest, missing):
    scores, valid, _ = batch
    weights = StoredWeights(column="w", highest=highest, missing=missing).weigh([scores], valid, None)
    assert weights.dtype == np.float32
    for place, value in np.ndenumerate(scores):
        expected = float(missing == "keep") if math.isnan(value) else min(max(float(value), 0.0), highest)
        assert weights[place] == np.float32(expected if valid[place] else 0.0)


def test_stored_weights_without_a_limit():
    valid = np.array([[True, True, True]])
    scores = np.array([[2.5, -1.0, NAN]], np.float16)
    assert StoredWeights().weigh([scores], valid, None).tolist() == [[2.5, 0.0, 0.0]]
    with pytest.raises(ValueError, match="column 'weight' has an infinite weight; set highest"):
        StoredWeights().weigh([np.array([[2.5, math.inf, 0.0]], np.float16)], valid, None)


def test_stored_mask_is_taken_as_it_is():
    mask, valid = np.array([[True, False, True]]), np.array([[True, True, False]])
    assert StoredMask(column="clean").weigh([mask], valid, None).tolist() == [[True, False, False]]
    with pytest.raises(ValueError, match="column 'clean' is float16, not bool"):
        StoredMask(column="clean").weigh([mask.astype(np.float16)], valid, None)


@given(batches(), batches(), shares)
def test_both_is_what_each_takes_by_itself(batch, other, keep):
    """Rho-1's self-reference: low loss and low entropy, each its share of all tokens."""
    scores, valid, _ = batch
    second = np.resize(other[0], scores.shape)
    loss, entropy = (TopShare(column=name, keep=keep, direction="low") for name in ("ref_loss", "entropy"))
    how = Both(loss, entropy, Threshold(column="ref_loss", low=-2.0))
    assert how.columns == ("ref_loss", "entropy")
    expected = loss.weigh([scores], valid, None) & entropy.weigh([second], valid, None) & ~(scores < -2.0)
    mask = how.weigh([scores, second], valid, None)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, expected)


def test_both_multiplies_weights():
    scores, valid = np.array([[0.5, 2.0, 3.0, NAN]], np.float32), np.array([[True, True, False, True]])
    how = Both(StoredWeights(column="w"), Threshold(column="w", low=1.0), StoredWeights(column="w", highest=1.5))
    weights = how.weigh([scores], valid, None)
    assert weights.dtype == np.float32
    assert weights.tolist() == [[0.0, 3.0, 0.0, 0.0]]


def test_scope_of_both_is_the_widest():
    narrow, document, batch = Threshold(low=0), TopShare(scope="document"), TopShare(scope="batch")
    assert Both(narrow, narrow).scope == "sequence"
    assert Both(narrow, document).scope == "document"
    assert Both(batch, narrow, TopShare(scope="sequence")).scope == "batch"


@pytest.mark.parametrize("scope", ["sequence", "document"])
def test_many_groups_of_each_width(scope):
    """40,000 groups: more than 32-bit integers can hold beside float16 keys."""
    rng = np.random.default_rng(0)
    scores, valid = rng.normal(size=(40_000, 3)).astype(np.float16), rng.random((40_000, 3)) < 0.8
    starts = rng.random((40_000, 3)) < 0.2
    masks = [
        TopShare(keep=0.5, scope=scope).weigh([scores.astype(t)], valid, starts) for t in (np.float16, np.float32, np.float64)
    ]
    assert all(np.array_equal(mask, masks[0]) for mask in masks)
    parts = [
        TopShare(keep=0.5, scope=scope).weigh([scores[i : i + 1000]], valid[i : i + 1000], starts[i : i + 1000])
        for i in range(0, 40_000, 1000)
    ]
    np.testing.assert_array_equal(masks[0], np.concatenate(parts))


@pytest.mark.parametrize(
    ("keep", "total", "expected"), [(0.5, 5, 3), (0.35, 10, 4), (0.6, 0, 0), (0.29, 50, 15), (1.0, 7, 7), (0.6, 10**6, 600_000)]
)
def test_share_is_rounded_half_up_on_the_decimal(keep, total, expected):
    """0.35 * 10 and 0.29 * 50 are below the half in binary: the decimal as written counts."""
    assert share_count(keep, total) == expected


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.29, 0.6, 0.9999])
def test_tail_of_distinct_scores(alpha):
    """0.29 * 100 is above 29 in binary: one too few would remain."""
    for total in (1, 7, 100, 10_000):
        below = int((Decimal(str(alpha)) * total).to_integral_value(ROUND_CEILING)) - 1
        assert tail_count(alpha, total) == total - max(below, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopShare(keep=1.2), "keep is 1.2; allowed are 0.0 to 1.0"),
        (lambda: TopShare(keep=math.nan), "keep is nan"),
        (lambda: TopShare(scope="shard"), "scope is 'shard'; allowed are batch, sequence, document"),
        (lambda: TopShare(direction="up"), "direction is 'up'; allowed are high, low"),
        (lambda: Quantile(alpha=1.0), "alpha is 1.0; allowed are 0.0 to below 1.0"),
        (lambda: Quantile(alpha=-0.1), "alpha is -0.1"),
        (lambda: Quantile(scope="all"), "scope is 'all'; allowed are batch"),
        (lambda: Threshold(), "give low, high, or both"),
        (lambda: Threshold(low=2, high=1), "low is 2, above high"),
        (lambda: Threshold(low=NAN), "low is nan; give a number"),
        (lambda: Threshold(low=2, missing="zero"), "missing is 'zero'; allowed are drop, keep"),
        (lambda: SoftWeights(temperature=0), "temperature is 0; allowed are numbers above 0"),
        (lambda: SoftWeights(centre=math.inf), "centre is inf; allowed are finite numbers"),
        (lambda: SoftWeights(floor=2), "floor is 2; allowed are 0.0 to 1.0"),
        (lambda: StoredWeights(highest=0), "highest is 0; allowed are numbers above 0"),
        (lambda: Both(Threshold(low=0)), "1 selections; give two or more"),
        (lambda: Both(TopShare(), TopShare(scope="document")), "one part has scope batch and another scope document"),
        (
            lambda: TopShare().weigh([np.ones((1, 2), np.bool_)], np.ones((1, 2), np.bool_), None),
            "'excess' is bool; it takes float16",
        ),
        (lambda: TopShare(scope="document").weigh([np.ones((1, 2))], np.ones((1, 2), np.bool_), None), "starts is None"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
