"""The stage `buckets`: scores to a few numbers of quality, by edges that lie where parts of the whole build end.

Reads columns of scores, `text` for its size, and columns to group by; adds the number of a bucket to each document. Every shard
counts its different scores, the counts are added up, and edges are read off (`gristmill.selection.quantiles`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from gristmill.columns import append
from gristmill.json_values import Plain
from gristmill.selection.quantiles import MANTISSA, MOST_BUCKETS, Numbers
from pipeline.finding import Finding, Limit
from pipeline.stage import Fit, Transform
from stages.classify import bucket_edges, bucket_rows
from stages.classify.bucket_edges import ID, MODEL, NONE, Model, Rule
from stages.classify.bucket_rows import ALL, MODELS

NAME = re.compile("[a-z][a-z0-9_]*")
MOST_GROUPS = 100  # whose edges the manifest has


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """So many buckets (2 to 255) with equal parts of the weight. `best`: which end of the scores is the highest bucket."""

    quantiles: int
    best: Literal["high", "low"] = "high"

    def __post_init__(self) -> None:
        """Check the number."""
        if not 2 <= self.quantiles <= MOST_BUCKETS:
            raise ValueError(f"quantiles must be from 2 to {MOST_BUCKETS}, found {self.quantiles}")

    @property
    def buckets(self) -> int:
        """Return how many there are."""
        return self.quantiles


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Buckets between given scores, ascending; a score on an edge is above it. `best`: as of `Quantiles`."""

    edges: tuple[float, ...]
    best: Literal["high", "low"] = "high"

    def __post_init__(self) -> None:
        """Check that they ascend."""
        finite = all(math.isfinite(edge) for edge in self.edges)
        if not finite or list(self.edges) != sorted(set(self.edges)) or not 1 <= len(self.edges) < MOST_BUCKETS:
            raise ValueError(f"edges must be 1 to {MOST_BUCKETS - 1} ascending numbers, found {list(self.edges)}")

    @property
    def buckets(self) -> int:
        """Return how many there are."""
        return len(self.edges) + 1


@dataclass(frozen=True, kw_only=True)
class Buckets(Fit):
    """Add the number of a bucket to each document, 0 for the lowest scores: `bucket` (uint8).

    `scores`: column → `quantiles: 20`, or `edges: [0.2, 0.5]`, the same number of buckets for each. Quantiles are exact: those of
    numpy's `inverted_cdf`, and buckets as its `digitize` has them. `weight`: what quantiles are equal parts of, UTF-8 bytes of
    text or documents.

    Of several scores each has a column, `bucket_<score>`, and `ensemble` makes one of them: `max`, `mean` (rounded, half up), or
    weights of a mean, as in `{quality: 2, topic: 1}`. `levels` give buckets names, in `bucket_level` (string). Nemotron-CC (Su et
    al. 2024) takes `quantiles: 20` of three classifiers by bytes, `max`, and the levels
    `{high: [19, 19], medium_high: [18, 18], medium: [12, 17], medium_low: [7, 11], low: [0, 6]}`.

    `by`: columns, such as `[language]`; each group of documents with the same values (null is one) has edges of its own, with
    `own_edges: false` only figures of its own in the report. One edge for all leaves some groups without good buckets, own ones
    make the best of a bad group as good as that of others: the report shows both. A group with fewer than `min_documents` that
    have the score takes the edges of all documents.

    A score that is null or NaN does not count; a document without any has no bucket (null). What is beyond ±2^127
    counts as that. A column is read as float32.

    `from: FOLDER` in place of all this takes edges that another build found (docs/buckets.md).

    Each different score of a group takes about 40 bytes in one process. With `mantissa_bits: 12` there are at most 4,096 from any
    power of two to the next, whatever the number of documents, and edges are low by up to a 4,096th.
    """

    applying: ClassVar[tuple[str, ...]] = ("name", "ensemble", "levels")

    scores: dict[str, Quantiles | Edges]
    name: str = "bucket"
    ensemble: Literal["max", "mean"] | dict[str, float] = "max"
    levels: dict[str, tuple[int, int]] | None = None
    weight: Literal["bytes", "documents"] = "bytes"
    by: tuple[str, ...] = ()
    own_edges: bool = True
    min_documents: int = 1000
    mantissa_bits: int = MANTISSA

    def __post_init__(self) -> None:
        """Check names, ranges, and that all numbers of buckets fit together."""
        if not self.scores:
            raise ValueError("scores names no column; give at least one, such as {quality: {quantiles: 20}}")
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name must be of {NAME.pattern}, found {self.name!r}")
        numbers = {name: each.buckets for name, each in self.scores.items()}
        if len(set(numbers.values())) > 1:
            raise ValueError(f"scores must all have the same number of buckets, found {numbers}")
        if isinstance(self.ensemble, dict):
            if self.ensemble.keys() != self.scores.keys():
                raise ValueError(
                    f"ensemble must weigh all of scores ({', '.join(self.scores)}), found {', '.join(self.ensemble)}"
                )
            if not all(0 < weight < math.inf for weight in self.ensemble.values()):
                raise ValueError(f"ensemble must have weights above 0, found {self.ensemble}")
        if self.levels is not None:
            covered = sorted(number for low, high in self.levels.values() for number in range(low, high + 1))
            if covered != list(range(self.buckets)) or any(low > high for low, high in self.levels.values()):
                raise ValueError(f"levels must have each of the buckets 0 to {self.buckets - 1} once, found {self.levels}")
        if self.min_documents < 1:
            raise ValueError(f"min_documents must be at least 1, found {self.min_documents}")
        if not 0 <= self.mantissa_bits <= MANTISSA:
            raise ValueError(f"mantissa_bits must be from 0 to {MANTISSA}, found {self.mantissa_bits}")

    @property
    def buckets(self) -> int:
        """Return how many buckets there are."""
        return next(iter(self.scores.values())).buckets

    def needs(self) -> tuple[str, ...]:
        """Return the scores and what documents are grouped by."""
        return tuple(dict.fromkeys((*self.scores, *self.by)))

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the types of the columns."""
        each = {self._column(name): pa.uint8() for name in self._names()} if len(self.scores) > 1 else {}
        level = {} if self.levels is None else {f"{self.name}_level": pa.string()}
        return {self.name: pa.uint8(), **level, **each}

    def measures(self) -> tuple[str | tuple[str, ...], ...]:
        """Return the buckets, and each by groups."""
        numbers = [column for column, kind in self.adds().items() if kind == pa.uint8()]
        return (*self.adds(), *((*self.by, column) for column in numbers))

    def open(self) -> Transform:
        """Return f(docs) → different scores, see `bucket_rows.ROWS`."""
        names = self._names()
        return lambda docs: bucket_rows.rows_of(docs, names, self.by, self.mantissa_bits)

    def combine(self) -> Transform:
        """Return f(rows) → one row a score, group and value."""
        return bucket_rows.add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a score, group and value."""
        return bucket_rows.add_up

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → edges, see `bucket_edges.MODEL`; raises InputError as `bucket_edges.fit`."""

        def settle(tables: Sequence[pa.Table]) -> pa.Table:
            rows = []
            for number, name in enumerate(self._names()):
                rows += bucket_edges.fit(name, self._rule(name), bucket_rows.counted(tables, number))
            model = pa.Table.from_pylist(rows, schema=MODEL.with_metadata(tables[0].schema.metadata))
            known = {
                **model.schema.metadata,
                ID: bucket_edges.id_of(model, {name: each.best for name, each in self.scores.items()}),
            }
            return model.replace_schema_metadata(known)

        return settle

    def apply(self, model: pa.Table) -> Transform:
        """See `Fit.apply`. The function raises InputError where scores are of other models than edges were found for."""
        names, edges = self._names(), Model.of(model)
        rules = {name: self._rule(name) for name in names}
        ensemble = [self.ensemble[name] for name in names] if isinstance(self.ensemble, dict) else self.ensemble
        made = json.loads(model.schema.metadata[MODELS])
        about = json.dumps({**self._about(edges, made), "id": model.schema.metadata[ID].decode()}, sort_keys=True)
        levels = self._levels()

        def apply(docs: pa.Table) -> pa.Table:
            bucket_edges.check_models(made, bucket_rows.notes_of(docs.schema, names))
            groups = bucket_rows.groups_of(docs, self.by)
            numbers = [edges.numbers(name, rules[name], bucket_rows.values_of(docs, name), groups) for name in names]
            best = bucket_edges.together(numbers, ensemble)
            found = {pa.field(self.name, pa.uint8(), metadata={"about": about}): _nullable(best)}
            if levels is not None:
                found[pa.field(f"{self.name}_level", pa.string())] = levels.take(_nullable(best))
            if len(names) > 1:
                for name, each in zip(names, numbers, strict=True):
                    found[pa.field(self._column(name), pa.uint8())] = _nullable(each)
            return append(docs, found)

        return apply

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the bucket, and each score with the edges that its bucket lies between; see `Stage.explain`."""
        about = json.loads(after.schema.field(self.name).metadata[b"about"])
        group = bucket_rows.groups_of(before, self.by).names[0]
        found = [Finding(column, after[column][0].as_py()) for column in self.adds()]
        for name in self._names():
            score = before[name][0].as_py()
            edges = about["groups"].get(group, {}).get(name, about["scores"][name]["edges"])
            number = int(self._rule(name).numbers(bucket_rows.values_of(before, name), np.array(edges, np.float32))[0])
            known = len(about["groups"]) == about["groups_with_own_edges"]
            found.append(Finding(name, score, self._limits(name, number, edges) if known and number != NONE else ()))
        return found

    def _limits(self, name: str, number: int, edges: Sequence[float]) -> tuple[Limit, ...]:
        """Return the edges on both sides of a bucket."""
        at = number if self.scores[name].best == "high" else self.buckets - 1 - number
        parameter, limits = f"scores[{name}]", []
        if at > 0:
            limits.append(Limit(parameter, edges[at - 1], "from the edge on of"))
        if at < len(edges):
            limits.append(Limit(parameter, edges[at], "below the edge of"))
        return tuple(limits)

    def _names(self) -> list[str]:
        """Return the scores in an order that the config's does not change, as it is no part of the fingerprint."""
        return sorted(self.scores)

    def _column(self, score: str) -> str:
        return f"{self.name}_{score}"

    def _rule(self, name: str) -> Rule:
        given = self.scores[name]
        edges = given.edges if isinstance(given, Edges) else None
        return Rule(given.buckets, edges, given.best, self.weight, self.own_edges, self.min_documents)

    def _levels(self) -> pa.Array | None:
        """Return the name of each bucket's level: string [buckets]."""
        if self.levels is None:
            return None
        named = {number: name for name, (low, high) in self.levels.items() for number in range(low, high + 1)}
        return pa.array([named[number] for number in range(self.buckets)], pa.string())

    def _about(self, edges: Model, made: Mapping[str, Plain]) -> dict[str, Plain]:
        """Return what the manifest says of the buckets; with the edges of groups where these are few."""
        scores: dict[str, Plain] = {
            name: {
                "edges": edges.plain(name, ALL),
                "best": self.scores[name].best,
                "quantiles": isinstance(self.scores[name], Quantiles),
                "model": made[name],
            }
            for name in self._names()
        }
        groups = {group: {name: edges.plain(name, group) for name in names} for group, names in edges.own.items()}
        return {
            "kind": "buckets",
            "scores": scores,
            "ensemble": dict(sorted(self.ensemble.items())) if isinstance(self.ensemble, dict) else self.ensemble,
            "by": list(self.by),
            "weight": self.weight,
            "groups": groups if len(groups) <= MOST_GROUPS else {},
            "groups_with_own_edges": len(groups),
        }


def _nullable(numbers: Numbers) -> pa.Array:
    """Return bucket numbers as a column: uint8, null where there is none."""
    return pa.array(np.where(numbers == NONE, 0, numbers).astype(np.uint8), mask=numbers == NONE)
