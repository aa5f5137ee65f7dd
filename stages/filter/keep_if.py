"""The stage `keep_if`: documents for which a condition on their columns is true.

Reads the columns that the condition names. Dropped: `reason` (it is false), `<reason>_unknown` (it is null: a column that it
needs has no value).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.expressions import Expression
from pipeline.conditions import shown
from pipeline.finding import Finding, Limit
from pipeline.stage import CONDITION, Filter, Judge

UNKNOWN = "_unknown"
RELATIONS = {True: "passes", False: "fails", None: "without a value for"}


@dataclass(frozen=True, kw_only=True)
class KeepIf(Filter):
    """Keep documents for which an SQL expression over their columns is true: `quality >= 0.5 and language in ('en', 'fr')`.

    `where` has columns, constants, operators, CASE, casts and functions that depend on their arguments alone, as DuckDB has them.
    A column with a dot in its name is in double quotes, text in single ones. Documents for which it is false are dropped as
    `reason`. Those for which it is null, because a column has no value, are dropped as `<reason>_unknown`: say what such a
    document is worth with `coalesce(quality, 0) >= 0.5`.
    """

    where: str = field(metadata=CONDITION)
    reason: str = "keep_if"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.reason) or len(self.reason) > 32:
            raise ValueError(f"reason is {self.reason!r}; give a snake_case word of at most 32 characters, such as low_quality")

    def open(self) -> Judge:
        """Return f(docs) → reasons."""
        evaluate = Expression(self.where).open()
        none, false, unknown = (pa.scalar(text, pa.string()) for text in (None, self.reason, self.reason + UNKNOWN))

        def judge(docs: pa.Table) -> pa.Array:
            kept = evaluate(docs)
            return pc.if_else(pc.is_null(kept), unknown, pc.if_else(kept, none, false))

        return judge

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the columns, and of each part of the condition that `and` joins how it went; see `Stage.explain`."""
        limits = {}
        for term in Expression(self.where).terms:
            held = term.open()(before)[0].as_py()
            limits[term] = Limit("where", term.sql, RELATIONS[held], not held)
        found = shown(self.where, before, limits)
        broken = [each for each in found if any(limit.broken for limit in each.limits)]
        return [*(replace(each, decisive=each is broken[0]) for each in broken), *(each for each in found if each not in broken)]
