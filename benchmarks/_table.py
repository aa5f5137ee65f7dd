"""What every benchmark prints: an aligned table for people, the machine's state, and last one JSON object of ratios for machines.

Reads and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks._turns import MACHINE, Ratio, machine

Rows = Mapping[str, tuple[Ratio | float | None, float]]
"""Rows of the last line: ratio and goal."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows under their heads, the first column to the left and the others to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    first, *others = widths
    return "\n".join(
        "  ".join([line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others, strict=True))]).rstrip()
        for line in lines
    )


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with this many digits that say something, `-` where there is none."""
    if value is None:
        return "-"
    plain = f"{value:.{digits}g}"
    return f"{float(plain):,.0f}" if "e+" in plain else plain


def ranged(ratio: Ratio | None) -> str:
    """Return a ratio with its quartiles, `-` where there is none."""
    return "-" if ratio is None else str(ratio)


class MachineRows:
    """The state of the machine when a benchmark began and when it ended: made at the start, printed at the end."""

    def __init__(self) -> None:
        self._begun = machine()

    def __str__(self) -> str:
        """Return a small table of both."""
        return table(MACHINE, [["at the start", *self._begun], ["at the end", *machine()]])


def closing(rows: Rows) -> str:
    """Return the line that machines read: `{"row": {"ratio": x, "goal": y}, ...}`; a ratio is null where the peer is missing."""
    plain = {name: (value.median if isinstance(value, Ratio) else value, goal) for name, (value, goal) in rows.items()}
    return json.dumps(
        {name: {"ratio": None if value is None else float(f"{value:.3g}"), "goal": goal} for name, (value, goal) in plain.items()}
    )
