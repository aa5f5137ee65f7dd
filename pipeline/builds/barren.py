"""Input files of which no document came: nothing in them, or nothing but what is in quarantine.

Reads the accounts of a build's units. Each document of such a file is accounted for, yet the file may be of another format, or
read with the wrong parameters: that is for a person to know, not only for the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gristmill.storage.store import Store
from pipeline.builds.finish import manifests
from pipeline.checked import reading
from pipeline.planning.plan import Plan
from pipeline.records import UnitRecord

NAMED = 10  # files that are named, and the most whose errors are read


@dataclass(frozen=True)
class Barren:
    """One such file: `records` of it are in quarantine, by kind of error in `kinds`; `example` is the first error's message."""

    file: str
    records: int
    kinds: Mapping[str, int]
    example: str | None


def barren(store: Store, units: Sequence[tuple[str, UnitRecord]]) -> list[Barren]:
    """Return the input files of which no document came, in their order; the first ten that are damaged with an example.

    Args:
        store: of the build's output.
        units: the manifests of the step that reads the inputs, each with its name in the store.

    Raises:
        Damaged: the file of a unit's quarantine is missing or damaged.
    """
    found: list[Barren] = []
    for name, unit in units:
        account = unit.ledger[0]
        if account["kept"] or account["dropped"]:
            continue
        example = _example(store, name, unit) if account["in"] and len(found) < NAMED else None
        found.append(Barren(unit.unit, account["in"], dict(sorted(account["quarantined"].items())), example))
    return found


def _example(store: Store, name: str, unit: UnitRecord) -> str | None:
    """Return the first error of a unit."""
    with reading(store, unit.outputs["quarantined"], name) as file:
        rows = file.read_all()
    return str(rows.column("detail")[0].as_py()) if rows.num_rows else None


def warnings(found: Sequence[Barren]) -> list[str]:
    """Return what to tell a person of such files: a line a file that is damaged or read wrongly, one for all that are empty."""
    damaged = [each for each in found if each.records]
    lines = [
        f"{each.file}: not one document, all that was found in it is in quarantine: {_counts(each.kinds)}"
        + (f"; the first: {each.example}" if each.example else "")
        for each in damaged[:NAMED]
    ]
    if len(damaged) > NAMED:
        lines.append(f"{len(damaged) - NAMED} more files gave not one document; all that was found in them is in quarantine")
    empty = [each.file for each in found if not each.records]
    if empty:
        more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        lines.append(f"no document in {', '.join(empty[:NAMED])}{more}: empty, or nothing in it that the source reads")
    return lines


def notes(units: Iterable[UnitRecord]) -> list[str]:
    """Return what sources noted on files, from the manifests of the step that read them: a line a note, with its files."""
    files: dict[str, list[str]] = {}
    for unit in units:
        for line in unit.ledger[0].get("notes", ()):
            files.setdefault(line, []).append(unit.unit)
    return [
        f"{', '.join(named[:NAMED])}{f' and {len(named) - NAMED} more' if len(named) > NAMED else ''}: {line}"
        for line, named in files.items()
    ]


def _counts(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def lost_everywhere(units: Iterable[UnitRecord]) -> str:
    """Return where the documents of a build without any went, from the manifests of its units in the order of the plan."""
    lost: dict[tuple[str, str], Counter[str]] = {}
    for unit in units:
        for account in unit.ledger:
            for word in ("dropped", "quarantined"):
                lost.setdefault((account["stage"], word), Counter()).update(account[word])
    told = [f"{kinds.total()} {word} by {stage} ({_counts(kinds)})" for (stage, word), kinds in lost.items() if kinds]
    return "; ".join(told) or "none came in"


def remarks(store: Store, plan: Plan) -> list[str]:
    """Return remarks on a finished build: on its inputs that gave nothing, and that it has no documents. Raises Damaged."""
    steps = [manifests(store, step) for step in plan.steps]
    lines = warnings(
        barren(store, [(unit.manifest, record) for unit, record in zip(plan.steps[0].units, steps[0], strict=True)])
    ) + notes(steps[0])
    if not any(part.rows for unit in steps[-1] for part in unit.parts):
        lines.append(f"the build has 0 documents: {lost_everywhere(unit for units in steps for unit in units)}")
    return lines
