"""Add up a build: the ledgers of its units, per stage and reason, with samples, histograms, shards and timings.

Reads the record of a run and the unit manifests it names; returns plain data, for the report and for machines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NotRequired, Required, TypedDict

from gristmill.errors import Damaged, FormatError
from gristmill.format import manifest as mf
from gristmill.storage.store import Store
from pipeline.builds.barren import barren
from pipeline.checked import fault, reading
from pipeline.lineage import BuildStage
from pipeline.records import RunRecord, StepRecord, UnitRecord, read_units
from pipeline.units.ledger import Joint, Measure, smallest

SAMPLES = 8  # of dropped documents shown a reason
QUARANTINED = 500  # rows of the quarantine listed; the counts are of all

StageSummary = TypedDict(
    "StageSummary",
    {
        "stage": str,
        "in": int,
        "made": NotRequired[int],
        "kept": int,
        "dropped": Mapping[str, int],
        "quarantined": Mapping[str, int],
        "asked": NotRequired[Mapping[str, int]],
        "cpu_s": float,
        "wall_s": float,
    },
)
"""An entry of `stages`, without what a plan says of the stage. Its documents are in + made = kept + dropped + quarantined.

`asked`, of a stage that asks: how many answers it has used, and what these took (tokens).
"""


class MeasureSummary(TypedDict, total=False):
    """An entry of `measures`: of a category `counts` alone, of a number the rest; `bins` are [low, high, count]."""

    kind: Required[str]
    counts: Mapping[str, int]
    count: int
    sum: float
    min: float
    max: float
    bins: Sequence[Sequence[float]]


Named = tuple[str, UnitRecord]  # a unit's manifest with its name in the store


def summarize(store: Store, record: RunRecord) -> dict[str, Any]:
    """Return the whole account of a build as JSON-ready data.

    Keys: build, name, manifest, run, inputs, stages (in, kept, dropped, quarantined, cpu_s, wall_s, and made where documents are
    made of others; in the order of documents), steps, barren (inputs without a document), samples, quarantine, measures, joint,
    shards, languages, documents, tokens, text_bytes; and repeats where documents are repeated (passes: documents and tokens of
    each pass of an epoch; tokens: of all; about: what the manifest says of the counts).

    Raises:
        Damaged: one of these records is missing or damaged.
    """
    steps = [(step, read_units(store, step.units)) for step in record.steps]
    for step, units in steps:
        for name, unit in zip(step.units, units, strict=True):
            _check_stages(store, name, unit, [each.stage for each in record.stages], barrier=step.kind != "segment")
    segments = [unit for step, units in steps if step.kind == "segment" for unit in units]
    names = [name for step in record.steps if step.kind == "segment" for name in step.units]
    content = _content(store, record.manifest)
    shards: list[dict[str, Any]] = content["shards"]
    return {
        **{key: getattr(record, key) for key in ("build", "name", "manifest", "run")},
        "inputs": [asdict(each) for each in record.inputs],
        "stages": _stages(record.stages, segments, [unit for step, units in steps if step.kind != "segment" for unit in units]),
        "steps": [_step(step, units) for step, units in steps],
        "barren": [
            asdict(each) for step, units in steps[:1] for each in barren(store, list(zip(step.units, units, strict=True)))
        ],
        "samples": _samples(segments),
        "quarantine": _quarantine(store, list(zip(names, segments, strict=True))),
        "measures": _measures(segments),
        "joint": _joint(segments),
        "shards": shards,
        "languages": _languages(segments),
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": sum(shard.get("tokens", 0) for shard in shards),
        "text_bytes": sum(shard.get("text_bytes", 0) for shard in shards),
        **_repeats(content),
    }


def _check_stages(store: Store, name: str, unit: UnitRecord, stages: Sequence[str], *, barrier: bool) -> None:
    """Raise Damaged where a unit has an account of a stage that the run does not have."""
    for stage in [unit.stage] if barrier else [account["stage"] for account in unit.ledger]:
        if stage not in stages:
            raise Damaged(f"{store.uri(name)} is damaged: 'stage' is {stage!r}, the run has {', '.join(stages)}", name)


def faults_of_files(store: Store, summary: Mapping[str, Any], *, whole: bool = False) -> list[str]:
    """Return which files of the build's shards are missing or not as its manifest says: in size, or `whole` in their sha256."""
    folder = summary["manifest"].rpartition("/")[0]
    found = []
    for file in (file for shard in summary["shards"] for file in _files(shard)):
        wrong = fault(store, f"{folder}/{file['file']}", file["bytes"], file["sha256"] if whole else None)
        if wrong is not None:
            found.append(f"{store.uri(folder)}/{file['file']} {wrong}")
    return found


def _files(shard: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the manifest says of a shard's file, its counts and its sidecars."""
    counts = [shard["repeats"]] if "repeats" in shard else []
    return [shard, *counts, *shard.get("sidecars", {}).values()]


def _repeats(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return how often documents are read, of a manifest that says so."""
    every = [shard["repeats"]["passes"] for shard in content["shards"] if "repeats" in shard]
    if not every:
        return {}
    numbered = [(k, pair) for passes in every for k, pair in enumerate(passes)]
    passes = [[sum(pair[i] for at, pair in numbered if at == k) for i in range(2)] for k in range(max(map(len, every)))]
    about = content.get("about", {}).get("repeats", {}).get("repeats", {})
    return {"repeats": {"passes": passes, "tokens": sum(tokens for _, tokens in passes), "about": about}}


def _content(store: Store, manifest: str) -> dict[str, Any]:
    """Return what the manifest of a build says."""
    try:
        content: dict[str, Any] = json.loads(store.read(manifest))
        if manifest.endswith(f"/{mf.NAME}"):
            mf.parse(content, "it")
        content["shards"]
    except FileNotFoundError as error:
        raise Damaged(f"{store.uri(manifest)} is missing", manifest) from error
    except FormatError as error:
        raise Damaged(f"{store.uri(manifest)} is damaged: {error}", manifest) from error
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Damaged(
            f"{store.uri(manifest)} is damaged: it is no manifest of a build ({type(error).__name__})", manifest
        ) from error
    return content


def _stages(named: Sequence[BuildStage], segments: Iterable[UnitRecord], barriers: Iterable[UnitRecord]) -> list[dict[str, Any]]:
    """Return one account a stage; of a barrier, what entered before the meeting and what was kept after it."""
    zeros = {"in": 0, "kept": 0, "cpu_s": 0.0, "wall_s": 0.0}
    total: dict[str, dict[str, Any]] = {
        stage.stage: {**asdict(stage), **zeros, "dropped": Counter(), "quarantined": Counter()} for stage in named
    }
    for unit in segments:
        for account in unit.ledger:
            sum_ = total[account["stage"]]
            sum_["in"] += account["in"] if account["phase"] != "after" else 0
            sum_["kept"] += account["kept"] if account["phase"] != "before" else 0
            if "made" in account:
                sum_["made"] = sum_.get("made", 0) + account["made"]
            if "asked" in account:
                sum_["asked"] = sum_.get("asked", Counter()) + Counter(account["asked"])
            for key in ("dropped", "quarantined", "cpu_s", "wall_s"):
                sum_[key] += Counter(account[key]) if isinstance(account[key], dict) else account[key]
    for unit in barriers:
        assert unit.stage is not None, "reduces and settles say whose they are"
        total[unit.stage]["cpu_s"] += unit.seconds["cpu"]
        total[unit.stage]["wall_s"] += unit.seconds["wall"]
    ordered = {"dropped", "quarantined", "asked"}
    return [
        {key: dict(sorted(value.items())) if key in ordered else value for key, value in account.items()}
        for account in total.values()
    ]


def _step(step: StepRecord, units: Sequence[UnitRecord]) -> dict[str, Any]:
    return {
        **{key: getattr(step, key) for key in ("name", "kind", "stages")},
        "units": len(units),
        "reused": len(units) - step.done,
        "cpu_s": sum(unit.seconds["cpu"] for unit in units),
        "wall_s": sum(unit.seconds["wall"] for unit in units),
        "bytes": sum(data.bytes for unit in units for data in unit.files()),
    }


def _samples(segments: Iterable[UnitRecord]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return for each stage and reason those of all units' samples that have the smallest ids, whichever file they are from."""
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for unit in segments:
        for account in unit.ledger:
            of_stage = samples.setdefault(account["stage"], {}) if account["samples"] else {}
            for reason, rows in account["samples"].items():
                of_stage[reason] = smallest([*of_stage.get(reason, []), *rows], SAMPLES)
    return samples


def _quarantine(store: Store, segments: Iterable[Named]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, unit in segments:
        output = unit.outputs.get("quarantined")
        if output is None or len(found) >= QUARANTINED:
            continue
        with reading(store, output, name) as file:
            rows = file.read_all().slice(0, QUARANTINED - len(found)).to_pylist()
        found += [{**{key: row[key] for key in ("id", "url", "file", "offset", "stage")}, "error": row["detail"]} for row in rows]
    return found


def _languages(segments: Iterable[UnitRecord]) -> dict[str, dict[str, int]]:
    """Return documents, tokens and text bytes of the build by language, the most tokens first."""
    names = ("documents", "tokens", "text_bytes")
    total: dict[str, list[int]] = {}
    for unit in segments:
        for part in unit.parts:
            for language, counts in part.stats.get("languages", {}).items():
                total[language] = [a + b for a, b in zip(total.get(language, [0, 0, 0]), counts, strict=True)]
    ordered = sorted(total.items(), key=lambda item: (-item[1][1], item[0]))
    return {language: dict(zip(names, counts, strict=True)) for language, counts in ordered}


def _measures(segments: Iterable[UnitRecord]) -> dict[str, Any]:
    total: dict[str, Measure] = {}
    for unit in segments:
        for name, data in unit.measures.items():
            if data["kind"] == "joint":
                continue
            measure = Measure.read(data)
            if name in total:
                total[name].merge(measure)
            else:
                total[name] = measure
    return {name: _measure(measure) for name, measure in total.items()}


def _joint(segments: Iterable[UnitRecord]) -> dict[str, Any]:
    total: dict[str, Joint] = {}
    for unit in segments:
        for name, data in unit.measures.items():
            if data["kind"] == "joint":
                found = Joint.read(data)
                total.setdefault(name, Joint(found.columns)).merge(found)
    return {name: joint.plain() for name, joint in total.items()}


def _measure(measure: Measure) -> dict[str, Any]:
    plain = measure.plain()
    if measure.kind == "number":
        del plain["sparse"]
        plain["bins"] = [list(edges) for edges in measure.bins()]
    return plain
