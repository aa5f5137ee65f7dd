"""Selections against a sort in plain Python: exact shares, ties, missing scores."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.selection import Threshold, TopShare, share_count

# Few distinct values, so that ties are the rule.
score = st.sampled_from([float("nan"), -math.inf, -1.5, -0.0, 0.0, 0.25, 1.0, 60000.0, math.inf])


@st.composite
def batches(draw):
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    scores = draw(st.lists(score, min_size=rows * length, max_size=rows * length))
    valid = draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    return np.array(scores, dtype).reshape(rows, length), np.array(valid).reshape(rows, length)


def slow_top(scores: list[float], valid: list[bool], keep: float, direction: str, missing: str) -> list[bool]:
    known = [place for place, s in enumerate(scores) if valid[place] and not math.isnan(s)]
    known.sort(key=lambda place: -scores[place] if direction == "high" else scores[place])  # stable: earlier wins
    count = int((Decimal(str(keep)) * len(known)).to_integral_value(ROUND_HALF_UP))
    chosen = set(known[:count])
    return [p in chosen or (missing == "keep" and valid[p] and math.isnan(s)) for p, s in enumerate(scores)]


@given(
    batches(),
    st.sampled_from([0.0, 0.1, 0.25, 0.35, 0.5, 0.6, 0.7, 1.0]),
    st.sampled_from(["batch", "sequence"]),
    st.sampled_from(["high", "low"]),
    st.sampled_from(["drop", "keep"]),
)
def test_top_share_equals_sorting(batch, keep, scope, direction, missing):
    scores, valid = batch
    mask = TopShare(keep=keep, scope=scope, direction=direction, missing=missing).mask(scores, valid)
    groups = [slice(None)] if scope == "batch" else [slice(row, row + 1) for row in range(len(scores))]
    for rows in groups:
        expected = slow_top(scores[rows].ravel().tolist(), valid[rows].ravel().tolist(), keep, direction, missing)
        assert mask[rows].ravel().tolist() == expected


@given(batches(), st.sampled_from([None, -1.5, 0.1]), st.sampled_from([None, 0.25, 1.0]), st.sampled_from(["drop", "keep"]))
def test_threshold(batch, low, high, missing):
    if low is None and high is None:
        low = 0.0
    scores, valid = batch
    mask = Threshold(low=low, high=high, missing=missing).mask(scores, valid)
    for place, value in np.ndenumerate(scores):
        number = float(value)
        passed = missing == "keep" if math.isnan(number) else (low is None or number >= low) and (high is None or number <= high)
        assert mask[place] == (passed and valid[place])


def test_threshold_compares_with_the_limit_as_written():
    """0.1 in float16 is 0.09998: below a limit of 0.1."""
    assert not Threshold(low=0.1).mask(np.array([[0.1]], np.float16), np.array([[True]]))[0, 0]


@pytest.mark.parametrize(
    ("keep", "total", "expected"), [(0.5, 5, 3), (0.35, 10, 4), (0.6, 0, 0), (0.29, 50, 15), (1.0, 7, 7), (0.6, 10**6, 600_000)]
)
def test_share_is_rounded_half_up_on_the_decimal(keep, total, expected):
    """0.35 * 10 and 0.29 * 50 are below the half in binary: the decimal as written counts."""
    assert share_count(keep, total) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopShare(keep=1.2), "keep is 1.2; allowed are 0.0 to 1.0"),
        (lambda: TopShare(keep=math.nan), "keep is nan"),
        (lambda: TopShare(scope="document"), "scope is 'document'; allowed are batch, sequence"),
        (lambda: TopShare(direction="up"), "direction is 'up'; allowed are high, low"),
        (lambda: Threshold(), "give low, high, or both"),
        (lambda: Threshold(low=2, high=1), "low is 2, above high"),
        (lambda: Threshold(low=2, missing="zero"), "missing is 'zero'; allowed are drop, keep"),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
