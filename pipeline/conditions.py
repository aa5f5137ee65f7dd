"""Parameters of stages that are conditions on columns, in SQL: what they ask of a plan, and filters that leave documents out.

Reads stages, by the metadata of their fields (`stage.CONDITION`); writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole
from gristmill.expressions import LIBRARIES, Expression
from pipeline.finding import Finding, Limit, Value
from pipeline.stage import CONDITION, Filter, Judge, Stage

MOST_SHOWN = 80  # characters of a text that a condition names


def conditions(stage: Stage) -> dict[str, str]:
    """Return the conditions among a stage's parameters that are given: name → expression."""
    named = [field.name for field in dataclasses.fields(stage) if field.metadata.keys() >= CONDITION.keys()]
    return {name: getattr(stage, name) for name in named if getattr(stage, name) is not None}


def libraries_of(stage: Stage) -> tuple[str, ...]:
    """Return the libraries that a stage names, and what evaluates its conditions."""
    return tuple(dict.fromkeys((*stage.libraries(), *(LIBRARIES if conditions(stage) else ()))))


def asked_about(unless: str) -> Callable[[pa.Table], pa.BooleanArray]:
    """Return f(docs) → which documents a stage is asked about: those for which `unless` is not true."""
    exempt = Expression(unless).open()
    return lambda docs: pc.invert(pc.fill_null(exempt(docs), False))


def spread(values: pa.Array, asked: pa.BooleanArray) -> pa.Array:
    """Return what was found of the documents that were asked about, in their rows among all; null in the others."""
    rows = pc.subtract(pc.cumulative_sum(asked.cast(pa.int64())), 1)
    return values.take(pc.if_else(asked, rows, None))


def judge_of(stage: Filter) -> Judge:
    """Open a filter and return f(docs) → reasons: null for the documents for which its `unless` is true."""
    judge = stage.open()
    if stage.unless is None:
        return judge
    asked_of = asked_about(stage.unless)

    def judged(docs: pa.Table) -> pa.Array:
        asked = asked_of(docs)
        some = docs.filter(asked)
        found = judge(some)
        if not isinstance(found, pa.Array | pa.ChunkedArray) or len(found) != some.num_rows:
            return found  # which breaks the contract of filters: the machine says how
        return spread(whole(found), asked)

    return judged


def exempted(stage: Stage, docs: pa.Table) -> Sequence[Finding]:
    """Return why a stage was not asked about a document, a table of one row: the columns of `unless`; nothing where it was."""
    unless = conditions(stage).get("unless")
    if unless is None or asked_about(unless)(docs)[0].as_py():
        return ()
    return shown(unless, docs, {Expression(unless): Limit("unless", unless, "not asked, as")})


def shown(sql: str, docs: pa.Table, limits: Mapping[Expression, Limit]) -> list[Finding]:
    """Return the columns that an expression names of a document, a table of one row, each with the limits of what names it."""
    return [
        Finding(name, _value(docs[name][0].as_py()), tuple(limit for each, limit in limits.items() if name in each.columns))
        for name in Expression(sql).columns
    ]


def _value(value: object) -> Value:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    text = str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
