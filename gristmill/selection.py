"""Which tokens to train on, decided at read time from per-token scores that the shards carry.

A selection names the column it reads and turns scores into a mask; nothing is read or written here. Scores belong to
the token as the *target*; a document's first token has none (NaN), since nothing stands before it.

Missing scores are never compared: `missing="drop"` leaves those tokens out, `missing="keep"` trains on them; either way
they do not count towards a share.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]
Keys = npt.NDArray[np.signedinteger]

Missing = Literal["drop", "keep"]


class Selection(Protocol):
    """What the reader needs of a selection."""

    @property
    def column(self) -> str:
        """The per-token column that `mask` wants."""
        ...

    @property
    def scope(self) -> Literal["batch", "sequence"]:
        """`batch`: the mask of a token depends on the scores of the whole global batch; `sequence`: on its row alone."""
        ...

    def mask(self, scores: Scores, valid: Mask) -> Mask:
        """Return which tokens to train on: shape (batch, length), true only where `valid` is."""
        ...


def share_count(keep: float, total: int) -> int:
    """Return how many of `total` a share of `keep` is: rounded to the nearest, halves up, on the decimal as it is written."""
    share = Fraction(repr(float(keep)))
    return (2 * share.numerator * total + share.denominator) // (2 * share.denominator)


def sort_keys(scores: Scores) -> tuple[Keys, Mask]:
    """Return (integers that sort as the scores do, equal where they are equal; where the score is NaN), of the same shape.

    Bits instead of floats: numpy compares and partitions float16 at a tenth of the speed of integers.
    """
    width = scores.dtype.itemsize
    bits: Keys = np.ascontiguousarray(scores).view(f"i{width}")
    largest = np.iinfo(bits.dtype).max
    sign = bits >> (8 * width - 1)  # -1 or 0
    keys = (bits ^ (sign & largest)) - sign  # sign and magnitude to two's complement: -0.0 becomes 0
    infinity = np.array(np.inf, dtype=scores.dtype).view(bits.dtype)
    return keys.astype(np.int64 if width == 8 else np.int32), (bits & largest) > infinity


def top_mask(keys: Keys, candidates: Mask, count: int) -> Mask:
    """Return a mask of exactly `count` candidates with the highest keys; among equals the earlier in row order wins.

    Args:
        keys: int32 or int64, any shape.
        candidates: boolean, same shape.
        count: from 0 to the number of candidates.
    """
    if count == 0:
        return np.zeros(keys.shape, dtype=np.bool_)
    ranked = np.where(candidates, keys, np.iinfo(keys.dtype).min)
    border = np.partition(ranked, keys.size - count, axis=None)[keys.size - count]
    chosen: Mask = candidates & (ranked > border)
    ties = np.flatnonzero(candidates & (ranked == border))
    chosen.reshape(-1)[ties[: count - int(np.count_nonzero(chosen))]] = True
    return chosen


@dataclass(frozen=True, kw_only=True)
class TopShare:
    """Train on the share `keep` of tokens with the highest (or lowest) score (Rho-1, Lin et al. 2024: excess loss, 60%).

    The share is of the tokens that have a score, in the global batch (`scope="batch"`, the paper's) or in each sequence;
    `share_count` gives the exact number. Equal scores: the token earlier in the batch wins. With `scope="batch"` every rank
    looks at the scores of the whole global batch, so the mask does not depend on the number of ranks.
    """

    column: str = "excess"
    keep: float = 0.6
    scope: Literal["batch", "sequence"] = "batch"
    direction: Literal["high", "low"] = "high"
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if not 0.0 <= self.keep <= 1.0:
            raise ValueError(f"TopShare: keep is {self.keep!r}; allowed are 0.0 to 1.0")
        _allowed("TopShare", "scope", self.scope, ("batch", "sequence"))
        _allowed("TopShare", "direction", self.direction, ("high", "low"))
        _allowed("TopShare", "missing", self.missing, ("drop", "keep"))

    def mask(self, scores: Scores, valid: Mask) -> Mask:
        """See `Selection.mask`."""
        keys, absent = sort_keys(scores)
        if self.direction == "low":
            keys = -keys
        candidates = valid & ~absent
        rows = [slice(None)] if self.scope == "batch" else [slice(row, row + 1) for row in range(len(scores))]
        out = np.empty(scores.shape, dtype=np.bool_)
        for row in rows:
            count = share_count(self.keep, int(np.count_nonzero(candidates[row])))
            out[row] = top_mask(keys[row], candidates[row], count)
        return out | (valid & absent) if self.missing == "keep" else out


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Train on tokens whose score is at least `low` and at most `high`; None leaves that side open."""

    column: str = "excess"
    low: float | None = None
    high: float | None = None
    missing: Missing = "drop"

    @property
    def scope(self) -> Literal["batch", "sequence"]:
        """See `Selection.scope`."""
        return "sequence"

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("Threshold: give low, high, or both; with neither every token would pass")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Threshold: low is {self.low!r}, above high, which is {self.high!r}; no token could pass")
        _allowed("Threshold", "missing", self.missing, ("drop", "keep"))

    def mask(self, scores: Scores, valid: Mask) -> Mask:
        """See `Selection.mask`."""
        wide = scores.astype(np.float64)  # the limits are compared as written, not rounded to the scores' type
        passed = ~np.isnan(wide)
        if self.low is not None:
            passed &= wide >= self.low
        if self.high is not None:
            passed &= wide <= self.high
        if self.missing == "keep":
            passed |= np.isnan(wide)
        return valid & passed


def _allowed(where: str, name: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ValueError(f"{where}: {name} is {found!r}; allowed are {', '.join(allowed)}")
