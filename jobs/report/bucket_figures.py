"""What the stages `buckets` of a build did: what lies in each bucket, the edges by group, how far fresh ones would be from them.

Reads the summary of a run, and the models that its stages settled on or took from artifacts. Returns plain data, for the page
(`bucket_sections.py`) and for machines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.errors import UserError
from gristmill.json_values import Plain
from gristmill.selection.quantiles import Ints, cdf_distance, total_variation
from gristmill.storage.store import Store
from pipeline import artifact as artifacts
from pipeline.checked import reading
from pipeline.lineage import BuildStage
from pipeline.records import RunRecord, read_unit
from pipeline.units.ledger import REST, joint_name

STAGE = re.compile(r"buckets(-[0-9]+)?")
UNITS = ("documents", "bytes")
ALL = ""
MOST_GROUPS = 50  # of each score, those with the most bytes

Counts = Mapping[str, Ints]  # group → int64 [buckets + 1, 2]: documents and bytes of each bucket, and of documents without one


def bucket_figures(store: Store, record: RunRecord, summary: Mapping[str, Any]) -> list[dict[str, Plain]]:
    """Return an object for each stage `buckets` of a build.

    Keys: stage, id, artifact, weight, by, levels (bucket → name), documents and bytes (of each bucket), none (documents and bytes
    without one), scores (name → edges, documents, bytes, groups, drift), and why a model could not be read. In `groups` are
    shares of the weight by bucket, by edges of the group's own and by those of all documents, as they were when edges were found;
    in `drift` how far the build's own shares are from these: total variation, and the largest difference of cumulated shares.

    Raises:
        Damaged: a model that the build committed is missing or damaged.
    """
    return [_figures(store, record, summary, stage) for stage in record.stages if STAGE.fullmatch(stage.stage)]


def _figures(store: Store, record: RunRecord, summary: Mapping[str, Any], stage: BuildStage) -> dict[str, Plain]:
    given: Mapping[str, Any] = stage.parameters
    scores, name, by = sorted(given["scores"]), given["name"], given["by"]
    model, why = _model(store, record, stage)
    first = given["scores"][scores[0]]
    buckets = first["quantiles"] if "quantiles" in first else len(first["edges"]) + 1
    counts = {
        column: _counts(summary["joint"].get(f"{stage.stage}.{joint_name((*by, column))}"), buckets)
        for column in (name, *(f"{name}_{score}" for score in scores if len(scores) > 1))
    }
    total = sum(counts[name].values(), np.zeros((buckets + 1, 2), np.int64))
    levels = [(low, high, level) for level, (low, high) in (given["levels"] or {}).items()]
    return {
        "stage": stage.stage,
        "id": None if model is None else (model.schema.metadata or {}).get(b"id", b"").decode(),
        "artifact": given.get("from"),
        "weight": given["weight"],
        "by": by,
        "levels": [next((level for low, high, level in levels if low <= n <= high), None) for n in range(buckets)],
        "documents": total[:-1, 0].tolist(),
        "bytes": total[:-1, 1].tolist(),
        "none": total[-1].tolist(),
        "scores": {
            score: _score(score, model, counts[f"{name}_{score}" if len(scores) > 1 else name], given, buckets)
            for score in scores
        },
        "why": why,
    }


def _score(score: str, model: pa.Table | None, counts: Counts, given: Mapping[str, Any], buckets: int) -> dict[str, Plain]:
    total = sum(counts.values(), np.zeros((buckets + 1, 2), np.int64))
    found: dict[str, Plain] = {"documents": total[:-1, 0].tolist(), "bytes": total[:-1, 1].tolist()}
    if model is None:
        return found
    rows = [row for row in model.to_pylist() if row["score"] == score]
    fitted = {row["group"]: row for row in rows}
    groups = [row for row in rows if row["group"] != ALL] if given["by"] else []
    groups = sorted(groups, key=lambda row: (-row["bytes"], row["group"]))[:MOST_GROUPS]
    unit = UNITS.index(given["weight"])
    return {
        **found,
        "edges": [float(str(np.float32(edge))) for edge in fitted[ALL]["edges"]],
        "best": given["scores"][score]["best"],
        "groups": [_group(row, given["weight"]) for row in groups],
        "drift": _drift(fitted, counts, groups, unit) if "from" in given else None,
    }


def _group(row: Mapping[str, Any], weight: str) -> dict[str, Plain]:
    return {
        "group": json.loads(row["group"]),
        **{key: row[key] for key in ("documents", "bytes", "own")},
        "own_shares": _shares(row[f"bucket_{weight}"]),
        "common_shares": _shares(row[f"common_{weight}"]),
    }


def _drift(
    fitted: Mapping[str, Mapping[str, Any]], counts: Counts, groups: Sequence[Mapping[str, Any]], unit: int
) -> list[Plain]:
    """Return how far the build's shares are from those that edges were found with: of all documents, then of each group."""
    kind = f"bucket_{UNITS[unit]}"
    # Of all documents by the edges that each has: those of its group.
    then = np.array([row[kind] for group, row in fitted.items() if group != ALL or len(fitted) == 1], np.int64).sum(axis=0)
    now = sum(counts.values(), np.zeros((len(then) + 1, 2), np.int64))
    pairs = [(None, then, now), *((row["group"], np.array(row[kind], np.int64), counts.get(row["group"])) for row in groups)]
    return [
        {
            "group": None if group is None else json.loads(group),
            "documents": int(there[:-1, 0].sum()),
            "total_variation": total_variation(old, there[:-1, unit]),
            "cdf_distance": cdf_distance(old, there[:-1, unit]),
        }
        for group, old, there in pairs
        if there is not None and there[:-1, unit].any()
    ]


def _shares(mass: Sequence[int]) -> list[float]:
    total = sum(mass)
    return [each / total if total else 0.0 for each in mass]


def _counts(joint: Mapping[str, Any] | None, buckets: int) -> Counts:
    """Return the counts by group of columns that were counted together, the last of which is the bucket."""
    found: dict[str, Ints] = {}
    for key, pair in ({} if joint is None else joint["joint"]).items():
        if key == REST:  # of rare groups, whose buckets are not known any more
            continue
        *group, bucket = json.loads(key)
        name = json.dumps(group, ensure_ascii=False) if group else ALL
        found.setdefault(name, np.zeros((buckets + 1, 2), np.int64))[buckets if bucket is None else int(bucket)] += pair
    return found


def _model(store: Store, record: RunRecord, stage: BuildStage) -> tuple[pa.Table | None, str | None]:
    """Return the model of a stage: what the build settled on, or that of its artifact; or why that cannot be read."""
    for step in record.steps:
        if step.kind == "settle" and stage.stage in step.stages:
            (unit,) = step.units
            with reading(store, read_unit(store, unit).outputs["settled"], unit) as file:
                return file.read_all(), None
    taken: Any = stage.parameters.get("from")
    folder = _folder(record, stage)
    try:
        artifact = artifacts.read(folder)
        if artifact.id != taken["id"]:
            return None, f"the artifact in {folder} is another now ({artifact.id})"
        return artifacts.table_of(artifact, folder), None
    except UserError as error:
        return None, str(error)


def _folder(record: RunRecord, stage: BuildStage) -> str:
    """Return where the config of a run has the artifact of a stage."""
    place = [each.stage for each in record.stages if each.stage != "save"].index(stage.stage) - 1  # the first is the source
    stages = [each for each in record.run.get("config", {}).get("stages", []) if next(iter(each)) != "save"]
    return str(next(iter(stages[place].values()))["from"]) if place < len(stages) else ""
