"""What datatrove's filters compare with their thresholds, noted while they do it.

A filter of datatrove says why it drops a document, not by how much. Its thresholds are numbers that it compares with what it
counted, so a threshold that notes each comparison gives the very numbers that decide, without a second formula for them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.finding import Finding, Limit


@dataclass
class Notes:
    """The comparisons of one document, in order; with `lenient` every threshold says that all is within it."""

    lenient: bool
    found: list[Finding] = field(default_factory=list)


class Threshold(float):
    """A number that notes what it is compared with."""

    __array_ufunc__ = None  # numpy's numbers leave the comparison to this one

    parameter: str
    names: list[str]
    notes: Notes

    @classmethod
    def of(cls, value: float, parameter: str, names: Sequence[str], notes: Notes) -> Threshold:
        """Return the threshold `value`; `names` are those of the numbers that it is compared with, in turn."""
        made = cls(value)
        made.parameter, made.names, made.notes = parameter, list(names), notes
        return made

    def __gt__(self, counted: Any) -> bool:  # noqa: ANN401 - a number of Python's or numpy's
        return self._note(counted, "below", broken=float(counted) < float(self))

    def __lt__(self, counted: Any) -> bool:  # noqa: ANN401 - as above
        return self._note(counted, "above", broken=float(counted) > float(self))

    def _note(self, counted: Any, relation: str, *, broken: bool) -> bool:  # noqa: ANN401 - as above
        value = counted if isinstance(counted, int) else float(counted)
        limit = Limit(self.parameter, float(self), relation if broken else "passes", broken)
        self.notes.found.append(Finding(self.names.pop(0), value, (limit,)))
        return broken and not self.notes.lenient


def compared(
    parameters: Mapping[str, Any], names: Mapping[str, Sequence[str]], keeps: Callable[[dict[str, Any]], bool]
) -> list[Finding]:
    """Return the numbers that a filter compares with its thresholds: the one that decided first, then in the order of its rules.

    Args:
        parameters: of the filter; a threshold is a number, or pairs of n and a number.
        names: parameter → what is compared with it, in turn; in a name of one with pairs `{}` stands for n.
        keeps: makes the filter from parameters and tells whether it keeps the document.
    """
    strict, lenient = Notes(lenient=False), Notes(lenient=True)
    decided = not keeps(_noting(parameters, names, strict)) and strict.found and strict.found[-1].limits[0].broken
    # The mean of no words is a warning; with a share of nothing, the rules from there on have no number.
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ZeroDivisionError):
        keeps(_noting(parameters, names, lenient))
    found: dict[str, Finding] = {}
    for note in lenient.found:
        before = found.get(note.name, replace(note, limits=()))
        found[note.name] = replace(note, limits=(*before.limits, *note.limits))
    if not decided:
        return list(found.values())
    first = replace(found.pop(strict.found[-1].name), decisive=True)
    return [first, *found.values()]


def _noting(parameters: Mapping[str, Any], names: Mapping[str, Sequence[str]], notes: Notes) -> dict[str, Any]:
    """Return the parameters with each threshold that has a name as one that notes."""

    def noting(name: str, value: Any) -> Any:  # noqa: ANN401 - a parameter
        if name not in names or value is None:
            return value
        if isinstance(value, tuple):
            return tuple((n, Threshold.of(most, f"{name}[{n}]", [names[name][0].format(n)], notes)) for n, most in value)
        return Threshold.of(value, name, names[name], notes)

    return {name: noting(name, value) for name, value in parameters.items()}
