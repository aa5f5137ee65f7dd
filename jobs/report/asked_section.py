"""The report's section on answers: how many the stages that ask have used, and what these took.

Reads `asked` of the stages' accounts; returns markup.
"""

from __future__ import annotations

from typing import Any

from jobs.html.markup import Html, data, join, number, tag
from jobs.report.sections import Summary, table_of

MILLIONTHS = "_millionths"  # ends the names of counts that are shown as whole ones


def asked(summary: Summary) -> Html | None:
    """Return the section's content, or None where no stage asked anybody."""
    stages = [stage for stage in summary["stages"] if "asked" in stage]
    if not stages:
        return None
    names = list(dict.fromkeys(name for stage in stages for name in stage["asked"]))
    lead = "Answers that this build is made of, and what they took when they were given: by whichever run that was, each once."
    columns = [(_heading(name), "n", lambda stage, name=name: _shown(name, stage["asked"].get(name, 0))) for name in names]
    table = table_of(stages, ("stage", "", lambda stage: tag("b", stage["stage"])), *columns)
    return join(tag("p", lead, class_="lead"), table)


def _heading(name: str) -> str:
    return name.removesuffix(MILLIONTHS).replace("_", " ")


def _shown(name: str, value: Any) -> Html:  # noqa: ANN401 - of JSON
    if name.endswith(MILLIONTHS):
        whole = value / 1_000_000
        return data(whole, f"{whole:,.2f}" if whole >= 1 else number(float(f"{whole:.3g}")))
    return data(value)
