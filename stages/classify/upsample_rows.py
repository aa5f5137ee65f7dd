"""What `upsample` sends through the exchange, and what it settles on: how often documents of each range of scores are read.

Reads scores, groups, ids and sizes of documents; gives Arrow tables. A row is a score of a group and a bin of hashes, with its
documents and their weight; sums are of whole numbers, so neither the split into tables nor the order of shards shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.columns import whole
from gristmill.errors import InputError
from gristmill.json_values import Plain
from gristmill.selection.quantiles import Ints, Ranks, Singles, ranks_of, scores_of
from gristmill.selection.upsampling import BINS, Curve, bins_of, rates_of, rounded, solve
from stages.classify.bucket_rows import ALL, MIX, MIX_BACK, Groups

ROWS = pa.schema(
    [
        ("key", pa.uint64()),  # the score's rank, spread over 64 bits
        ("group", pa.string()),
        ("bin", pa.uint16()),  # of the hash of the id
        ("documents", pa.int64()),
        ("weight", pa.int64()),
    ]
)
MODEL = pa.schema(
    [
        ("group", pa.string()),
        ("begins", pa.uint32()),  # rank of the lowest score of a level: of documents that are read alike
        ("base", pa.uint8()),  # how often they are read
        ("chosen", pa.int64()),  # those with a lower bin of hashes once more
    ]
)
MOST_GROUPS = 100  # whose curves the manifest has
ABOUT = b"about"  # in the metadata of the model: a JSON object


@dataclass(frozen=True)
class Wanted:
    """What a group is to give: `share` of its own weight, or `amount` of weight; see `Upsample` for the others."""

    share: float | None
    amount: int | None
    cap: float
    zero_below: float


@dataclass(frozen=True)
class Rule:
    """How all groups are read: what holds for those that `own` does not name, and what for the others.

    `spread`: those of `own` that have a part of the budget of all, as the groups have that it does not name.
    """

    common: Wanted
    own: Mapping[str, Wanted]
    spread: frozenset[str]
    slices: int
    weight: str
    best: str


def rows_of(ids: Sequence[str], scores: Singles, groups: Groups, weights: Ints, mantissa_bits: int) -> pa.Table:
    """Return a row for each score, group and bin that documents have; those without a score are left out."""
    there = ~np.isnan(scores)
    names = np.array(groups.names, dtype=object)
    columns = {
        "key": ranks_of(scores[there], mantissa_bits).astype(np.uint64) * np.uint64(MIX),
        "group": pa.array(names[groups.codes[there]], pa.string()),
        "bin": bins_of(ids)[there].astype(np.uint16),
        "documents": np.ones(int(there.sum()), np.int64),
        "weight": weights[there],
    }
    return add_up(pa.table(columns, schema=ROWS))


def add_up(rows: pa.Table) -> pa.Table:
    """Return one row a score, group and bin."""
    keys = ["key", "group", "bin"]
    added = rows.group_by(keys, use_threads=False).aggregate([("documents", "sum"), ("weight", "sum")])
    return added.rename_columns(ROWS.names).cast(ROWS).combine_chunks()


@dataclass(frozen=True)
class _Counted:
    """The rows of one group: rank, bin, documents and weight of each."""

    ranks: Ranks
    bins: Ints
    documents: Ints
    weight: Ints


def settle(rule: Rule, tables: Sequence[pa.Table]) -> pa.Table:
    """Return the model, with what the manifest says of the counts in its metadata.

    Raises:
        InputError: a budget that its cap does not allow, of a group that is not there, or of documents without weight.
    """
    counted = _counted(pa.concat_tables(tables).combine_chunks())
    wanted = _shares(rule, {group: int(each.weight.sum()) for group, each in counted.items()})
    levels: list[dict[str, object]] = []
    about: dict[str, Plain] = {}
    for group in sorted(counted):
        found, about[group] = _group(group, counted[group], wanted[group], rule)
        levels += found
    notes: dict[str, Plain] = {
        "kind": "upsample",
        "weight": rule.weight,
        "best": rule.best,
        "slices": rule.slices,
        "groups": about if len(about) <= MOST_GROUPS else {},
        "groups_with_curves": len(about),
    }
    return pa.Table.from_pylist(levels, schema=MODEL.with_metadata({ABOUT: json.dumps(notes, sort_keys=True)}))


def _counted(rows: pa.Table) -> dict[str, _Counted]:
    ranks = (rows["key"].to_numpy() * np.uint64(MIX_BACK)).astype(np.uint32)
    coded = whole(rows["group"]).dictionary_encode()
    codes = coded.indices.to_numpy()
    bins, documents, weight = (rows[name].to_numpy().astype(np.int64) for name in ("bin", "documents", "weight"))
    order, names = np.argsort(codes, kind="stable"), coded.dictionary.to_pylist()
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    found = {}
    for code, name in enumerate(names):
        mine = order[starts[code] : starts[code + 1]]
        found[name] = _Counted(ranks[mine], bins[mine], documents[mine], weight[mine])
    return found


def _shares(rule: Rule, totals: Mapping[str, int]) -> dict[str, Wanted]:
    """Return what each group gives as a share of its weight; an amount for all is spread over groups in proportion."""
    if totals:
        for group in rule.own:
            if group not in totals:
                known = ", ".join(sorted(named(each) for each in totals))
                raise InputError(f"upsample: groups: no document has {named(group)}; there are {known}")
    alone = rule.own.keys() - rule.spread
    common = sum(total for group, total in totals.items() if group not in alone)
    found = {}
    for group, total in totals.items():
        each = rule.own.get(group, rule.common)
        if total == 0:
            advice = "documents of a finished build come without their texts" if rule.weight == "bytes" else "they are empty"
            raise InputError(f"upsample: the documents of {named(group)} have no {rule.weight}: {advice}; set another weight")
        if each.amount is not None:
            each = replace(each, share=each.amount / (total if group in alone else common))
        found[group] = each
    return found


def named(group: str) -> str:
    """Return a group's name for a message."""
    return "all" if group == ALL else ", ".join("none" if each is None else str(each) for each in json.loads(group))


def _group(group: str, rows: _Counted, wanted: Wanted, rule: Rule) -> tuple[list[dict[str, object]], Plain]:
    """Return the levels of a group, and what the manifest says of it."""
    assert wanted.share is not None, "amounts were made shares"
    try:
        curve = solve(wanted.share, wanted.cap, wanted.zero_below, rule.slices)
    except ValueError as error:
        raise InputError(
            f"upsample: budget of {named(group)}: {error}; lower the budget or zero_below, or raise the cap"
        ) from error
    different, places = np.unique(rows.ranks, return_inverse=True)
    mass = np.zeros(len(different), np.int64)
    np.add.at(mass, places, rows.weight)
    rates = rates_of(mass, curve.means)
    first = np.flatnonzero(np.diff(rates, prepend=-1.0))
    level = np.searchsorted(first, places, side="right") - 1
    weights, documents = (np.zeros((len(first), BINS), np.int64) for _ in range(2))
    np.add.at(weights, (level, rows.bins), rows.weight)
    np.add.at(documents, (level, rows.bins), rows.documents)
    counts = rounded(rates[first], weights, wanted.share * int(mass.sum()))
    begins = different[first]
    columns = (begins.tolist(), counts.base.tolist(), counts.chosen.tolist())
    levels = [{"group": group, "begins": a, "base": b, "chosen": c} for a, b, c in zip(*columns, strict=True)]
    more = np.arange(BINS) < counts.chosen[:, None]
    read = counts.base[:, None] + more
    edges = scores_of(begins) if rule.best == "high" else -scores_of(begins)
    lines = zip(edges.tolist(), rates[first].tolist(), documents.sum(axis=1).tolist(), strict=True)
    return levels, {
        "budget": wanted.share * int(mass.sum()),
        "cap": wanted.cap,
        "curve": _curve(curve),
        "documents": int(documents.sum()),
        "weight": int(mass.sum()),
        "read": int((read * weights).sum()),
        "levels": [{"edge": score, "repeats": rate, "documents": count} for score, rate, count in lines],
        "repeats": _histogram(read, documents, weights),
    }


def _curve(curve: Curve) -> Plain:
    return {
        "power": curve.power,
        "growth": curve.growth,
        "scale": curve.scale,
        "begins": curve.begins,
        "means": curve.means.tolist(),
    }


def _histogram(read: Ints, documents: Ints, weights: Ints) -> Plain:
    """Return count → documents that are read so often, and their weight."""
    found: dict[str, Any] = {}
    for count in np.unique(read[documents > 0]).tolist():
        here = read == count
        found[str(count)] = {"documents": int(documents[here].sum()), "weight": int(weights[here].sum())}
    return found


@dataclass(frozen=True)
class Model:
    """The levels of each group, read from the table that `settle` gives."""

    levels: Mapping[str, tuple[Ranks, Ints, Ints]]

    @classmethod
    def of(cls, table: pa.Table) -> Model:
        """Read the table."""
        found = {}
        groups = np.array(table["group"].to_pylist(), dtype=object)
        for group in dict.fromkeys(groups.tolist()):
            mine = table.take(pa.array(np.flatnonzero(groups == group)))
            base, chosen = (mine[name].to_numpy().astype(np.int64) for name in ("base", "chosen"))
            found[group] = (mine["begins"].to_numpy(), base, chosen)
        return cls(found)

    def counts(self, ids: Sequence[str], scores: Singles, groups: Groups, mantissa_bits: int) -> Ints:
        """Return how often each document is read: 1 where it has no score.

        Raises:
            InputError: a group of which no document had a score when the counts were settled.
        """
        found = np.ones(len(scores), np.int64)
        bins = bins_of(ids)
        ranks = ranks_of(np.nan_to_num(scores), mantissa_bits)
        for code, group in enumerate(groups.names):
            rows = np.flatnonzero((groups.codes == code) & ~np.isnan(scores))
            if len(rows):
                if group not in self.levels:
                    raise InputError(f"upsample: no document had {named(group)} when the counts were settled; settle them anew")
                begins, base, chosen = self.levels[group]
                level = np.maximum(np.searchsorted(begins, ranks[rows], side="right") - 1, 0)
                found[rows] = base[level] + (bins[rows] < chosen[level])
        return found
