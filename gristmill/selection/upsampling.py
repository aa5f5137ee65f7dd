"""How often documents are repeated by their quality: Olmo 3's curve solved for a budget, and fractions rounded by hashes.

Pure functions on numbers; they read and write nothing.

The curve is f(x) = C · (x - z)^p · e^(λ(x - z)) over the percentile x of the quality, by weight; 0 below z. Its integral is the
budget as a share of all weight. The percentiles are cut into equal slices, and a slice has the curve's mean over it, so that
that of the top slice is the highest. Among p of 0 to 5 in 20 steps the highest is taken whose top slice stays at or below the
cap, with the largest λ of 0.01 to 2 that keeps it so. It is what Olmo 3 made its pre-training mix by (Olmo Team 2025; dolma3,
`datasets/dolma3_mix/mixes/mixing_utils.py`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

POWERS = tuple(5 * step / 19 for step in range(19, -1, -1))
LEAST_GROWTH, MOST_GROWTH = 0.01, 2.0
HALVINGS = 50
TERMS = 40  # of the series of e^x: the rest is below 2^40 / 40! for x up to 2
BITS = 12
BINS = 1 << BITS  # of hashes


@dataclass(frozen=True)
class Curve:
    """A curve that was solved for a budget.

    `power`, `growth`, `scale`: p, λ and C. `begins`: z. `means`: float64 [slices], how often each slice is read, ascending.
    """

    power: float
    growth: float
    scale: float
    begins: float
    means: Floats


def area(x: Floats, power: float, growth: float) -> Floats:
    """Return the integral of t^p · e^(λt) from 0 to each x, p of 0 or more, 0 ≤ x ≤ 1, 0 ≤ λ ≤ 2."""
    n = np.arange(TERMS)
    factors = np.array([growth**k / math.factorial(k) for k in range(TERMS)])
    found: Floats = (factors * x[:, None] ** (power + n + 1) / (power + n + 1)).sum(axis=1)
    return found


def solve(budget: float, cap: float, zero_below: float = 0.0, slices: int = 20) -> Curve:
    """Return the curve for a budget.

    Args:
        budget: what is read, as a share of all weight; above 0.
        cap: the most that the top slice may be read.
        zero_below: the share of the weight, from the worst, of which nothing is read; rounded down to whole slices.
        slices: how many there are.

    Raises:
        ValueError: the budget needs more than the cap allows.
    """
    dropped = math.floor(Fraction(repr(float(zero_below))) * slices)
    width = (slices - dropped) / slices
    if budget > cap * width * (1 + 1e-12):
        raise ValueError(
            f"the budget is {budget:.4g} of what there is, but a cap of {cap:g} over the {width:g} that is read at all allows "
            f"{cap * width:.4g}"
        )
    borders = np.arange(slices - dropped + 1) / slices

    def tried(power: float, growth: float) -> tuple[float, Floats]:
        areas = np.diff(area(borders, power, growth))
        scale = budget / float(areas.sum())
        return scale, scale * areas * slices

    def fits(power: float, growth: float) -> bool:
        return float(tried(power, growth)[1][-1]) <= cap

    for power in POWERS:
        if fits(power, LEAST_GROWTH):
            low, high = LEAST_GROWTH, MOST_GROWTH
            for _ in range(HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if fits(power, middle) else (low, middle)
            growth = MOST_GROWTH if fits(power, MOST_GROWTH) else low
            scale, means = tried(power, growth)
            break
    else:  # hardly below the cap everywhere
        power, growth, scale = 0.0, 0.0, budget / width
        means = np.full(slices - dropped, scale)
    return Curve(power, growth, scale, dropped / slices, np.concatenate([np.zeros(dropped), means]))


def rates_of(mass: Ints, means: Floats) -> Floats:
    """Return how often documents of each score are read: the mean of the slices that the scores lie in, float64 [scores].

    Args:
        mass: int64 [scores], the weight of all documents with each score, ascending by score.
        means: float64 [slices], see `Curve`.
    """
    slices, ends = len(means), np.cumsum(mass)
    total = max(int(mass.sum()), 1)
    begins = ends - mass
    first = np.minimum(begins * slices // total, slices - 1)
    last = np.maximum((ends * slices - 1) // total, first)
    sums = np.concatenate([[0.0], np.cumsum(means)])

    def below(place: Ints, at: Ints) -> Floats:  # integral up to a place in a slice
        found: Floats = sums[at] + (place * slices / total - at) * means[at]
        return found

    spans = mass * slices / total
    mixed = np.divide(below(ends, last) - below(begins, first), spans, out=np.zeros(len(mass)), where=spans > 0)
    return np.where(first == last, means[first], np.clip(mixed, means[first], means[last]))


@dataclass(frozen=True)
class Rounded:
    """Counts by level: a document has `base`, and one more where its bin of hashes is below `chosen`: int64 [levels]."""

    base: Ints
    chosen: Ints


def rounded(rates: Floats, weights: Ints, target: float) -> Rounded:
    """Return counts whose sum by weight is as near the target as whole documents can be.

    A fraction φ is rounded up for hashes below φ + δφ(1 - φ), with one δ between -1 and 1 for all: 0 where the hashes fall as
    they should. So the sum is right for few documents, too, and none is preferred for its length.

    Args:
        rates: float64 [levels], how often documents of each level are read.
        weights: int64 [levels, BINS], the weight of the documents of each level and bin of hashes.
        target: the sum of counts times weights.
    """
    base = np.floor(rates + 1e-9)
    part = np.clip(rates - base, 0.0, None)[:, None]
    open_ = part > 1e-9
    hashes = (np.arange(BINS) + 0.5) / BINS
    turns = np.divide(hashes - part, part * (1 - part), out=np.full(weights.shape, 2.0), where=open_)
    wanted = target - float((base.astype(np.int64) * weights.sum(axis=1)).sum())
    order = np.argsort(turns, axis=None, kind="stable")
    flat = turns.reshape(-1)[order]
    sums = np.cumsum(weights.reshape(-1)[order])
    ends = np.append(np.flatnonzero(np.diff(flat) > 0), len(flat) - 1)  # equal ones turn together
    ends = ends[(flat[ends] > -1) & (flat[ends] < 1)]
    least = int(np.searchsorted(flat, -1.0, side="right"))
    choices = np.concatenate([[int(sums[least - 1]) if least else 0], sums[ends]])
    deltas = np.concatenate([[-1.0], flat[ends]])
    # The nearest sum; of equally near ones the least change.
    distance = np.abs(choices - wanted)
    near = np.flatnonzero(distance == distance.min())
    delta = deltas[near[np.argmin(np.abs(deltas[near]))]]
    return Rounded(base.astype(np.int64), (turns <= delta).sum(axis=1))


def bins_of(documents: Sequence[str]) -> Ints:
    """Return the bin of the hash of each document's id, int64, from 0 to `BINS` - 1."""
    digests = [hashlib.blake2b(name.encode(), digest_size=8, person=b"upsample").digest() for name in documents]
    words = np.frombuffer(b"".join(digests), "<u8")
    return (words >> np.uint64(64 - BITS)).astype(np.int64)
