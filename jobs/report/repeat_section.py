"""The report's section on repeats: how often an epoch reads documents, and the curves that say so.

Reads the summary of a run (`pipeline/builds/summary.py`); returns markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobs.html.charts import meter
from jobs.html.markup import Html, data, join, number, percent, plural, tag
from jobs.report.sections import Summary, isolated, table_of


def repeats(summary: Summary) -> Html | None:
    """Return the section's content, or None for a build whose documents are read once."""
    found = summary.get("repeats")
    if not found:
        return None
    tokens, once = found["tokens"], summary["tokens"]
    lead = tag(
        "p",
        "An epoch reads ",
        data(tokens),
        f" tokens, those of the build {number(tokens / once)} times on average." if once else " tokens: the build has none.",
        class_="lead",
    )
    groups = found["about"].get("groups", {})
    about = found["about"]
    return join(lead, _counts(found["passes"], tokens), [_group(name, group, about) for name, group in sorted(groups.items())])


def _counts(passes: list[list[int]], tokens: int) -> Html:
    """Return how many documents are read how often: what is in a pass and in none after it."""
    after = [*passes[1:], [0, 0]]
    rows = [
        {"count": k, "documents": here[0] - there[0], "tokens": here[1] - there[1], "read": k * (here[1] - there[1])}
        for k, (here, there) in enumerate(zip(passes, after, strict=True), 1)
        if here[0] > there[0]
    ]
    return table_of(
        rows,
        ("times an epoch", "n", lambda r: data(r["count"])),
        ("documents", "n", lambda r: data(r["documents"])),
        ("tokens", "n", lambda r: data(r["tokens"])),
        ("tokens read", "n", lambda r: data(r["read"])),
        ("share", "n", lambda r: percent(r["read"], tokens)),
        ("", "", lambda r: meter(r["read"], tokens)),
    )


def _group(name: str, group: Mapping[str, Any], about: Mapping[str, Any]) -> Html:
    """Return the curve of a group: the budget, what is read, and how often documents of each range of scores are."""
    curve, top = group["curve"], max(group["curve"]["means"])
    title = "All documents" if name == "" else ", ".join("none" if each is None else str(each) for each in json.loads(name))
    dropped = f" Nothing is read below the percentile {number(curve['begins'])}." if curve["begins"] else ""
    budget = tag(
        "p",
        f"Budget {number(round(group['budget']))} {about['weight']}; read ",
        data(group["read"]),
        f" of {number(group['weight'])} in {plural(group['documents'], 'document')}, at most {number(group['cap'])} times. ",
        f"f(x) = {number(curve['scale'])} · (x - {number(curve['begins'])})^{number(curve['power'])} · ",
        f"e^({number(curve['growth'])} (x - {number(curve['begins'])})), x the percentile of the score.{dropped}",
    )
    side = "from" if about["best"] == "high" else "up to"
    rows = table_of(
        group["levels"],
        ("scores", "n", lambda r: f"{side} {number(r['edge'])}"),
        ("documents", "n", lambda r: data(r["documents"])),
        ("times an epoch", "n", lambda r: data(r["repeats"], number(r["repeats"]))),
        ("", "", lambda r: meter(r["repeats"], top)),
    )
    levels = tag("details", tag("summary", "How often by score"), rows)
    return tag("div", tag("h3", isolated(title)), budget, levels, class_="policy")
