"""Which tokens to train on, decided at read time from per-token scores that the shards carry.

A selection names the columns it reads and turns scores into a mask or into weights; nothing is read or written here. Scores
belong to the token as the *target* (they are aligned with the labels); a document's first token has none (NaN), since nothing
stands before it.

Missing scores are never compared: `missing="drop"` leaves those tokens out, `missing="keep"` trains on them; either way
they do not count towards a share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.reader import ranking
from gristmill.reader.ranking import Count, Int64, Mask, Scope, Scores

Weights = npt.NDArray[np.float32]
Missing = Literal["drop", "keep"]
Direction = Literal["high", "low"]

SCOPES = ("batch", "sequence", "document")


class Selection(Protocol):
    """What the reader needs of a selection."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The per-token columns that `weigh` wants, in its order."""
        ...

    @property
    def scope(self) -> Scope:
        """What a token's result depends on: the whole global batch, its row alone, or its document's piece in the row."""
        ...

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Mask | Weights:
        """Return what to train on.

        Args:
            scores: an array for each of `columns`, shape (rows, length): what belongs to each label.
            valid: bool, same shape: there is a label.
            starts: bool, same shape: the label begins a document; may be None unless the scope is `document`.

        Returns:
            Same shape: bool, train on it or not; or float32, its weight in the loss, at least 0. False or 0 where not `valid`.
        """
        ...


class _ByRank:
    """What the selections share that rank the scores of one column: which scores meet, and which end is taken."""

    column: str
    scope: Scope
    direction: Direction
    missing: Missing

    def __post_init__(self) -> None:
        name = type(self).__name__
        _allowed(name, "scope", self.scope, SCOPES)
        _allowed(name, "direction", self.direction, ("high", "low"))
        _allowed(name, "missing", self.missing, ("drop", "keep"))

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`."""
        return (self.column,)

    def _highest(self, scores: Scores, valid: Mask, starts: Mask | None, count: Count, share: float, *, ties: bool) -> Mask:
        """Return the mask of the `count(share, scored)` highest scores of each group, and of the missing as asked."""
        _want_floats(type(self).__name__, self.column, scores)
        keys, absent = ranking.sort_keys(scores)
        if self.direction == "low":
            np.negative(keys, out=keys)
        candidates = valid & ~absent
        begins: Int64 = ranking.group_begins(self.scope, scores.shape, starts)
        totals = ranking.group_totals(candidates, begins)
        if len(begins) == 1:
            chosen = ranking.top_mask(keys, candidates, count(share, int(totals[0])), ties=ties)
        else:
            counts = ranking.count_table(count, share, scores.shape[1])[totals]
            chosen = ranking.top_mask_in_groups(keys, 8 * scores.dtype.itemsize, candidates, begins, counts, ties=ties)
        return chosen | (valid & absent) if self.missing == "keep" else chosen


@dataclass(frozen=True, kw_only=True)
class TopShare(_ByRank):
    """Train on the share `keep` of tokens with the highest (or lowest) score (Rho-1, arXiv 2404.07965: excess loss, 60%).

    The share is of the tokens that have a score, in the global batch (`scope="batch"`, the paper's), in each sequence, or in each
    document's piece of a sequence; `ranking.share_count` gives the exact number. Equal scores: the token earlier in the batch
    wins. With `scope="batch"` every rank looks at the scores of the whole global batch, so the mask does not depend on the
    number of ranks.
    """

    column: str = "excess"
    keep: float = 0.6
    scope: Scope = "batch"
    direction: Direction = "high"
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if not 0.0 <= self.keep <= 1.0:
            raise ValueError(f"TopShare: keep is {self.keep!r}; allowed are 0.0 to 1.0")
        super().__post_init__()

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Mask:
        """See `Selection.weigh`."""
        return self._highest(scores[0], valid, starts, ranking.share_count, self.keep, ties=False)


@dataclass(frozen=True, kw_only=True)
class Quantile(_ByRank):
    """Train on tokens whose score is at or above the α-quantile of those in its scope (ESLM, arXiv 2505.19893: value at risk).

    The quantile of n scores is the least s with at least α · n of them at or below it, so about the top 1 - α remain, and all
    that equal the quantile. On a stored loss the mean loss over what remains is the conditional value at risk.
    `direction="low"` takes the other tail: as if every score had the other sign.
    """

    column: str = "ref_loss"
    alpha: float = 0.4
    scope: Scope = "batch"
    direction: Direction = "high"
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha < 1.0:
            raise ValueError(f"Quantile: alpha is {self.alpha!r}; allowed are 0.0 to below 1.0")
        super().__post_init__()

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Mask:
        """See `Selection.weigh`."""
        return self._highest(scores[0], valid, starts, ranking.tail_count, self.alpha, ties=True)


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Train on tokens whose score is at least `low` and at most `high`; None leaves that side open."""

    column: str = "excess"
    low: float | None = None
    high: float | None = None
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("Threshold: give low, high, or both; with neither every token would pass")
        for name, limit in (("low", self.low), ("high", self.high)):
            if limit is not None and math.isnan(limit):
                raise ValueError(f"Threshold: {name} is {limit!r}; give a number, or None to leave that side open")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"Threshold: low is {self.low!r}, above high, which is {self.high!r}; no token could pass")
        _allowed("Threshold", "missing", self.missing, ("drop", "keep"))

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`."""
        return (self.column,)

    @property
    def scope(self) -> Scope:
        """See `Selection.scope`."""
        return "sequence"

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Mask:
        """See `Selection.weigh`."""
        _want_floats("Threshold", self.column, scores[0])
        wide = scores[0].astype(np.float64)  # the limits are compared as written, not rounded to the scores' type
        passed: Mask = ~np.isnan(wide) if self.missing == "drop" else np.ones(wide.shape, dtype=np.bool_)
        if self.low is not None:
            passed &= ~(wide < self.low)  # not `>=`: NaN stays what `missing` says
        if self.high is not None:
            passed &= ~(wide > self.high)
        return valid & passed


@dataclass(frozen=True, kw_only=True)
class StoredMask:
    """Train on the tokens that a stored bool column marks, as it is."""

    column: str = "mask"

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`."""
        return (self.column,)

    @property
    def scope(self) -> Scope:
        """See `Selection.scope`."""
        return "sequence"

    def weigh(self, scores: Sequence[npt.NDArray[Any]], valid: Mask, starts: Mask | None) -> Mask:
        """See `Selection.weigh`; `scores[0]` is bool."""
        if scores[0].dtype != np.bool_:
            raise ValueError(
                f"StoredMask: column {self.column!r} is {scores[0].dtype}, not bool; "
                "Threshold, TopShare and StoredWeights take scores"
            )
        chosen: Mask = valid & scores[0]
        return chosen


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Weigh each token's loss by a stored score, cut to the range from 0 to `highest`.

    So a column of weights is taken as it is, and a score such as the excess loss weighs in proportion, nothing below zero.
    """

    column: str = "weight"
    highest: float | None = None
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if self.highest is not None and not 0.0 < self.highest < math.inf:
            raise ValueError(f"StoredWeights: highest is {self.highest!r}; allowed are numbers above 0, or None for no limit")
        _allowed("StoredWeights", "missing", self.missing, ("drop", "keep"))

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`."""
        return (self.column,)

    @property
    def scope(self) -> Scope:
        """See `Selection.scope`."""
        return "sequence"

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Weights:
        """See `Selection.weigh`.

        Raises:
            ValueError: an infinite weight.
        """
        _want_floats("StoredWeights", self.column, scores[0])
        weights = np.clip(scores[0].astype(np.float32), 0, self.highest)
        if self.highest is None and np.isposinf(weights).any():
            raise ValueError(f"StoredWeights: column {self.column!r} has an infinite weight; set highest to cut it off")
        return _filled(weights, valid, self.missing)


@dataclass(frozen=True, kw_only=True)
class SoftWeights:
    """Weigh each token's loss by floor + (1 - floor) · sigmoid((score - centre) / temperature): a threshold without an edge.

    As the temperature goes to 0 this becomes `Threshold(low=centre)`. `floor` mixes in plain training, where every token
    weighs the same, as the dense weightings of Helm et al. 2025 (arXiv 2503.09202) do, whose scores are differences of two
    models' losses too. `direction="low"` weighs low scores high.
    """

    column: str = "excess"
    centre: float = 0.0
    temperature: float = 1.0
    floor: float = 0.0
    direction: Direction = "high"
    missing: Missing = "drop"

    def __post_init__(self) -> None:
        if not math.isfinite(self.centre):
            raise ValueError(f"SoftWeights: centre is {self.centre!r}; allowed are finite numbers")
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"SoftWeights: temperature is {self.temperature!r}; allowed are numbers above 0")
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"SoftWeights: floor is {self.floor!r}; allowed are 0.0 to 1.0")
        _allowed("SoftWeights", "direction", self.direction, ("high", "low"))
        _allowed("SoftWeights", "missing", self.missing, ("drop", "keep"))

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`."""
        return (self.column,)

    @property
    def scope(self) -> Scope:
        """See `Selection.scope`."""
        return "sequence"

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Weights:
        """See `Selection.weigh`."""
        _want_floats("SoftWeights", self.column, scores[0])
        sharpness = (0.5 if self.direction == "high" else -0.5) / self.temperature
        half = np.tanh((scores[0].astype(np.float32) - np.float32(self.centre)) * np.float32(sharpness))
        weights = self.floor + (1.0 - self.floor) * (0.5 + 0.5 * half)  # sigmoid by tanh, which has no overflow
        return _filled(weights.astype(np.float32, copy=False), valid, self.missing)


@dataclass(frozen=True, init=False)
class Both:
    """Train on what all of several selections take; the product, where some give weights.

    Each selects by itself, from all tokens: Rho-1's self-reference is `Both(TopShare(column="ref_loss", keep=0.7,
    direction="low"), TopShare(column="entropy", keep=0.7, direction="low"))`, and `Both(Quantile(column="loss"),
    Threshold(column="ref_loss", high=4.0))` is ESLM's tail without what no model can predict.
    """

    parts: tuple[Selection, ...]

    def __init__(self, *parts: Selection) -> None:
        if len(parts) < 2:
            raise ValueError(f"Both: {len(parts)} selections; give two or more")
        scopes = {part.scope for part in parts}
        if {"batch", "document"} <= scopes:
            raise ValueError("Both: one part has scope batch and another scope document; give them one of the two")
        object.__setattr__(self, "parts", parts)

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Selection.columns`: those of all parts, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    @property
    def scope(self) -> Scope:
        """See `Selection.scope`: the widest of the parts'."""
        scopes = {part.scope for part in self.parts}
        return "batch" if "batch" in scopes else "document" if "document" in scopes else "sequence"

    def weigh(self, scores: Sequence[Scores], valid: Mask, starts: Mask | None) -> Mask | Weights:
        """See `Selection.weigh`."""
        named = dict(zip(self.columns, scores, strict=True))
        out: Mask | Weights = valid
        for part in self.parts:
            found = part.weigh([named[name] for name in part.columns], valid, starts)
            out = np.multiply(out, found)  # of two masks: both
        return out


def _filled(weights: Weights, valid: Mask, missing: Missing) -> Weights:
    """Return the weights, 0 where not valid, and 0 or 1 where they are NaN."""
    weights[np.isnan(weights)] = 1.0 if missing == "keep" else 0.0
    weights[~valid] = 0.0
    return weights


def _want_floats(where: str, column: str, scores: npt.NDArray[Any]) -> None:
    if scores.dtype.kind != "f":
        raise ValueError(f"{where}: column {column!r} is {scores.dtype}; it takes float16 or float32 (StoredMask takes bool)")


def _allowed(where: str, name: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ValueError(f"{where}: {name} is {found!r}; allowed are {', '.join(allowed)}")
