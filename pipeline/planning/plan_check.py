"""What makes a list of stages no plan: their order, and the columns that they ask of each other.

Reads stages; returns faults in words. A plan is refused for the first of them; whoever knows where a stage stands in a file adds
the place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from gristmill.errors import UserError
from gristmill.expressions import Expression
from pipeline.conditions import conditions
from pipeline.planning.asking import odd_answer
from pipeline.planning.fingerprint import describe
from pipeline.schema import DOCUMENT, DROP, ERROR, ITSELF, PARENT, PARENT_ROW
from pipeline.stage import Making, Named, Save, Sink, Source, Stage

# Columns that no stage behind the source gives by declaring them: its decisions, and what leads to the raw record.
MACHINES = ("id", "file", "offset", "length", DROP, ERROR, PARENT, PARENT_ROW, ITSELF)


@dataclass(frozen=True)
class Fault:
    """What is wrong with the stage at a position of the list.

    `lacks` is for whoever knows of stages that would mend it: a `sink` at the end, or a giver of `column`, which no stage gives.
    """

    at: int
    message: str
    lacks: Literal["sink", "column"] | None = None
    column: str = ""


def order_faults(stages: Sequence[Named]) -> Iterator[Fault]:
    """Yield what stands where it cannot, in a source and the stages behind it."""
    names, (last_name, last) = [name for name, _ in stages], stages[-1]
    for at, (name, stage) in enumerate(stages):
        if at == 0 and not isinstance(stage, Source):
            yield Fault(at, f"{name!r} is no source; the first of the stages reads the input")
        if at and isinstance(stage, Source):
            yield Fault(at, f"{name!r} is a source; only the first of the stages reads the input")
        if name in names[:at]:
            yield Fault(at, f"two stages are called {name!r}; give each a name of its own, under which it is accounted for")
        if isinstance(stage, Sink) and at < len(stages) - 1:
            yield Fault(at, f"stage {name!r} writes the shards and must be the last, found before {last_name!r}")
        if isinstance(stage, Save):
            yield from _save(stages, at)
    if not isinstance(last, Sink):
        yield Fault(len(stages) - 1, f"the last stage must be one that writes, found {last_name!r}", "sink")


def _save(stages: Sequence[Named], at: int) -> Iterator[Fault]:
    """Check that a save has work before it that is not kept already."""
    name, (before, stage) = stages[at][0], stages[at - 1]
    if at == 1:
        yield Fault(at, f"stage {name!r} is the first, there is no work to keep yet; put it behind the stages to keep")
    if isinstance(stage, Save):
        yield Fault(at, f"stage {name!r} stands behind {before!r}, which keeps the same documents; leave one of the two out")


def column_faults(stages: Sequence[Named]) -> Iterator[Fault]:
    """Yield which stage lacks a column, or gives one that is there, in stages that stand where they can.

    Each column has one giver, unless the later one replaces it, and is there before it is needed.
    """
    given: list[Mapping[str, pa.DataType]] = []
    for at, (name, stage) in enumerate(stages):
        try:
            odd = _odd_word(stage)
            if odd is None:
                given.append(stage.gives())
        except UserError as error:
            odd = str(error)
        if odd is not None:
            yield Fault(at, f"{'stage' if at else 'source'} {name!r}: {odd}")
            return
    givers = dict.fromkeys((*DOCUMENT.names, *given[0]), 0)
    types = {**{field.name: field.type for field in DOCUMENT}, **given[0]}
    for at, (name, stage) in enumerate(stages[1:], 1):
        for column in stage.needs():
            if column not in givers:
                yield _lacking(stages, given, at, column)
        yield from _condition_faults(stages, given, at, pa.schema(list(types.items())))
        for column in given[at]:
            if column in givers and not _may_replace(stages, given, givers[column], at, column):
                giver = f"{'stage' if givers[column] else 'source'} {stages[givers[column]][0]!r}"
                advice = "give one of the two another name, leave it out, or let the later say that it replaces it (replaces())"
                yield Fault(at, f"stage {name!r} adds column {column!r}, which {giver} gives already; {advice}")
        yield from _sink_faults(stages, givers, at)
        givers |= dict.fromkeys(given[at], at)
        types |= given[at]


def _sink_faults(stages: Sequence[Named], givers: Mapping[str, int], at: int) -> Iterator[Fault]:
    """Yield a column that the sink at this position makes itself and the documents have already."""
    (name, stage), (_, source) = stages[at], stages[0]
    taken = next((column for column in stage.makes if column in givers), None) if isinstance(stage, Sink) else None
    if taken is not None:
        giver = f"{'stage' if givers[taken] else 'source'} {stages[givers[taken]][0]!r}"
        advice = f"give the column of {giver} another name"
        if givers[taken] == 0 and isinstance(source, Source) and source.of_build() is not None:
            anew = "documents of a finished build are not written anew"
            advice = f"{anew}: end with a stage that adds to that build, or start from the texts"
        yield Fault(at, f"stage {name!r} makes column {taken!r} itself, which {giver} gives already; {advice}")


def content_faults(stages: Sequence[Named]) -> Iterator[Fault]:
    """Yield which stage's files or code cannot be read, in stages without other faults: both are in the names of units."""
    for at, (name, stage) in enumerate(stages):
        try:
            describe(stage)
        except UserError as error:
            yield Fault(at, f"{'stage' if at else 'source'} {name!r}: {error}")


def _odd_word(stage: Stage) -> str | None:
    """Return in words what is wrong with what a stage says of itself, whatever the others are. Raises UserError."""
    odd = odd_answer(stage)
    if odd is not None:
        return odd
    taken = [] if isinstance(stage, Source) else [column for column in stage.adds() if column in MACHINES]
    return f"it adds column {taken[0]!r}, which the machine gives or takes itself; call it something else" if taken else None


def _may_replace(stages: Sequence[Named], given: Sequence[Mapping[str, pa.DataType]], giver: int, at: int, column: str) -> bool:
    stage = stages[at][1]
    if column == PARENT:
        return isinstance(stage, Making) and isinstance(stages[giver][1], Making)
    # What a person asked a source for is not replaced, even by a stage that may replace what other stages give.
    return column in stage.replaces() and column not in given[0]


def _condition_faults(
    stages: Sequence[Named], given: Sequence[Mapping[str, pa.DataType]], at: int, columns: pa.Schema
) -> Iterator[Fault]:
    """Check the conditions among a stage's parameters against the columns that are there before it."""
    name, stage = stages[at]
    for parameter, sql in conditions(stage).items():
        missing: list[str] = []
        try:
            missing = [column for column in Expression(sql).columns if column not in columns.names]
            if missing and any(missing[0] in later for later in given[at + 1 :]):
                yield _lacking(stages, given, at, missing[0])
                continue
            Expression(sql).check(columns)
        except UserError as error:
            message = f"stage {name!r}: {parameter}: {error}"
            yield Fault(at, message, "column", missing[0]) if missing else Fault(at, message)


def _lacking(stages: Sequence[Named], given: Sequence[Mapping[str, pa.DataType]], at: int, column: str) -> Fault:
    name, (source_name, source) = stages[at][0], stages[0]
    assert isinstance(source, Source)
    needs = f"stage {name!r} needs column {column!r}, which"
    later = [other for (other, _), columns in zip(stages[at + 1 :], given[at + 1 :], strict=True) if column in columns]
    if source.of_build() is not None:
        advice = f"if the build has it, add it to the columns of source {source_name!r}"
        return Fault(at, f"{needs} no stage above it adds; {advice}")
    if later:
        which = "it" if len(later) == 1 else "one"
        return Fault(at, f"{needs} is added by stage {' or '.join(map(repr, later))}; put {which} before {name!r}")
    return Fault(at, f"{needs} no stage above it adds", "column", column)
