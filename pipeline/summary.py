"""Add up a build: the ledgers of its units, per stage and reason, with samples, histograms, shards and timings.

Reads the record of a run (`runs/<time>-<id>.json`) and the unit manifests it names; returns plain data, for the report and
for machines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.drive import read_all
from pipeline.ledger import Measure, smallest
from pipeline.store import Store

SAMPLES = 8  # of dropped documents shown a reason
QUARANTINED = 500  # rows of the quarantine listed; the counts are of all

Manifest = Mapping[str, Any]


def summarize(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole account of a build as JSON-ready data.

    Keys: build, name, manifest, run, inputs, stages (in, kept, dropped, quarantined, cpu_s, wall_s, by name in the order of
    documents), steps, samples, quarantine, measures, shards, languages, documents, tokens, text_bytes.
    """
    steps = [(step, read_all(store, step["units"])) for step in record["steps"]]
    segments = [manifest for step, manifests in steps if step["kind"] == "segment" for manifest in manifests]
    built = json.loads(store.read(record["manifest"]))
    shards = built["shards"]
    return {
        **{key: record[key] for key in ("build", "name", "manifest", "run", "inputs")},
        "stages": _stages(record["stages"], segments, [m for s, ms in steps if s["kind"] != "segment" for m in ms]),
        "steps": [_step(step, manifests) for step, manifests in steps],
        "samples": _samples(segments),
        "quarantine": _quarantine(store, segments),
        "measures": _measures(segments),
        "shards": shards,
        "languages": _languages(segments),
        "documents": sum(shard["documents"] for shard in shards),
        "tokens": sum(shard.get("tokens", 0) for shard in shards),
        "text_bytes": sum(shard.get("text_bytes", 0) for shard in shards),
    }


def _stages(
    named: Sequence[Mapping[str, Any]], segments: Iterable[Manifest], barriers: Iterable[Manifest]
) -> list[dict[str, Any]]:
    """Return one account a stage; of a barrier, what entered before the meeting and what was kept after it."""
    total: dict[str, dict[str, Any]] = {
        stage["stage"]: {**stage, "in": 0, "kept": 0, "dropped": Counter(), "quarantined": Counter(), "cpu_s": 0.0, "wall_s": 0.0}
        for stage in named
    }
    for manifest in segments:
        for account in manifest["ledger"]:
            sum_ = total[account["stage"]]
            sum_["in"] += account["in"] if account["phase"] != "after" else 0
            sum_["kept"] += account["kept"] if account["phase"] != "before" else 0
            for key in ("dropped", "quarantined", "cpu_s", "wall_s"):
                sum_[key] += Counter(account[key]) if isinstance(account[key], dict) else account[key]
    for manifest in barriers:
        seconds = manifest["seconds"]
        sum_ = total[manifest["stage"]]
        sum_["cpu_s"] += seconds["cpu"]
        sum_["wall_s"] += seconds["wall"]
    ordered = {"dropped", "quarantined"}
    return [
        {key: dict(sorted(value.items())) if key in ordered else value for key, value in account.items()}
        for account in total.values()
    ]


def _step(step: Mapping[str, Any], manifests: Sequence[Manifest]) -> dict[str, Any]:
    outputs = [output for manifest in manifests for output in (*manifest["outputs"].values(), *manifest["parts"])]
    return {
        **{key: step[key] for key in ("name", "kind", "stages")},
        "units": len(manifests),
        "reused": len(manifests) - step["done"],
        "cpu_s": sum(manifest["seconds"]["cpu"] for manifest in manifests),
        "wall_s": sum(manifest["seconds"]["wall"] for manifest in manifests),
        "bytes": sum(output["bytes"] for output in outputs),
    }


def _samples(segments: Iterable[Manifest]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return for each stage and reason those of all units' samples that have the smallest ids, whichever file they are from."""
    samples: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for manifest in segments:
        for account in manifest["ledger"]:
            of_stage = samples.setdefault(account["stage"], {}) if account["samples"] else {}
            for reason, rows in account["samples"].items():
                of_stage[reason] = smallest([*of_stage.get(reason, []), *rows], SAMPLES)
    return samples


def _quarantine(store: Store, segments: Iterable[Manifest]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for manifest in segments:
        output = manifest["outputs"].get("quarantined")
        if output is None or len(found) >= QUARANTINED:
            continue
        with store.open(output["data"]) as file:
            rows = pa.ipc.open_file(file).read_all().slice(0, QUARANTINED - len(found)).to_pylist()
        found += [{**{key: row[key] for key in ("id", "url", "file", "offset", "stage")}, "error": row["detail"]} for row in rows]
    return found


def _languages(segments: Iterable[Manifest]) -> dict[str, dict[str, int]]:
    """Return documents, tokens and text bytes of the build by language, the most tokens first."""
    names = ("documents", "tokens", "text_bytes")
    total: dict[str, list[int]] = {}
    for manifest in segments:
        for part in manifest["parts"]:
            for language, counts in part["stats"].get("languages", {}).items():
                total[language] = [a + b for a, b in zip(total.get(language, [0, 0, 0]), counts, strict=True)]
    ordered = sorted(total.items(), key=lambda item: (-item[1][1], item[0]))
    return {language: dict(zip(names, counts, strict=True)) for language, counts in ordered}


def _measures(segments: Iterable[Manifest]) -> dict[str, Any]:
    total: dict[str, Measure] = {}
    for manifest in segments:
        for name, data in manifest["measures"].items():
            measure = Measure.read(data)
            if name in total:
                total[name].merge(measure)
            else:
                total[name] = measure
    return {name: _measure(measure) for name, measure in total.items()}


def _measure(measure: Measure) -> dict[str, Any]:
    plain = measure.plain()
    if measure.kind == "number":
        del plain["sparse"]
        plain["bins"] = [list(edges) for edges in measure.bins()]
    return plain
