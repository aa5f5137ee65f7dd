"""Histograms of scores that can be added up, and the cut that selects a share of what they counted.

Reads scores, gives counts by bin; a cut says which bins are selected and which part of the bin at the edge.

Bins do not depend on the data: a bin is the sign, the exponent and 12 bits of the mantissa of a float32, so 4096 bins from any
power of two to the next, from 2^-24 to 2^20; what is smaller or larger is in the bins at the ends. They are finer than float16:
scores that are one loss as it is stored are never in one bin unless they are equal. Counts are whole numbers: histograms of
parts added up in any order are that of the whole.

The edge: all bins beyond the cut are selected, and of those tokens whose score is in the cut's bin such a part that the share
comes out, see `kernels.above`. So equal scores, however many, do not move the share; the `error` of a cut is how much
of the whole lies in its bin: the tokens of which the cut does not know which are better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from gristmill.selection.bins import BASE, DROPPED, MOST
from gristmill.selection.policy import Direction, Unit

Singles = npt.NDArray[np.float32]
Marks = npt.NDArray[np.bool_]
Lengths = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]

TOKENS, BYTES, PASSED_TOKENS, PASSED_BYTES = range(4)
NOTHING = 2 * MOST  # a cut beyond all bins
EMPTY = np.zeros(0, np.int32)


@dataclass(frozen=True)
class Histogram:
    """Counts by bin.

    `bins`: int32 [bins], ascending, those that have tokens. `counts`: int64 [bins, 4]: tokens, their bytes, and tokens and bytes
    of those that passed all gates that were decided already.
    """

    bins: npt.NDArray[np.int32]
    counts: Ints


@dataclass(frozen=True)
class Cut:
    """Where a share ends.

    `bin`: that of the edge, with the sign turned where low scores are kept; `part`: so much of it is selected. `threshold`: the
    score at the edge, the worst of the bin; None where nothing was counted. `total`, `kept`, `passed`: (tokens, bytes) counted,
    selected, and of these passed. `error`: the share of the bin in the whole, by the unit of the share.
    """

    bin: int
    part: float
    threshold: float | None
    total: tuple[int, int]
    kept: tuple[float, float]
    passed: tuple[float, float]
    error: float


NO_CUT = Cut(NOTHING, 0.0, None, (0, 0), (0.0, 0.0), (0.0, 0.0), 0.0)
"""That of nothing: selects nothing."""


def bins_of(scores: Singles) -> npt.NDArray[np.int32]:
    """Return the bin of each score: int32, in the order of the scores; NaN has none and gives anything."""
    from gristmill.selection import kernels

    out = np.empty(len(scores), np.int32)
    kernels.bins(_bits(scores), out)
    return out


def worst_of(bin: int) -> float:
    """Return the lowest score that is in a bin."""
    if bin >= 0:
        return 0.0 if bin == 0 else float(np.array((bin - 1 + BASE) << DROPPED, np.int32).view(np.float32))
    highest = np.array(((-bin + BASE) << DROPPED) - 1, np.int32).view(np.float32)
    return -float(highest)


def count(scores: Singles, counted: Marks, lengths: Lengths | None = None, passed: Marks | None = None) -> Histogram:
    """Return the histogram of scores.

    Args:
        scores: float32 [tokens].
        counted: bool [tokens], which to count: none without a score.
        lengths: int32 [tokens], bytes of the tokens; without them all bytes are 0.
        passed: bool [tokens], see `Histogram`; without it all pass.
    """
    from gristmill.selection import kernels

    counts = np.zeros((2 * MOST + 1, 4), np.int64)
    seen = np.empty(len(counts), np.int32)
    given = np.zeros(0, np.bool_) if passed is None else passed
    found = kernels.count(_bits(scores), counted, EMPTY if lengths is None else lengths, given, counts, seen)
    bins = np.sort(seen[:found])
    return Histogram(bins, counts[bins + MOST])


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Return the sum; the order does not matter."""
    parts = list(histograms)
    bins = np.concatenate([EMPTY, *(part.bins for part in parts)])
    return add_up(bins, np.concatenate([np.zeros((0, 4), np.int64), *(part.counts for part in parts)]))


def add_up(bins: npt.NDArray[np.int32], counts: Ints) -> Histogram:
    """Return the histogram of rows in any order, a bin in several rows or none."""
    order = np.argsort(bins, kind="stable")
    bins = bins[order]
    first = np.flatnonzero(np.diff(bins, prepend=bins[:1] - 1))
    return Histogram(bins[first], np.add.reduceat(counts[order], first) if len(first) else counts)


def cut_of(histogram: Histogram, keep: float, unit: Unit, direction: Direction) -> Cut:
    """Return the cut that selects a share.

    Args:
        histogram: of all candidates.
        keep: the share, above 0 and up to 1.
        unit: what it is a share of.
        direction: which end is selected.
    """
    high = direction == "high"
    bins, counts = (histogram.bins[::-1], histogram.counts[::-1]) if high else (histogram.bins, histogram.counts)
    total = _pair(histogram.counts.sum(axis=0), TOKENS)
    mass = counts[:, BYTES if unit == "bytes" else TOKENS]
    whole = int(mass.sum())
    if whole == 0:
        return replace(NO_CUT, total=total)
    wanted = Fraction(repr(float(keep))) * whole
    ends = np.cumsum(mass)
    at = int(np.searchsorted(ends, float(wanted), side="left"))
    at = min(at, len(mass) - 1) if keep < 1 else len(mass) - 1
    before = int(ends[at] - mass[at])
    part = min(max(float((wanted - before) / int(mass[at])), 0.0), 1.0) if keep < 1 and mass[at] else 1.0
    sums = counts[:at].sum(axis=0) + part * counts[at]
    kept, passed = (float(sums[TOKENS]), float(sums[BYTES])), (float(sums[PASSED_TOKENS]), float(sums[PASSED_BYTES]))
    number = int(bins[at])
    threshold = worst_of(number) if high else -worst_of(-number)
    return Cut(number if high else -number, part, threshold, total, kept, passed, int(mass[at]) / whole)


def starts_of(documents: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return where the part of the edge's bin begins in each document, above 0 and up to 1: a hash of the id."""
    digests = [hashlib.blake2b(name.encode(), digest_size=8, person=b"select").digest() for name in documents]
    words = np.frombuffer(b"".join(digests), "<u8")
    return ((words >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53


def _bits(scores: Singles) -> npt.NDArray[np.int32]:
    return np.ascontiguousarray(scores, np.float32).view(np.int32)


def _pair(sums: Ints, first: int) -> tuple[int, int]:
    return int(sums[first]), int(sums[first + 1])
