"""What `buckets` settles on: edges of each score, by group, with what lay in each bucket; and the buckets of documents by them.

Reads what was counted of scores (`bucket_rows`), gives the model's table, and applies one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from gristmill.errors import InputError
from gristmill.json_values import Plain
from gristmill.selection.quantiles import Numbers, Singles, buckets_of, edges_of
from stages.classify.bucket_rows import ALL, MODELS, Counted, Groups

COUNTS = pa.list_(pa.int64())
MODEL = pa.schema(
    [
        ("score", pa.string()),
        ("group", pa.string()),  # `ALL`, or a JSON list of the values of the columns grouped by
        ("documents", pa.int64()),  # that have the score
        ("bytes", pa.int64()),
        ("own", pa.bool_()),  # whether the edges are the group's own
        ("edges", pa.list_(pa.float32())),
        ("bucket_documents", COUNTS),  # of each bucket by these edges, from 0
        ("bucket_bytes", COUNTS),
        ("common_documents", COUNTS),  # the same by the edges of all documents
        ("common_bytes", COUNTS),
    ]
)
ID = b"id"  # in the metadata of a model's table
NONE = -1  # the bucket of a document without a score


@dataclass(frozen=True)
class Rule:
    """How the edges of one score come about: given ones, or quantiles; which end is the best; and for which groups.

    `weight`: what quantiles are parts of. `own_edges`: groups of at least `min_documents` have edges of their own.
    """

    buckets: int
    edges: tuple[float, ...] | None
    best: Literal["high", "low"]
    weight: Literal["bytes", "documents"]
    own_edges: bool
    min_documents: int

    def numbers(self, scores: Singles, edges: Singles) -> Numbers:
        """Return the bucket of each score, 0 the worst; `NONE` where it is NaN."""
        found = buckets_of(scores, edges)
        return found if self.best == "high" else np.where(found == NONE, found, self.buckets - 1 - found).astype(np.int16)


def fit(name: str, rule: Rule, counted: Mapping[str, Counted]) -> list[dict[str, object]]:
    """Return the rows of the model for one score: all documents first, then the groups in the order of their names.

    Raises:
        InputError: quantiles by bytes, and no text has any.
    """
    common = _edges(name, rule, counted[ALL])
    rows = []
    for group in sorted(counted):
        counts = counted[group]
        own = group == ALL or (rule.own_edges and rule.edges is None and _documents(counts) >= rule.min_documents)
        edges = _edges(name, rule, counts) if own else common
        row = {"score": name, "group": group, "own": own, "edges": edges.tolist()}
        row |= {"documents": _documents(counts), "bytes": int(counts.bytes.sum())}
        for kind, lines in (("bucket", edges), ("common", common)):
            numbers = rule.numbers(counts.scores, lines)
            for unit, mass in (("documents", counts.documents), ("bytes", counts.bytes)):
                sums = np.zeros(rule.buckets, np.int64)
                np.add.at(sums, numbers, mass)
                row[f"{kind}_{unit}"] = sums.tolist()
        rows.append(row)
    return rows


def _documents(counts: Counted) -> int:
    return int(counts.documents.sum())


def _edges(name: str, rule: Rule, counts: Counted) -> Singles:
    if rule.edges is not None:
        return np.array(rule.edges, np.float32)
    if not len(counts.scores):
        return np.zeros(rule.buckets - 1, np.float32)  # which no document meets
    mass = counts.bytes if rule.weight == "bytes" else counts.documents
    if not mass.any():
        advice = "the documents of a finished build come without their texts; set weight: documents"
        raise InputError(
            f"buckets: scores: {name!r} has quantiles by bytes, and none of its documents has a byte of text; {advice}"
        )
    return edges_of(counts.scores, mass, rule.buckets)


@dataclass(frozen=True)
class Model:
    """Edges by score and group, read from the table of a model.

    `own`: groups with edges of their own → of which scores. `unseen`: scores that no document had where edges were found.
    """

    edges: Mapping[str, Mapping[str, Singles]]
    own: Mapping[str, Sequence[str]]
    unseen: frozenset[str]

    @classmethod
    def of(cls, table: pa.Table) -> Model:
        """Read the table that `fit` gave the rows of."""
        found: dict[str, dict[str, Singles]] = {}
        own: dict[str, list[str]] = {}
        unseen = set()
        for row in table.select(["score", "group", "documents", "own", "edges"]).to_pylist():
            found.setdefault(row["score"], {})[row["group"]] = np.array(row["edges"], np.float32)
            if row["own"] and row["group"] != ALL:
                own.setdefault(row["group"], []).append(row["score"])
            if row["group"] == ALL and not row["documents"]:
                unseen.add(row["score"])
        return cls(found, own, frozenset(unseen))

    def numbers(self, name: str, rule: Rule, scores: Singles, groups: Groups) -> Numbers:
        """Return the bucket of each document by one score; those of groups that were not there by the edges of all.

        Raises:
            InputError: a document has the score, and its quantiles were found where no document had it.
        """
        if rule.edges is None and name in self.unseen and not np.isnan(scores).all():
            raise InputError(
                f"buckets: scores: {name!r} has quantiles that were found where no document had a score, so they say nothing of "
                "these documents; find them on a build whose documents have it"
            )
        by_group, found = self.edges[name], np.full(len(scores), NONE, np.int16)
        for code, group in enumerate(groups.names):
            rows = groups.codes == code
            found[rows] = rule.numbers(scores[rows], by_group.get(group, by_group[ALL]))
        return found

    def plain(self, name: str, group: str) -> list[float]:
        """Return the edges of a group by one score as the numbers with the fewest digits that are the same float32."""
        return [float(str(edge)) for edge in self.edges[name][group]]


def together(numbers: Sequence[Numbers], ensemble: Literal["max", "mean"] | Sequence[float]) -> Numbers:
    """Return one bucket for each document of those by several scores; a score that it lacks does not count.

    Args:
        numbers: int16 [documents] a score, `NONE` where there is none.
        ensemble: weights in the order of the scores mean a weighted mean; means are rounded, half up.
    """
    stacked = np.stack(numbers)
    if ensemble == "max":
        return np.asarray(stacked.max(axis=0), np.int16)
    weights = np.ones(len(numbers)) if ensemble == "mean" else np.array(ensemble, np.float64)
    there = stacked != NONE
    sums, whole = (np.zeros(stacked.shape[1]) for _ in range(2))
    for weight, row, known in zip(weights, stacked, there, strict=True):  # in a fixed order, so in the same bits
        sums += np.where(known, weight * row, 0.0)
        whole += np.where(known, weight, 0.0)
    means = np.floor(np.divide(sums, whole, out=np.zeros_like(sums), where=whole > 0) + 0.5)
    return np.where(whole > 0, means, NONE).astype(np.int16)


def check_models(made: Mapping[str, Plain], given: Mapping[str, Plain]) -> None:
    """Raise InputError unless scores are of the models that edges were found for, by what their makers note of them."""
    for name, note in given.items():
        if note != made[name]:
            found, wanted = (json.dumps(each, sort_keys=True)[:200] for each in (note, made[name]))
            raise InputError(
                f"buckets: scores: {name!r} is of another model ({found}) than its edges were found for ({wanted}); score with "
                "that one, or find edges anew"
            )


def id_of(model: pa.Table, best: Mapping[str, str]) -> str:
    """Return 32 hex digits over the edges of a model, which ends of scores are the best, and what their makers note of them."""
    edges = Model.of(model).edges
    groups = {name: {group: [float(edge) for edge in each] for group, each in sorted(by.items())} for name, by in edges.items()}
    notes = json.loads(model.schema.metadata[MODELS])
    canonical = json.dumps([groups, dict(best), notes], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
