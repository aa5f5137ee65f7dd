"""The report's section on buckets: what lies in each, the groups by their own and by common edges, and the drift of an artifact.

Reads `bucket_figures.bucket_figures`; returns markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.html.charts import meter
from jobs.html.markup import Html, data, join, number, percent, plural, size, tag
from jobs.report.sections import isolated, table_of

PARTS = 5  # of the buckets shown of a group: runs of neighbours, from the lowest to the highest


def buckets(stages: Sequence[Mapping[str, Any]]) -> Html | None:
    """Return the section's content, or None for a build without buckets."""
    return join([_stage(stage) for stage in stages]) if stages else None


def _stage(stage: Mapping[str, Any]) -> Html:
    artifact = stage["artifact"]
    source = "found on this build's documents"
    if artifact is not None:
        source = join("of artifact ", tag("b", isolated(artifact["name"])), " (", tag("code", artifact["id"], class_="all"), ")")
    known = join(" Their id is ", tag("code", stage["id"], class_="all"), ".") if stage["id"] else None
    missing = tag("p", f"Its edges cannot be shown: {stage['why']}.", class_="empty") if stage["why"] else None
    without = stage["none"][0]
    lacking = f" {plural(without, 'document has', 'documents have')} no score and no bucket." if without else ""
    lead = tag("p", "Edges are ", source, ", by ", stage["weight"], ".", known, lacking, class_="lead")
    each = [_score(name, score, stage) for name, score in stage["scores"].items()]
    return tag("div", tag("h3", stage["stage"]), lead, missing, _table(stage, None), each, class_="policy")


def _table(stage: Mapping[str, Any], score: Mapping[str, Any] | None) -> Html:
    """Return what lies in each bucket, the highest first: of all scores together, or by one with its edges."""
    counted, edges = stage if score is None else score, None if score is None else score.get("edges")
    total = sum(counted["bytes"])
    rows = [
        {"bucket": n, "level": stage["levels"][n], "documents": counted["documents"][n], "bytes": counted["bytes"][n]}
        for n in reversed(range(len(counted["documents"])))
    ]
    columns: list[Any] = [("bucket", "n", lambda r: data(r["bucket"]))]
    if edges is not None:
        low = score is not None and score.get("best") == "low"
        columns.append(
            (
                "scores, by the edges of all" if stage["by"] else "scores",
                "",
                lambda r: _between(len(rows) - 1 - r["bucket"] if low else r["bucket"], edges),
            )
        )
    if score is None and any(stage["levels"]):
        columns.append(("level", "", lambda r: tag("b", isolated(r["level"]))))
    columns += [
        ("documents", "n", lambda r: data(r["documents"])),
        ("text", "n", lambda r: data(r["bytes"], size(r["bytes"]))),
        ("share", "n", lambda r: percent(r["bytes"], total)),
        ("", "", lambda r: meter(r["bytes"], total)),
    ]
    return table_of(rows, *columns)


def _between(at: int, edges: Sequence[float]) -> str:
    low = f"from {number(edges[at - 1])}" if at else ""
    high = f"below {number(edges[at])}" if at < len(edges) else ""
    return f"{low} {high}".strip()


def _score(name: str, score: Mapping[str, Any], stage: Mapping[str, Any]) -> Html:
    found = [tag("summary", tag("b", isolated(name)), " by itself"), _table(stage, score)]
    if score.get("groups"):
        found += [_groups(score["groups"], stage)]
    drift = _drift(score["drift"]) if score.get("drift") else None
    return join(tag("details", found), drift)


def _groups(groups: Sequence[Mapping[str, Any]], stage: Mapping[str, Any]) -> Html:
    """Return the shares of each group in runs of buckets: by edges of all documents, and by its own."""
    runs = [run for run in np.array_split(np.arange(len(stage["documents"])), PARTS) if len(run)]
    lead = (
        f"Shares of the {stage['weight']} when edges were found: by the edges of all documents → by those that the group has. "
        "The first leave some groups without good buckets; the second make the best of a bad group as good as that of others."
    )
    columns: list[Any] = [
        (" / ".join(stage["by"]), "", lambda r: tag("b", _named(r["group"]))),
        ("documents", "n", lambda r: data(r["documents"])),
        ("edges", "", lambda r: "its own" if r["own"] else "of all"),
    ]
    columns += [(_run(run), "n", lambda r, run=run: _both(r, run)) for run in runs]
    return join(tag("p", lead), table_of(groups, *columns))


def _run(run: np.ndarray[Any, Any]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}"


def _both(row: Mapping[str, Any], run: np.ndarray[Any, Any]) -> str:
    shares = (sum(row[f"{kind}_shares"][n] for n in run) for kind in ("common", "own"))
    return " → ".join(f"{share:.1%}" for share in shares)


def _drift(rows: Sequence[Mapping[str, Any]]) -> Html:
    lead = (
        "How far this build is from what its edges were found on: the part of the weight that lies in other buckets, and the "
        "largest difference of cumulated shares. Nothing is fitted anew by itself."
    )
    table = table_of(
        rows,
        ("documents of", "", lambda r: tag("b", "the build" if r["group"] is None else _named(r["group"]))),
        ("documents", "n", lambda r: data(r["documents"])),
        ("total variation", "n", lambda r: data(r["total_variation"], f"{r['total_variation']:.1%}")),
        ("CDF distance", "n", lambda r: data(r["cdf_distance"], f"{r['cdf_distance']:.1%}")),
    )
    return join(tag("h4", "Drift"), tag("p", lead), table)


def _named(group: Sequence[str | None]) -> Html:
    return isolated(" / ".join("none" if value is None else value for value in group) or json.dumps(group))
