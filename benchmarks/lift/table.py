"""What the experiment prints: a row an arm, differences by seed, and the last line for machines.

Reads and writes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from benchmarks import _table
from benchmarks.lift.corpus import KINDS
from benchmarks.lift.judging import Judged

CONTROLS = ("plain", "plain_curated")


@dataclass(frozen=True)
class Row:
    """One arm in one seed."""

    judged: Judged
    seconds: float
    tokens: int


Results = Mapping[str, Sequence[Row]]  # arm → a row a seed


def losses(results: Results) -> str:
    """Return the table of clean losses: mean and standard deviation of seeds; the differences from controls, seed by seed."""
    head = ["trained on", "tokens in loss", "seconds", "clean loss", *(f"− {name}" for name in CONTROLS)]
    rows = []
    for name, runs in results.items():
        clean = [run.judged.clean for run in runs]
        row = [name, f"{fmean(run.tokens for run in runs):,.0f}", f"{fmean(run.seconds for run in runs):.1f}", spread(clean)]
        for control in CONTROLS:
            found = paired(results, name, control)
            row.append(" ".join(f"{each:+.3f}" for each in found) if control != name and found else "-")
        rows.append(row)
    return _table.table(head, rows)


def choices(results: Results) -> str:
    """Return the table of what is selected of text with noise in it, and the losses there; means of seeds."""
    head = ["trained on", "clean taken", "noise taken", "selected", "unselected", *KINDS]
    rows = []
    for name, runs in results.items():
        judged = [run.judged for run in runs]
        shares = [f"{fmean(each):.1%}" for each in ([one.kept for one in judged], [one.taken for one in judged])]
        means = [fmean(each) for each in ([one.selected for one in judged], [one.unselected for one in judged])]
        means += [fmean(one.noise[kind] for one in judged) for kind in KINDS]
        rows.append([name, *shares, *("-" if math.isnan(each) else f"{each:.3f}" for each in means)])
    return _table.table(head, rows)


def paired(results: Results, name: str, control: str) -> list[float]:
    """Return the clean loss of an arm minus that of a control, seed by seed; below zero the arm is better."""
    if control not in results:
        return []
    return [one.judged.clean - other.judged.clean for one, other in zip(results[name], results[control], strict=True)]


def spread(values: Sequence[float]) -> str:
    """Return mean ± standard deviation."""
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def closing(results: Results) -> str:
    """Return the last line: of each arm, the clean loss of plain training over its own. Nothing is promised: no goals."""
    plain = [run.judged.clean for run in results["plain"]] if "plain" in results else None
    rows = {}
    for name, runs in results.items():
        ratio = None if plain is None else fmean(plain) / fmean(run.judged.clean for run in runs)
        rows[name] = {"ratio": None if ratio is None else float(f"{ratio:.4g}"), "goal": None}
    return json.dumps(rows)
