"""The stage `upsample`: how often an epoch reads each document, by its quality, for a budget.

Reads a column of scores, what documents are grouped by, and their sizes; adds `repeats`, which the sink `shards` writes beside
the tokens. Dropped: `not_sampled` (read not at all). The curve and its rounding are `gristmill.selection.upsampling`'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS, MOST_REPEATS, REPEATS
from gristmill.selection.quantiles import LARGEST, MANTISSA, Ints, Singles
from pipeline.finding import Finding, Limit
from pipeline.schema import DROP
from pipeline.stage import Fit, Transform
from stages.classify import upsample_rows
from stages.classify.bucket_rows import groups_of, sizes_of
from stages.classify.upsample_rows import Model, Rule, Wanted

NOT_SAMPLED = "not_sampled"


@dataclass(frozen=True, kw_only=True)
class Share:
    """So much of what there is: 1.2 is a fifth more."""

    share: float

    def __post_init__(self) -> None:
        """Check that it is above 0."""
        if not 0 < self.share < math.inf:
            raise ValueError(f"share must be a number above 0, found {self.share}")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """So many tokens an epoch."""

    tokens: int

    def __post_init__(self) -> None:
        """Check that it is above 0."""
        if self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, found {self.tokens}")


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """So many UTF-8 bytes of text an epoch."""

    bytes: int

    def __post_init__(self) -> None:
        """Check that it is above 0."""
        if self.bytes < 1:
            raise ValueError(f"bytes must be at least 1, found {self.bytes}")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What holds for one group; what is left out is as for all."""

    budget: Share | Tokens | Bytes | None = None
    cap: float | None = None
    zero_below: float | None = None


@dataclass(frozen=True, kw_only=True)
class Upsample(Fit):
    """Repeat the best documents until a budget is reached: add `repeats` (uint8, 1 or more), drop what is read not at all.

    `score`: a column of numbers, a model's or `buckets`'; `best` says which end is good. `budget`: what an epoch reads, a `share`
    of what there is, or an amount of `tokens` or `bytes`; `weight` is what percentiles and shares are of. A document is read as
    often as f(x) = C (x - z)^p e^(λ(x - z)) says of its percentile x: nothing below z (`zero_below`), and the mean over each of
    `slices` equal parts of the weight, so that the best of them is read at most `cap` times. p and λ make the curve as steep as
    the cap allows: Olmo 3's (Olmo Team 2025). Fractions are rounded by a hash of the document's id, so that the sum is as near
    the budget as whole documents can be.

    `by`: a column, such as a topic; each of its values has percentiles and a curve of its own. `groups`: value → what holds for
    it, such as `{math: {budget: {share: 3}, cap: 5}}`. An amount as the `budget` of all is shared by the groups without one in
    proportion to what they have.

    A document without a score (null, NaN) is read once and is in no budget. Scores count with `mantissa_bits` bits, 1,024 from
    any power of two to the next by default: those that are nearer to each other are read alike. Put the stage behind everything
    that drops documents: what is dropped later is missing from the budget.
    """

    score: str
    budget: Share | Tokens | Bytes
    best: Literal["high", "low"] = "high"
    cap: float = 7.0
    zero_below: float = 0.4
    slices: int = 20
    weight: Literal["tokens", "bytes"] = "tokens"
    by: str | None = None
    groups: dict[str, Group] | None = None
    mantissa_bits: int = 10

    def __post_init__(self) -> None:
        """Check ranges, and that budgets are of the weight that they are counted in."""
        if self.groups is not None and self.by is None:
            raise ValueError("groups are of the values of a column; name it with by")
        if not 2 <= self.slices <= 1000:
            raise ValueError(f"slices must be from 2 to 1000, found {self.slices}")
        if not 0 <= self.mantissa_bits <= MANTISSA:
            raise ValueError(f"mantissa_bits must be from 0 to {MANTISSA}, found {self.mantissa_bits}")
        for where, group in (("", Group(budget=self.budget, cap=self.cap, zero_below=self.zero_below)), *self._own()):
            if isinstance(group.budget, Tokens | Bytes) and not hasattr(group.budget, self.weight):
                raise ValueError(f"{where}budget is one of {_unit(group.budget)}, and weight is {self.weight}; give both alike")
            if group.cap is not None and not 0 < group.cap <= MOST_REPEATS:
                raise ValueError(f"{where}cap must be above 0 and at most {MOST_REPEATS}, found {group.cap}")
            if group.zero_below is not None and not 0 <= group.zero_below < 1:
                raise ValueError(f"{where}zero_below must be from 0 and below 1, found {group.zero_below}")

    def needs(self) -> tuple[str, ...]:
        """Return the score, what documents are grouped by, and the ids where tokens are counted."""
        return (self.score, *([self.by] if self.by else []), *([INPUT_IDS] if self.weight == "tokens" else []))

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the type of the counts."""
        return {REPEATS: pa.uint8()}

    def measures(self) -> tuple[str, ...]:
        """Return the counts."""
        return (REPEATS,)

    def open(self) -> Transform:
        """Return f(docs) → scores and bins of hashes with their weight, see `upsample_rows.ROWS`."""

        def rows(docs: pa.Table) -> pa.Table:
            groups, sizes = groups_of(docs, self._by()), self._sizes(docs)
            return upsample_rows.rows_of(docs["id"].to_pylist(), self._scores(docs), groups, sizes, self.mantissa_bits)

        return rows

    def combine(self) -> Transform:
        """Return f(rows) → one row a score, group and bin."""
        return upsample_rows.add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a score, group and bin."""
        return upsample_rows.add_up

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → how often each range of scores is read; raises InputError as `upsample_rows.settle`."""
        common = _wanted(Group(budget=self.budget, cap=self.cap, zero_below=self.zero_below))
        own = {
            json.dumps([name], ensure_ascii=False): _wanted(
                Group(
                    budget=self.budget if group.budget is None else group.budget,
                    cap=self.cap if group.cap is None else group.cap,
                    zero_below=self.zero_below if group.zero_below is None else group.zero_below,
                )
            )
            for name, group in (self.groups or {}).items()
        }
        spread = {json.dumps([name], ensure_ascii=False) for name, group in (self.groups or {}).items() if group.budget is None}
        rule = Rule(common, own, frozenset(spread), self.slices, self.weight, self.best)
        return lambda tables: upsample_rows.settle(rule, tables)

    def apply(self, model: pa.Table) -> Transform:
        """See `Fit.apply`."""
        found, about = Model.of(model), model.schema.metadata[upsample_rows.ABOUT]
        fields = [pa.field(REPEATS, pa.uint8(), metadata={"about": about}), pa.field(DROP, pa.string())]

        def apply(docs: pa.Table) -> pa.Table:
            groups = groups_of(docs, self._by())
            counts = found.counts(docs["id"].to_pylist(), self._scores(docs), groups, self.mantissa_bits)
            drop = pc.if_else(pa.array(counts == 0), NOT_SAMPLED, pa.scalar(None, pa.string()))
            return append(docs, dict(zip(fields, (pa.array(counts.astype(np.uint8)), drop), strict=True)))

        return apply

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the score, with the lowest that is read as often as it is, and how often that is; see `Stage.explain`."""
        about = json.loads(after.schema.field(REPEATS).metadata[b"about"])
        count, score = after[REPEATS][0].as_py(), float(self._scores(before)[0])
        turn = 1 if self.best == "high" else -1
        dropped = Finding(REPEATS, count, decisive=count == 0)
        levels = about["groups"].get(groups_of(before, self._by()).names[0], {}).get("levels", [])
        mine = [level for level in levels if turn * level["edge"] <= score]
        if math.isnan(score) or not mine:
            return (dropped,)
        side = "from the edge on of" if self.best == "high" else "up to the edge of"
        return (
            dropped,
            Finding(self.score, before[self.score][0].as_py(), (Limit("score", mine[-1]["edge"], side),)),
            Finding("wanted repeats", mine[-1]["repeats"]),
        )

    def _by(self) -> tuple[str, ...]:
        return () if self.by is None else (self.by,)

    def _own(self) -> list[tuple[str, Group]]:
        return [(f"groups: {name}: ", group) for name, group in (self.groups or {}).items()]

    def _sizes(self, docs: pa.Table) -> Ints:
        """Return the weight of each document."""
        if self.weight == "bytes":
            return sizes_of(docs)
        return np.asarray(pc.list_value_length(docs[INPUT_IDS]).to_numpy(), np.int64)

    def _scores(self, docs: pa.Table) -> Singles:
        """Return the scores, float32 [rows], higher the better, NaN where there is none."""
        column = docs[self.score]
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise InputError(f"upsample: score: column {self.score!r} is {column.type}; it must be of numbers")
        with np.errstate(over="ignore"):
            found = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy().astype(np.float32)
        return np.asarray(np.clip(found if self.best == "high" else -found, -LARGEST, LARGEST), np.float32)


def _unit(budget: Share | Tokens | Bytes) -> str:
    return next(iter(vars(budget)))


def _wanted(group: Group) -> Wanted:
    """Return what a group of which all is said is to give."""
    assert group.budget is not None and group.cap is not None and group.zero_below is not None, "all of it is given"
    share = group.budget.share if isinstance(group.budget, Share) else None
    amount = None if isinstance(group.budget, Share) else next(iter(vars(group.budget).values()))
    return Wanted(share, amount, group.cap, group.zero_below)
