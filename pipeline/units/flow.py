"""Tables through the fused stages of one segment, in order: drops and quarantined documents taken out and counted, stages timed.

Reads the opened functions of stages; writes into a `Tally` per stage. What a stage makes of a table
(`pipeline/units/bisection.py`) and its account (`Flow`) are apart: the work of a stage with a pool is done by other processes,
on a bounded number of tables ahead, while the account is kept in the order of the tables.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import UnitFailed
from gristmill.json_values import Json
from pipeline.schema import DROP, ERROR, undecided, undeclared
from pipeline.stage import Making, Stage, Transform
from pipeline.units.bisection import StageResult, Watch, work_through
from pipeline.units.ledger import Joint, Measure, Tally, measure_of
from pipeline.units.lost import details_of, lost_rows, lost_table
from pipeline.units.quarantine import reason_of

SYSTEMATIC = 10  # a stage that raises on all of at least so many documents is broken, not the documents
ADVICE = "a stage returns the columns that it is given and those of its adds(), always"

Numbered = Iterator[tuple[int, pa.Table]]


class Pool(Protocol):
    """Processes that do the work of one stage; at most `ahead` tables of a segment are with them at a time."""

    @property
    def ahead(self) -> int:
        """Tables."""
        ...

    @property
    def batch_rows(self) -> int | None:
        """Rows that a table is to have there, at least: those of a segment are joined until they have; None: as they come."""
        ...

    def submit(self, table: pa.Table) -> Callable[[], StageResult]:
        """Send a table; return a function that waits for what became of it. Raises what ends the unit."""
        ...


@dataclass
class StageRun:
    """One stage of the segment, opened: what it is called, its function, and its account.

    With a `pool` it has no function of its own. A barrier has two runs: `before`, where documents emit rows, and `after`,
    where they meet the verdicts or the model. The stage at the segment's entry (a source, verdicts) and the sink have no work of
    their own here.
    """

    name: str
    stage: Stage
    work: Transform | None = None
    phase: Literal["whole", "before", "after"] = "whole"
    pool: Pool | None = None
    asked: Callable[[], Mapping[str, int]] | None = None  # of a stage that asks: the account of the answers that it has used
    tally: Tally = field(init=False)
    measures: dict[str, Measure] = field(default_factory=dict)
    joint: dict[tuple[str, ...], Joint] = field(default_factory=dict)
    schema: pa.Schema | None = None  # of the documents behind it, once it is known

    def __post_init__(self) -> None:
        self.tally = Tally(self.name)

    def declared(self, given: pa.Table, made: pa.Table) -> pa.Table:
        """Return what was made of an empty table, without decisions; all later ones must have its columns.

        Raises:
            UnitFailed: the stage has lost, added or retyped a column without declaring it.
        """
        made = undecided(made)
        if self.phase != "before":
            odd = undeclared(given.schema, made.schema, self.stage.gives())
            if odd:
                raise UnitFailed(f"stage {self.name!r} breaks its contract: {'; '.join(odd)}; {ADVICE}")
        self.schema = made.schema
        return made

    def check(self, table: pa.Table) -> None:
        """Raise UnitFailed unless a table that the stage made has the columns that it made of an empty one, of their types."""
        if self.schema is None:
            return
        made = undecided(table).schema
        odd = undeclared(self.schema, made, {})
        if not odd and made.names != self.schema.names:
            odd = [f"its columns are in the order {made.names}, expected {self.schema.names}"]
        if odd:
            raise UnitFailed(f"stage {self.name!r} makes another table of documents than of none: {'; '.join(odd)}; {ADVICE}")

    def answered(self) -> dict[str, Json]:
        """Return what stands in the ledger of answers: nothing for a stage that asks nobody."""
        counts: dict[str, Json] = dict(self.asked()) if self.asked is not None else {}
        return {"asked": counts} if counts else {}

    def measure(self, table: pa.Table) -> None:
        """Add the kept rows to the histograms of the stage's columns."""
        if self.phase == "before":
            return
        for column in self.stage.measures():
            if isinstance(column, tuple):
                self.joint.setdefault(column, Joint(column)).add(table)
                continue
            measure = self.measures.setdefault(column, measure_of(table.schema.field(column).type))
            measure.add(table.column(column))


@dataclass
class Flow:
    """Takes tables through runs and keeps their accounts.

    `poison`, `watch` and `careful` are those of `Bisection`, and no concern of runs with a pool, which has its own. Tables have
    numbers; what is lost is kept with that of its table. Of a table that a stage makes larger than `batch_rows` the next stages
    are given pieces.
    """

    runs: Sequence[StageRun]
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    watch: Watch | None = None
    careful: bool = False
    batch_rows: int | None = None
    first_error: dict[str, str] = field(default_factory=dict)
    elsewhere_s: float = 0.0  # CPU time of pools
    _dropped: list[tuple[int, pa.Table]] = field(default_factory=list)
    _quarantined: list[tuple[int, pa.Table]] = field(default_factory=list)

    def stream(self, tables: Numbered) -> Iterator[pa.Table]:
        """Yield what is left of each table after all runs, in order, without the empty ones.

        A table goes through all runs before the next is taken from `tables`, but for runs with a pool: before the first of
        the tables that such a run has under way is waited for, others are taken and sent to it, up to its bound.
        """
        for run in self.runs:
            tables = self._through(run, tables) if run.pool is None else self._ahead(run, run.pool, tables)
        return (table for _, table in tables)

    def schema(self, table: pa.Table) -> pa.Table:
        """Take an empty table through all runs, uncounted, to learn the schema behind the last."""
        for run in self.runs:
            done = run.pool.submit(table)() if run.pool is not None else self._work(run, table)
            table = run.declared(table, done.table)
        return table

    def enter(self, run: StageRun, number: int, table: pa.Table) -> pa.Table:
        """Account for a table that carries the decisions of the entry's stage in `drop` and `error`; return the kept rows."""
        run.tally.entered += table.num_rows
        return self._take_out(run, number, table)

    def finish(self) -> None:
        """Raise UnitFailed when a stage raised on everything it was given."""
        for run in self.runs:
            raised = run.tally.quarantined.total()
            if raised >= SYSTEMATIC and raised == run.tally.entered + run.tally.made and run.name in self.first_error:
                raise UnitFailed(f"stage {run.name} raised on each of {raised} documents: {self.first_error[run.name]}")
            assert run.tally.balanced(), f"stage {run.name} lost documents: {run.tally.plain()}"

    def dropped(self) -> pa.Table:
        """Return all rows dropped so far, as `LOST`, in the order of the tables."""
        return lost_table([rows for _, rows in sorted(self._dropped, key=operator.itemgetter(0))])

    def quarantined(self) -> pa.Table:
        """Return all rows quarantined so far, as `LOST`, in the order of the tables."""
        return lost_table([rows for _, rows in sorted(self._quarantined, key=operator.itemgetter(0))])

    def _through(self, run: StageRun, tables: Numbered) -> Numbered:
        for number, table in tables:
            yield from self._pieces(run, number, self._account(run, number, table, self._work(run, table)))

    def _ahead(self, run: StageRun, pool: Pool, tables: Numbered) -> Numbered:
        sent: collections.deque[tuple[int, pa.Table, Callable[[], StageResult]]] = collections.deque()
        tables = tables if pool.batch_rows is None else _joined(tables, pool.batch_rows)
        more = True
        while more or sent:
            while more and len(sent) < pool.ahead:
                number, table = next(tables, (-1, None))
                more = table is not None
                if more:
                    if self.watch is not None:
                        # Whatever ends this process while it waits is no document's doing.
                        self.watch(run.name, None)
                    sent.append((number, table, pool.submit(table)))
            if sent:
                number, table, wait = sent.popleft()
                done = wait()
                self.elsewhere_s += done.cpu_s
                yield from self._pieces(run, number, self._account(run, number, table, done))

    def _pieces(self, run: StageRun, number: int, table: pa.Table) -> Numbered:
        """Yield what is left of a table: nothing, the table, or what a FlatMap made of it in tables of `batch_rows`."""
        rows = self.batch_rows if isinstance(run.stage, Making) and self.batch_rows is not None else max(table.num_rows, 1)
        for start in range(0, table.num_rows, rows):
            yield number, table.slice(start, rows)

    def _work(self, run: StageRun, table: pa.Table) -> StageResult:
        assert run.work is not None
        return work_through(run.name, run.stage, run.work, table, self.poison, self.watch, self.careful)

    def _account(self, run: StageRun, number: int, table: pa.Table, done: StageResult) -> pa.Table:
        """Count what became of a table; return the rows that are kept."""
        run.tally.entered += table.num_rows
        run.tally.made += done.made
        run.tally.cpu_s += done.cpu_s
        run.tally.wall_s += done.wall_s
        if done.error is not None:
            self.first_error.setdefault(run.name, done.error)
        for lost in done.lost:
            self._quarantine(run.tally, number, lost)
        if done.table.num_rows:
            run.check(done.table)
        # Without rows it may lack the stage's columns.
        return self._take_out(run, number, done.table) if done.table.num_rows else done.table

    def _take_out(self, run: StageRun, number: int, table: pa.Table) -> pa.Table:
        """Take out the rows that are decided on, count them, and return the others without the decision columns."""
        tally = run.tally
        if ERROR in table.column_names:
            errors = table.column(ERROR)
            if errors.null_count < len(errors):
                bad = undecided(table.filter(pc.is_valid(errors)))
                kinds, messages = zip(*map(reason_of, errors.drop_null().to_pylist()), strict=True)
                self._quarantine(tally, number, lost_rows(bad, tally.stage, kinds, messages))
                table = table.filter(pc.is_null(errors))
            table = table.drop_columns([ERROR])
        if DROP in table.column_names:
            reasons = table.column(DROP)
            if reasons.null_count < len(reasons):
                self._drop(tally, number, table.filter(pc.is_valid(reasons)))
                table = table.filter(pc.is_null(reasons))
            table = table.drop_columns([DROP])
        tally.kept += table.num_rows
        run.measure(table)
        return table

    def _drop(self, tally: Tally, number: int, rows: pa.Table) -> None:
        reasons = rows.column(DROP)
        for pair in pc.value_counts(reasons).to_pylist():
            tally.dropped[pair["values"]] += pair["counts"]
            tally.sample(pair["values"], rows.filter(pc.equal(reasons, pair["values"])))
        self._dropped.append((number, lost_rows(rows, tally.stage, reasons.to_pylist(), details_of(rows))))

    def _quarantine(self, tally: Tally, number: int, lost: pa.Table) -> None:
        tally.quarantined.update(lost.column("reason").to_pylist())
        self._quarantined.append((number, lost))


def _joined(tables: Numbered, rows: int) -> Numbered:
    """Yield tables of so many rows at least, but for the last; each has the number of the first that is in it."""
    first, waiting = -1, list[pa.Table]()
    for number, table in tables:
        first = first if waiting else number
        waiting.append(table)
        if sum(map(len, waiting)) >= rows:
            yield first, pa.concat_tables(waiting)
            waiting.clear()
    if waiting:
        yield first, pa.concat_tables(waiting)
