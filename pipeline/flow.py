"""Tables through the fused stages of one segment: drops counted, raising documents bisected out, stages timed.

Reads the opened functions of stages; writes into a `Tally` per stage. This is the one place that catches whatever a
stage may raise: a table that raises is halved until the document that raises stands alone, and that one is quarantined.

What a stage makes of a table (`work_through`) and its account (`Flow`) are apart, so that the work of a stage with a pool can
be done by other processes, on a bounded number of tables ahead, while the account is kept in the order of the tables.
"""

from __future__ import annotations

import collections
import errno
import json
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import ENDINGS, GristmillError, StoreFull, UnitFailed
from pipeline.ledger import Measure, Tally, measure_of
from pipeline.making import made_of
from pipeline.quarantine import reason_of, reason_of_exception
from pipeline.schema import DROP, ERROR, PARENT, undecided, undeclared
from pipeline.stage import Filter, FlatMap, Stage, Transform

SYSTEMATIC = 10  # a stage that raises on all of at least so many documents is broken, not the documents
ADVICE = "a stage returns the columns that it is given and those of its adds(), always"

LOST = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field(PARENT, pa.string()),  # of a document that was made of another
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # of the drop, or the kind of error
        pa.field("detail", pa.string(), nullable=False),  # JSON of the row's other columns, or `kind: detail`
    ]
)

Watch = Callable[[str, str | None], None]
Numbered = Iterator[tuple[int, pa.Table]]


@dataclass(frozen=True)
class StageResult:
    """What a stage made of one table.

    `table` has its results, with decisions in `drop` / `error`, on all rows that did not raise or kill; `lost` (tables as `LOST`)
    has the others. `made`: by how many rows both together are more than it was given. `error` is the first message of those that
    raised. The seconds are those of the process that worked.
    """

    table: pa.Table
    lost: tuple[pa.Table, ...] = ()
    made: int = 0
    error: str | None = None
    cpu_s: float = 0.0
    wall_s: float = 0.0


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
    tally: Tally = field(init=False)
    measures: dict[str, Measure] = field(default_factory=dict)
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
                raise UnitFailed(f"stage {self.name!r} breaks its word: {'; '.join(odd)}; {ADVICE}")
        self.schema = made.schema
        return made

    def check(self, table: pa.Table) -> None:
        """Raise UnitFailed unless a table that the stage made has the columns that it made of an empty one, of their types."""
        if self.schema is None:
            return
        some, none = ({field.name: str(field.type) for field in schema} for schema in (undecided(table).schema, self.schema))
        if list(some.items()) != list(none.items()):
            raise UnitFailed(f"stage {self.name!r} gives columns {some} for some documents, {none} for none; {ADVICE}")

    def measure(self, table: pa.Table) -> None:
        """Add the kept rows to the histograms of the stage's columns."""
        if self.phase == "before":
            return
        for column in self.stage.measures():
            measure = self.measures.setdefault(column, measure_of(table.schema.field(column).type))
            measure.add(table.column(column))


@dataclass
class Bisection:
    """One stage's function on one table, with whatever it raises.

    `poison` names documents (by id) that killed a process in a stage before: (stage, error kind). `watch(stage, id)` is told
    before each piece of work; with `careful` the pieces are single documents, so that it knows which one was the last.
    """

    name: str
    stage: Stage
    work: Transform
    poison: Mapping[str, tuple[str, str]]
    watch: Watch | None
    careful: bool
    lost: list[pa.Table] = field(default_factory=list)
    made: int = 0
    error: str | None = None

    def pieces(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the results on all rows that do not raise, in order; the others are lost."""
        if table.num_rows == 0:
            return
        if self.careful and table.num_rows > 1:
            for row in range(table.num_rows):
                yield from self.pieces(table.slice(row, 1))
            return
        if self.watch is not None:
            self.watch(self.name, table.column("id")[0].as_py() if table.num_rows == 1 else None)
        try:
            result = self.work(table)
        except (GristmillError, *ENDINGS):
            raise
        except BaseException as error:  # the boundary: a document must not stop a build, nor what panics in Rust
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise StoreFull(error.errno, f"no space left while {self.name} ran") from error
            if table.num_rows > 1:
                half = table.num_rows // 2
                yield from self.pieces(table.slice(0, half))
                yield from self.pieces(table.slice(half))
                return
            kind, message = reason_of_exception(error)
            self.error = self.error or message
            self.lost.append(_lost(table, self.name, [kind], [message]))
            return
        yield self.decided(result, table)

    def decided(self, result: pa.Table | pa.Array, table: pa.Table) -> pa.Table:
        """Return the stage's result as a table with its decisions in `drop` / `error`."""
        if isinstance(self.stage, Filter):
            assert len(result) == table.num_rows, f"{self.name}: {len(result)} reasons for {table.num_rows} documents"
            return table.append_column(pa.field(DROP, pa.string()), result.cast(pa.string()))
        if isinstance(self.stage, FlatMap):
            self.made += result.num_rows - table.num_rows
            return made_of(table, result, self.name, self.stage)
        assert result.num_rows == table.num_rows, f"{self.name}: {result.num_rows} rows for {table.num_rows} documents"
        return result

    def without_poison(self, table: pa.Table) -> pa.Table:
        """Lose the documents that killed a process here before; return the others."""
        if not self.poison:
            return table
        kinds = [self.poison.get(name, ("", "")) for name in table.column("id").to_pylist()]
        bad = [kind if where == self.name else None for where, kind in kinds]
        if not any(bad):
            return table
        mask = pa.array([kind is not None for kind in bad])
        found = [kind for kind in bad if kind is not None]
        self.lost.append(_lost(table.filter(mask), self.name, found, [f"{kind}: the process ended on it" for kind in found]))
        return table.filter(pc.invert(mask))


def work_through(
    name: str,
    stage: Stage,
    work: Transform,
    table: pa.Table,
    poison: Mapping[str, tuple[str, str]],
    watch: Watch | None,
    careful: bool,
) -> StageResult:
    """Return what an opened stage makes of a table; an empty one goes through the stage too, for its schema."""
    trial = Bisection(name, stage, work, poison, watch, careful)
    if table.num_rows == 0:
        return StageResult(trial.decided(work(table), table))
    cpu, wall = time.process_time(), time.perf_counter()
    table = trial.without_poison(table)
    pieces = list(trial.pieces(table))
    out = pa.concat_tables(pieces) if pieces else table.slice(0, 0)
    seconds = (time.process_time() - cpu, time.perf_counter() - wall)
    return StageResult(out, tuple(trial.lost), trial.made, trial.error, *seconds)


@dataclass
class Flow:
    """Takes tables through runs and keeps their accounts.

    `poison`, `watch` and `careful` are those of `Bisection`, and no concern of runs with a pool, which has its own. Tables have
    numbers; what is lost is kept with that of its table.
    """

    runs: Sequence[StageRun]
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    watch: Watch | None = None
    careful: bool = False
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
            out = self._account(run, number, table, self._work(run, table))
            if out.num_rows:
                yield number, out

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
                out = self._account(run, number, table, done)
                if out.num_rows:
                    yield number, out

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
                self._quarantine(tally, number, _lost(bad, tally.stage, kinds, messages))
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
        self._dropped.append((number, _lost(rows, tally.stage, reasons.to_pylist(), _details(rows))))

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


def _details(rows: pa.Table) -> list[str]:
    """Return the small columns that stages added, as JSON, for each row."""
    known = {*LOST.names, "text", "media", "date", DROP}
    names = [f.name for f in rows.schema if f.name not in known and not pa.types.is_nested(f.type)]
    return (
        [json.dumps(row, ensure_ascii=False, default=str) for row in rows.select(names).to_pylist()]
        if names
        else ["{}"] * len(rows)
    )


def _lost(rows: pa.Table, stage: str, reasons: Sequence[Any], details: Sequence[str]) -> pa.Table:
    own = {"stage": [stage] * rows.num_rows, "reason": reasons, "detail": details}
    if PARENT not in rows.column_names:
        own[PARENT] = [None] * rows.num_rows
    columns = [pa.array(own[f.name], pa.string()) if f.name in own else rows.column(f.name) for f in LOST]
    return pa.Table.from_arrays(columns, schema=LOST)


def lost_table(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of lost rows as one."""
    return pa.concat_tables(tables) if tables else LOST.empty_table()
