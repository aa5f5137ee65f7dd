"""What `select` sends through the exchange: histogram rows from the shards, then cuts, then what the manifest says of them.

Reads flat tokens, gives Arrow tables. A row belongs to an item: each policy has one of its own (its tally: candidates, and tokens
without a score), and one for each of its gates whose share is of many documents (a histogram). Sums are of whole numbers, so
neither the split into tables nor the order of shards shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole
from gristmill.json_values import Plain
from gristmill.selection import histogram, selection
from gristmill.selection.histogram import Cut, Histogram
from gristmill.selection.policy import Gate, Policy
from gristmill.selection.selection import ALL, Tokens

COUNTS = ("tokens", "bytes", "passed_tokens", "passed_bytes")  # in the order of `Histogram.counts`
ADDRESS = ("item", "group", "bin")
ROWS = pa.schema(
    [
        ("key", pa.uint64()),
        ("item", pa.int32()),
        ("group", pa.uint64()),  # of shards: the number of the file; else ALL
        ("bin", pa.int32()),
        *((name, pa.int64()) for name in COUNTS),
    ]
)
REDUCED = pa.schema([*list(ROWS)[1:], ("cut", pa.string())])
MODEL = pa.schema(
    [("policy", pa.string()), ("gate", pa.int32()), ("group", pa.uint64()), ("cut", pa.string()), ("about", pa.string())]
)

CANDIDATES, MISSING = 0, 1  # the bins of a tally
TALLY = -1  # instead of the number of a gate
MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)  # odd constants that spread the bits of a product
SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Settled:
    """The model: for each policy the cuts of its gates by group (None: gates that need none), and the notes on it."""

    cuts: Mapping[str, Sequence[Mapping[int, Cut] | None]]
    about: Mapping[str, Mapping[str, Plain]]

    @classmethod
    def of(cls, policies: Mapping[str, Policy], model: pa.Table) -> Settled:
        """Read the table that `settle` made."""
        cuts: dict[str, list[dict[int, Cut] | None]] = {
            name: [{} if gate.pooled else None for gate in policy.gates()] for name, policy in policies.items()
        }
        about = {}
        for row in model.to_pylist():
            if row["gate"] == TALLY:
                about[row["policy"]] = json.loads(row["about"])
            else:
                groups = cuts[row["policy"]][row["gate"]]
                assert groups is not None
                groups[row["group"]] = _read(row["cut"])
        return cls(cuts, about)


def items(policies: Mapping[str, Policy]) -> list[tuple[str, int]]:
    """Return the items: (policy, number of the gate or `TALLY`); an item's number is its place."""
    found = []
    for name, policy in policies.items():
        found += [(name, TALLY), *((name, number) for number, gate in enumerate(policy.gates()) if gate.pooled)]
    return found


def numbers_of(files: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return a number for each name, a hash of it: uint64."""
    coded = whole(files).dictionary_encode()
    hashed = [hashlib.blake2b(name.encode(), digest_size=8, person=b"select").digest() for name in coded.dictionary.to_pylist()]
    return np.asarray(np.frombuffer(b"".join(hashed), "<u8")[coded.indices.to_numpy()], np.uint64)


# ---- counting ----


def count(policies: Mapping[str, Policy], tokens: Tokens) -> pa.Table:
    """Return the rows of some documents."""
    parts = [ROWS.empty_table()]
    firsts = np.zeros(int(tokens.bounds[-1]), np.bool_)
    firsts[tokens.bounds[:-1][np.diff(tokens.bounds) > 0]] = True
    item = 0
    for policy in policies.values():
        scores, candidates = selection.scores_of_gates(policy, tokens)
        if policy.online:
            candidates = ~np.isnan(selection.scores_of(policy, tokens))
        passed = selection.decided(policy, tokens, scores, candidates)
        parts.append(_rows(item, ALL, _tally(candidates, passed, ~candidates & ~firsts, tokens.lengths)))
        item += 1
        for gate, score in zip(policy.gates(), scores, strict=True):
            if gate.pooled:
                found = selection.count(gate, tokens, score, candidates, passed)
                parts += [_rows(item, group, each) for group, each in sorted(found.items())]
                item += 1
    return pa.concat_tables(parts).combine_chunks()


def _tally(
    candidates: npt.NDArray[np.bool_],
    passed: npt.NDArray[np.bool_],
    missing: npt.NDArray[np.bool_],
    lengths: npt.NDArray[np.int32] | None,
) -> Histogram:
    sizes = np.zeros(len(candidates), np.int64) if lengths is None else np.maximum(lengths, 0)
    sums = [[int(marks.sum()), int(sizes[marks].sum())] for marks in (candidates, passed, missing)]
    counts = np.array([[*sums[0], *sums[1]], [*sums[2], 0, 0]], np.int64)
    return Histogram(np.array([CANDIDATES, MISSING], np.int32), counts)


def _rows(item: int, group: int, found: Histogram) -> pa.Table:
    size = len(found.bins)
    # All rows of a shard meet, to be settled where they do; those of the build spread, so that no one has to hold them all.
    spread = found.bins.astype(np.int64).view(np.uint64) if group == ALL else np.full(size, group, np.uint64)
    keys = (spread + np.full(size, item + 1, np.uint64) * MIX_1) * MIX_2
    keys = (keys ^ (keys >> SHIFT)) * MIX_1
    columns = [keys ^ (keys >> SHIFT), np.full(size, item, np.int32), np.full(size, group, np.uint64), found.bins]
    return pa.table([*columns, *(np.ascontiguousarray(found.counts[:, i]) for i in range(len(COUNTS)))], schema=ROWS)


def add_up(rows: pa.Table) -> pa.Table:
    """Return one row for each item, group and bin; the same columns."""
    sums = rows.group_by(["key", *ADDRESS], use_threads=False).aggregate([(name, "sum") for name in COUNTS])
    return pa.table([sums[name if name in ("key", *ADDRESS) else f"{name}_sum"] for name in ROWS.names], schema=ROWS)


# ---- settling ----


def reduce(policies: Mapping[str, Policy], rows: pa.Table) -> pa.Table:
    """Return the rows added up, without their keys; instead of those of a shard one with its cut."""
    whole = add_up(rows).drop_columns(["key"])
    whole = whole.append_column("cut", pa.nulls(whole.num_rows, pa.string()))
    single = [number for number, gate in enumerate(_gates(policies)) if gate is not None and gate.scope == "shard"]
    of_shards = pc.is_in(whole["item"], pa.array(single, pa.int32()))
    parts = [whole.filter(pc.invert(of_shards))]
    kept = whole.filter(of_shards).sort_by([("item", "ascending"), ("group", "ascending")])
    if kept.num_rows:
        item, group = kept["item"].to_numpy(), kept["group"].to_numpy()
        edges = np.flatnonzero((np.diff(item) != 0) | (np.diff(group) != 0)) + 1
        for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(item)], strict=True):
            gate = _gates(policies)[item[low]]
            assert gate is not None
            cut = _written(_cut(gate, kept.slice(low, high - low)))
            row = {"item": item[low], "group": group[low], "bin": 0, **dict.fromkeys(COUNTS, 0), "cut": cut}
            parts.append(pa.Table.from_pylist([row], schema=REDUCED))
    return pa.concat_tables(parts).cast(REDUCED)


def settle(policies: Mapping[str, Policy], rows: pa.Table, bytes_known: bool) -> pa.Table:
    """Return the model: the cuts, and for each policy what the manifest is to say.

    Args:
        policies: by name.
        rows: of all calls of `reduce`.
        bytes_known: whether bytes were counted.
    """
    found: list[dict[str, Any]] = []
    cuts: dict[tuple[str, int], dict[int, Cut]] = {}
    tallies: dict[str, pa.Table] = {}
    for number, ((name, place), gate) in enumerate(zip(items(policies), _gates(policies), strict=True)):
        own = rows.filter(pc.equal(rows["item"], pa.scalar(number, pa.int32())))
        if gate is None:
            tallies[name] = own
            continue
        if gate.scope == "shard":
            groups = {row["group"]: _read(row["cut"]) for row in own.sort_by("group").select(["group", "cut"]).to_pylist()}
        else:
            groups = {ALL: _cut(gate, own)}
        cuts[name, place] = groups
        found += [{"policy": name, "gate": place, "group": group, "cut": _written(cut)} for group, cut in groups.items()]
    for name, policy in policies.items():
        own_cuts = [cuts.get((name, number)) for number in range(len(policy.gates()))]
        about = _about(policy, tallies[name], own_cuts, bytes_known)
        found.append({"policy": name, "gate": TALLY, "about": json.dumps(about, sort_keys=True)})
    return pa.Table.from_pylist(found, schema=MODEL)


def _gates(policies: Mapping[str, Policy]) -> list[Gate | None]:
    """Return the gate of each item, None for tallies."""
    return [None if number == TALLY else policies[name].gates()[number] for name, number in items(policies)]


def _cut(gate: Gate, rows: pa.Table) -> Cut:
    counts = np.stack([rows[name].to_numpy() for name in COUNTS], axis=1)
    assert gate.keep is not None
    return histogram.cut_of(histogram.add_up(rows["bin"].to_numpy(), counts), gate.keep, gate.unit, gate.direction)


def _written(cut: Cut) -> str:
    return json.dumps(asdict(cut))


def _read(text: str) -> Cut:
    fields: dict[str, Any] = json.loads(text)
    pairs = {name: tuple(fields[name]) for name in ("total", "kept", "passed")}
    return Cut(**{**fields, **pairs})


# ---- what the manifest says ----


def _about(policy: Policy, tally: pa.Table, cuts: Sequence[Mapping[int, Cut] | None], bytes_known: bool) -> dict[str, Plain]:
    """Return the policy's parameters, what there was to select from, and what was selected.

    `missing`: tokens without a score, beside the first of each document. `kept`: shares of the candidates; of a soft policy those
    that weigh at least a half; null where the gates' shares alone do not tell, as for two rankings.
    """
    sums = {row["bin"]: [row[name] for name in COUNTS] for row in tally.to_pylist()}
    tokens, size, passed_tokens, passed_bytes = sums.get(CANDIDATES, [0, 0, 0, 0])
    notes: dict[str, Plain] = {
        "policy": asdict(policy),
        "candidates": {"tokens": tokens, "bytes": size if bytes_known else None},
        "missing": sums.get(MISSING, [0])[0],
    }
    if policy.online:
        return notes
    pooled = [each for each in cuts if each is not None]
    kept: list[float] | None = [passed_tokens, passed_bytes]
    if pooled:
        kept = _sums([cut.passed for cut in pooled[0].values()]) if len(pooled) == 1 else None
    gates = [_gate(gate, each, bytes_known) for gate, each in zip(policy.gates(), cuts, strict=True)]
    return {**notes, "gates": gates, "kept": None if kept is None else _shares(kept, [tokens, size], bytes_known)}


def _gate(gate: Gate, cuts: Mapping[int, Cut] | None, bytes_known: bool) -> dict[str, Plain]:
    if cuts is None:
        return {"threshold": gate.threshold}  # null for a share of each document or sequence
    found = list(cuts.values())
    edges = [cut.threshold for cut in found if cut.threshold is not None]
    kept = _shares(_sums([cut.kept for cut in found]), _sums([cut.total for cut in found]), bytes_known)
    error = max((cut.error for cut in found), default=0.0)
    if gate.scope == "shard":
        return {"thresholds": [min(edges), max(edges)] if edges else None, "shards": len(found), "error": error, "kept": kept}
    return {"threshold": edges[0] if edges else None, "error": error, "kept": kept}


def _sums(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [sum(tokens for tokens, _ in pairs), sum(size for _, size in pairs)]


def _shares(kept: Sequence[float], total: Sequence[float], bytes_known: bool) -> dict[str, float | None]:
    tokens, size = (kept[i] / total[i] if total[i] else None for i in range(2))
    return {"tokens": tokens, "bytes": size if bytes_known else None}
