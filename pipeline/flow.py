"""Tables through the fused stages of one segment: drops counted, raising documents bisected out, stages timed.

Reads the opened functions of stages; writes into a `Ledger` account per stage. This is the one place that catches whatever a
stage may raise: a table that raises is halved until the document that raises stands alone, and that one is quarantined.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError, StoreFull, UnitFailed
from pipeline.ledger import Measure, Tally, measure_of
from pipeline.schema import DROP, ERROR, undecided
from pipeline.stage import Filter, Stage, Transform

MESSAGE_CHARS = 500
SYSTEMATIC = 10  # a stage that raises on all of at least so many documents is broken, not the documents

LOST = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # of the drop, or the kind of error
        pa.field("detail", pa.string(), nullable=False),  # JSON of the row's other columns, or the error's message
    ]
)

Watch = Callable[[str, str | None], None]


@dataclass
class Room:
    """One stage of the segment, opened: what it is called, its function, and its account.

    A barrier has two rooms: `before`, where documents emit rows, and `after`, where they meet the verdicts or the model. The
    stage at the segment's entry (a source, verdicts) and the sink have no work of their own here.
    """

    name: str
    stage: Stage
    work: Transform | None = None
    phase: Literal["whole", "before", "after"] = "whole"
    tally: Tally = field(init=False)
    measures: dict[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tally = Tally(self.name)

    def measure(self, table: pa.Table) -> None:
        """Add the kept rows to the histograms of the stage's columns."""
        if self.phase == "before":
            return
        for column in self.stage.measures():
            measure = self.measures.setdefault(column, measure_of(table.schema.field(column).type))
            measure.add(table.column(column))


@dataclass
class Flow:
    """Takes tables through rooms.

    `poison` names documents (by id) that killed a process in a room before: (room, error kind). `watch(room, id)` is told
    before each piece of work; with `careful` the pieces are single documents, so that it knows which one was the last.
    """

    rooms: Sequence[Room]
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    watch: Watch | None = None
    careful: bool = False
    dropped: list[pa.Table] = field(default_factory=list)
    quarantined: list[pa.Table] = field(default_factory=list)
    first_error: dict[str, str] = field(default_factory=dict)

    def run(self, table: pa.Table) -> pa.Table:
        """Return what of `table` is left after all rooms."""
        for room in self.rooms:
            table = self._pass(room, table)
            if table.num_rows == 0:
                break
        return table

    def schema(self, table: pa.Table) -> pa.Table:
        """Take an empty table through all rooms, uncounted, to learn the schema behind the last."""
        for room in self.rooms:
            assert room.work is not None
            table = undecided(self._decided(room, room.work(table), table))
        return table

    def enter(self, room: Room, table: pa.Table) -> pa.Table:
        """Account for a table that carries the decisions of the entry's stage in `drop` and `error`; return the kept rows."""
        room.tally.entered += table.num_rows
        return self._settle(room, table)

    def finish(self) -> None:
        """Raise UnitFailed when a stage raised on everything it was given."""
        for room in self.rooms:
            raised = room.tally.quarantined.total()
            if raised >= SYSTEMATIC and raised == room.tally.entered and room.name in self.first_error:
                raise UnitFailed(f"stage {room.name} raised on each of {raised} documents: {self.first_error[room.name]}")
            assert room.tally.balanced(), f"stage {room.name} lost documents: {room.tally.plain()}"

    def _pass(self, room: Room, table: pa.Table) -> pa.Table:
        room.tally.entered += table.num_rows
        table = self._without_poison(room, table)
        cpu, wall = time.process_time(), time.perf_counter()
        pieces = list(self._guarded(room, table))
        room.tally.cpu_s += time.process_time() - cpu
        room.tally.wall_s += time.perf_counter() - wall
        if not pieces:
            return table.slice(0, 0)
        return self._settle(room, pa.concat_tables(pieces))

    def _guarded(self, room: Room, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the results on all rows that do not raise, in order; quarantine the others."""
        if table.num_rows == 0:
            return
        if self.careful and table.num_rows > 1:
            for row in range(table.num_rows):
                yield from self._guarded(room, table.slice(row, 1))
            return
        assert room.work is not None
        if self.watch is not None:
            self.watch(room.name, table.column("id")[0].as_py() if table.num_rows == 1 else None)
        try:
            result = room.work(table)
        except PipelineError:
            raise
        except Exception as error:  # the boundary: a document must not stop a build
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise StoreFull(error.errno, f"no space left while {room.name} ran") from error
            if table.num_rows > 1:
                half = table.num_rows // 2
                yield from self._guarded(room, table.slice(0, half))
                yield from self._guarded(room, table.slice(half))
                return
            message = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
            self.first_error.setdefault(room.name, message)
            self._quarantine(room.tally, table, [type(error).__name__], [message])
            return
        yield self._decided(room, result, table)

    def _decided(self, room: Room, result: pa.Table | pa.Array, table: pa.Table) -> pa.Table:
        """Return the stage's result as a table with its decisions in `drop` / `error`."""
        if isinstance(room.stage, Filter):
            assert len(result) == table.num_rows, f"{room.name}: {len(result)} reasons for {table.num_rows} documents"
            return table.append_column(pa.field(DROP, pa.string()), result.cast(pa.string()))
        assert result.num_rows == table.num_rows, f"{room.name}: {result.num_rows} rows for {table.num_rows} documents"
        return result

    def _without_poison(self, room: Room, table: pa.Table) -> pa.Table:
        if not self.poison or table.num_rows == 0:
            return table
        kinds = [self.poison.get(name, ("", "")) for name in table.column("id").to_pylist()]
        bad = [kind if where == room.name else None for where, kind in kinds]
        if not any(bad):
            return table
        mask = pa.array([kind is not None for kind in bad])
        found = [kind for kind in bad if kind is not None]
        self._quarantine(room.tally, table.filter(mask), found, [f"the process ended: {kind}" for kind in found])
        return table.filter(pc.invert(mask))

    def _settle(self, room: Room, table: pa.Table) -> pa.Table:
        """Take out the rows that are decided on, count them, and return the others without the decision columns."""
        tally = room.tally
        if ERROR in table.column_names:
            errors = table.column(ERROR)
            if errors.null_count < len(errors):
                bad = table.filter(pc.is_valid(errors)).drop_columns([n for n in (DROP, ERROR) if n in table.column_names])
                messages = errors.drop_null().to_pylist()
                self._quarantine(tally, bad, [message.split(":", 1)[0] for message in messages], messages)
                table = table.filter(pc.is_null(errors))
            table = table.drop_columns([ERROR])
        if DROP in table.column_names:
            reasons = table.column(DROP)
            if reasons.null_count < len(reasons):
                self._drop(tally, table.filter(pc.is_valid(reasons)))
                table = table.filter(pc.is_null(reasons))
            table = table.drop_columns([DROP])
        tally.kept += table.num_rows
        room.measure(table)
        return table

    def _drop(self, tally: Tally, rows: pa.Table) -> None:
        reasons = rows.column(DROP)
        for pair in pc.value_counts(reasons).to_pylist():
            tally.dropped[pair["values"]] += pair["counts"]
            tally.sample(pair["values"], rows.filter(pc.equal(reasons, pair["values"])))
        self.dropped.append(_lost(rows, tally.stage, reasons.to_pylist(), _details(rows)))

    def _quarantine(self, tally: Tally, rows: pa.Table, kinds: list[str], messages: list[str]) -> None:
        tally.quarantined.update(kinds)
        self.quarantined.append(_lost(rows, tally.stage, kinds, messages))


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
    columns = [pa.array(own[f.name], pa.string()) if f.name in own else rows.column(f.name) for f in LOST]
    return pa.Table.from_arrays(columns, schema=LOST)


def lost_table(tables: Sequence[pa.Table]) -> pa.Table:
    """Return all rows of `dropped` or `quarantined` as one table."""
    return pa.concat_tables(tables) if tables else LOST.empty_table()
