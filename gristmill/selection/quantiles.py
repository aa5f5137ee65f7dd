"""Exact quantiles of scores that were counted apart, the buckets that they make, and how far two histograms of buckets are apart.

Reads scores (float32) and weights (whole numbers); gives edges, bucket numbers and distances.

A count of scores is one of different values with whole numbers, so counts of parts added up in any order are that of the whole,
and a quantile is one of the scores. Quantiles are those of the inverted CDF (definition 1 of Hyndman and Fan 1996), as
`numpy.quantile(method="inverted_cdf", weights=...)` has them; buckets are numpy's `digitize`. Both are what Nemotron-CC (Su et
al. 2024) makes its quality buckets with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Ranks = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int16]

MANTISSA = 23  # bits of a float32's
SIGN = np.uint32(1 << 31)
MOST_BUCKETS = 255  # numbers that an uint8 has, and one for none
LARGEST = np.float32(2.0**127)  # of a score that is counted: with any number of bits of mantissa it is itself


def ranks_of(scores: Singles, mantissa_bits: int = MANTISSA) -> Ranks:
    """Return a whole number for each score, in the order of the scores: uint32 [scores].

    Args:
        scores: from -`LARGEST` to `LARGEST`; -0 counts as 0.
        mantissa_bits: a score counts as the largest number of so many bits of mantissa that is not above it.
    """
    bits = (np.ascontiguousarray(scores, np.float32) + np.float32(0)).view(np.uint32)
    ranks = np.where(bits & SIGN, ~bits, bits | SIGN)
    return ranks & ~np.uint32((1 << (MANTISSA - mantissa_bits)) - 1)


def scores_of(ranks: Ranks) -> Singles:
    """Return the scores that have these ranks: the reverse of `ranks_of`."""
    return np.where(ranks & SIGN, ranks & ~SIGN, ~ranks).astype(np.uint32).view(np.float32)


def edges_of(scores: Singles, mass: Ints, buckets: int) -> Singles:
    """Return where the quantiles 1/n, 2/n, ... of n buckets lie: float32 [buckets - 1].

    Each is the smallest score up to which lies at least such a part of the mass.

    Args:
        scores: float32 [values], ascending.
        mass: int64 [values], the weight of each; the sum is above 0 and below 2^63 / buckets.
        buckets: 2 or more.
    """
    ends = np.cumsum(mass)
    assert len(ends) and 0 < int(ends[-1]) < 2**63 // buckets, "quantiles of something"
    # In whole numbers: the smallest end with end * buckets >= i * total.
    wanted = -(-np.arange(1, buckets, dtype=np.int64) * ends[-1] // buckets)
    return np.asarray(scores[np.searchsorted(ends, wanted, side="left")], np.float32)


def buckets_of(scores: Singles, edges: Singles) -> Numbers:
    """Return how many edges are not above each score: int16 [scores], from 0; -1 where the score is NaN."""
    found = np.searchsorted(edges, scores, side="right").astype(np.int16)
    found[np.isnan(scores)] = -1
    return found


def total_variation(one: Ints, other: Ints) -> float:
    """Return half the sum of differences between two histograms' shares: the part of the mass that lies in other buckets."""
    return float(np.abs(_shares(one) - _shares(other)).sum() / 2)


def cdf_distance(one: Ints, other: Ints) -> float:
    """Return the largest difference between two histograms' cumulated shares: Kolmogorov and Smirnov's distance at the edges."""
    return float(np.abs(np.cumsum(_shares(one)) - np.cumsum(_shares(other))).max())


def _shares(counts: Ints) -> npt.NDArray[np.float64]:
    total = int(counts.sum())
    return counts / total if total else np.zeros(len(counts))
