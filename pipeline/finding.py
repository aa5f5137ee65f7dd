"""What a stage looked at when it decided on a document: numbers, and the limits that they are held against.

Reads and writes nothing; `Stage.explain` returns these, `jobs/explain/` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Value = int | float | str | None


@dataclass(frozen=True)
class Limit:
    """A parameter that a value is held against, and how that went.

    `parameter`: its name, as a config gives it. `value`: what the parameter is. `relation`: of the document's value to it, in
    words: `below`, `above`, `passes`. `broken`: the document is dropped for this, or would be if no other rule had come first.
    """

    parameter: str
    value: Value | Sequence[str]
    relation: str = "passes"
    broken: bool = False


@dataclass(frozen=True)
class Finding:
    """A value that a stage computed of a document, with the limits for it; without any it is there to be read.

    `decisive`: the document was dropped for this one.
    """

    name: str
    value: Value
    limits: tuple[Limit, ...] = ()
    decisive: bool = False


def at_least(value: float | None, parameter: str, limit: float) -> Limit:
    """Return what a lower limit says of a value; a value that is not there passes."""
    broken = value is not None and value < limit
    return Limit(parameter, limit, "below" if broken else "passes", broken)


def at_most(value: float | None, parameter: str, limit: float) -> Limit:
    """Return what an upper limit says of a value; a value that is not there passes."""
    broken = value is not None and value > limit
    return Limit(parameter, limit, "above" if broken else "passes", broken)
