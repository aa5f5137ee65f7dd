"""Upsampling: the curve against integrals by quadrature and the published search, and fractions rounded to the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.selection.upsampling import BINS, area, bins_of, rates_of, rounded, solve
from tests.random_examples import examples

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)


def integral(low: float, high: float, power: float, growth: float) -> float:
    """Integrate x^p e^(λx) by quadrature, with x = t^4 so that the curve is smooth at 0."""
    a, b = low**0.25, high**0.25
    t = a + (b - a) * (NODES + 1) / 2
    return float((WEIGHTS * t ** (4 * power + 3) * np.exp(growth * t**4)).sum() * 4 * (b - a) / 2)


@given(st.floats(0, 1), st.floats(0, 5), st.floats(0, 2))
@examples(50)
def test_areas_are_those_of_quadrature(x, power, growth):
    assert area(np.array([x]), power, growth)[0] == pytest.approx(integral(0, x, power, growth), rel=1e-7, abs=1e-12)


def published(budget: float, cap: float, width: float, top: float) -> tuple[float, float, float] | None:
    """Search as dolma3 does: of 20 powers the highest that fits, with the largest growth that does; by quadrature."""
    best = None
    for power in np.linspace(0, 5, 20):

        def tail(growth: float, power: float = power) -> float:
            scale = budget / integral(0, width, power, growth)
            return scale * integral(width - top, width, power, growth) / top

        low, high = 0.01, 2.0
        if tail(low) > cap:
            continue
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if tail(middle) <= cap else (low, middle)
        best = (power, low, budget / integral(0, width, power, low))
    return best


@pytest.mark.parametrize(
    ("budget", "cap", "zero_below"), [(1.2, 7, 0.4), (0.3, 7, 0.4), (2.5, 7, 0.4), (4.0, 7, 0.4), (1.0, 2, 0.0), (3, 3.2, 0.05)]
)
def test_curves_are_those_of_dolma_3(budget, cap, zero_below):
    curve = solve(budget, cap, zero_below)
    expected = published(budget, cap, 1 - zero_below, 0.05)
    assert expected is not None
    assert (curve.power, curve.growth, curve.scale) == pytest.approx(expected, rel=1e-5)
    dropped = round(zero_below * 20)
    means = [curve.scale * integral(at / 20, (at + 1) / 20, curve.power, curve.growth) * 20 for at in range(20 - dropped)]
    assert curve.means.tolist() == pytest.approx([0.0] * dropped + means, rel=1e-6)


@given(st.floats(0.01, 8), st.floats(0.5, 12), st.sampled_from([0, 0.1, 0.4, 0.77]), st.integers(2, 60))
@examples(60)
def test_a_curve_gives_the_budget_below_its_cap_or_says_that_none_can(budget, cap, zero_below, slices):
    dropped = int(zero_below * slices + 1e-9)
    if budget > cap * (slices - dropped) / slices * (1 + 1e-9):
        with pytest.raises(ValueError, match=r"the budget is .* of what there is, but a cap of .* allows"):
            solve(budget, cap, zero_below, slices)
        return
    means = solve(budget, cap, zero_below, slices).means
    assert means.mean() == pytest.approx(budget, rel=1e-9)
    assert means.max() <= cap * (1 + 1e-9)
    assert (means[:dropped] == 0).all() and (np.diff(means) >= -1e-12).all()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60).filter(any), st.integers(2, 20))
@examples(60)
def test_rates_give_the_whole_budget_and_rise_with_the_score(masses, slices):
    means = np.cumsum(np.arange(slices) % 3 / 4)
    mass = np.array(masses, np.int64)
    rates = rates_of(mass, means)
    assert float((rates * mass).sum()) == pytest.approx(means.mean() * mass.sum(), rel=1e-9, abs=1e-9)
    weighed = rates[mass > 0]
    assert (np.diff(weighed) >= -1e-9).all() and weighed.max() <= means[-1] and weighed.min() >= means[0]


def tables(rng, documents, levels, heaviest=1):
    """Weights of documents by level and bin of their hash, and a rate for each level."""
    weights = np.zeros((levels, BINS), np.int64)
    own = rng.integers(1, heaviest + 1, documents)
    np.add.at(weights, (rng.integers(0, levels, documents), rng.integers(0, BINS, documents)), own)
    return weights, int(own.max())


@given(st.integers(1, 3000), st.integers(1, 12), st.sampled_from([1, 10, 1000]), st.integers(0, 10**6))
@examples(60)
def test_sums_are_within_a_few_documents_of_the_target(documents, levels, heaviest, seed):
    rng = np.random.default_rng(seed)
    weights, most = tables(rng, documents, levels, heaviest)
    rates = np.sort(rng.uniform(0.2, 7, levels)).round(3)
    target = float((rates * weights.sum(axis=1)).sum())
    found = rounded(rates, weights, target)
    read = found.base[:, None] + (np.arange(BINS) < found.chosen[:, None])
    assert (read >= np.floor(rates)[:, None]).all() and (read <= np.ceil(rates)[:, None]).all()
    if documents > 100 * levels:  # else there may be no document left to turn
        assert abs(int((read * weights).sum()) - target) <= 2 * most


def test_fractions_are_kept_on_average_whatever_the_length():
    """Of many documents of two lengths at one rate, such a part of each length is rounded up as the fraction says."""
    rng = np.random.default_rng(8)
    short, long = (np.bincount(rng.integers(0, BINS, 40_000), minlength=BINS) for _ in range(2))
    weights = np.stack([short + 100 * long, np.zeros(BINS, np.int64)])
    found = rounded(np.array([1.3, 2.0]), weights, 1.3 * float(weights[0].sum()))
    parts = [each[: found.chosen[0]].sum() / each.sum() for each in (short, long)]
    assert parts == pytest.approx([0.3, 0.3], abs=0.008)
    assert found.base.tolist() == [1, 2] and found.chosen[1] == 0


def test_bins_are_spread_and_the_same_everywhere():
    assert bins_of(["0" * 32, "f" * 32, ""]).tolist() == bins_of(["0" * 32, "f" * 32, ""]).tolist()
    found = np.bincount(bins_of([f"{n:032x}" for n in range(40_960)]), minlength=BINS)
    assert len(found) == BINS and 6 < found.var() < 14, "Poisson's, around 10"
    assert len(bins_of([])) == 0
