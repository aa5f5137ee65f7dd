"""What every benchmark prints: an aligned table for people and, last of all, one JSON object of ratios for machines.

Reads and writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


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


def closing(rows: Mapping[str, tuple[float | None, float]]) -> str:
    """Return the line that machines read: `{"row": {"ratio": x, "goal": y}, ...}`; a ratio is null where the peer is missing."""
    return json.dumps(
        {name: {"ratio": None if ratio is None else float(f"{ratio:.3g}"), "goal": goal} for name, (ratio, goal) in rows.items()}
    )
