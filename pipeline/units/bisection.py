"""One stage on one table, with whatever it raises: the results, and the documents that it raises on.

Reads the opened function of a stage; returns its `StageResult`. This is the one place that catches whatever a stage may raise: a
table that raises is halved until the document that raises stands alone, and that one is quarantined. It knows no account, so that
the work of a stage with a pool can be done by other processes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import ENDINGS, GristmillError, StoreFull, UnitFailed
from pipeline.schema import DROP, ERROR, odd_documents, undecided
from pipeline.stage import Filter, Making, Stage, Transform
from pipeline.units.lost import lost_rows
from pipeline.units.making import made_of
from pipeline.units.quarantine import reason_of_exception

Watch = Callable[[str, str | None], None]  # called before each piece of work: (stage, document id, where it is one alone)


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


@dataclass
class Bisection:
    """One stage's function on one table, with whatever it raises.

    `poison` names documents (by id) that killed a process in a stage before: (stage, error kind). `watch(stage, id)` is called
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
        raised = None
        try:
            result = self.work(table)
        except (GristmillError, *ENDINGS):
            raise
        except BaseException as error:  # the boundary: a document must not stop a build, nor what panics in Rust
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise StoreFull(error.errno, f"no space left while {self.name} ran") from error
            raised = reason_of_exception(error)
        # Only here is the exception gone, and with it what its frames hold: all memory, where that ran out.
        if raised is not None:
            yield from self._after(table, *raised)
            return
        yield self.decided(result, table)

    def _after(self, table: pa.Table, kind: str, message: str) -> Iterator[pa.Table]:
        """Yield the results on the halves of a table that raised; one document is lost."""
        if table.num_rows > 1:
            half = table.num_rows // 2
            yield from self.pieces(table.slice(0, half))
            yield from self.pieces(table.slice(half))
            return
        self.error = self.error or message
        self.lost.append(lost_rows(table, self.name, [kind], [message]))

    def decided(self, result: object, table: pa.Table) -> pa.Table:
        """Return the stage's result as a table with its decisions in `drop` / `error`.

        Raises:
            UnitFailed: it is not what such a stage returns; no document is at fault.
        """
        if isinstance(self.stage, Filter):
            if not isinstance(result, pa.Array | pa.ChunkedArray) or not _is_text(result.type) or len(result) != table.num_rows:
                raise self._broken(
                    f"it returned {_in_words(result)} for {table.num_rows} documents, not as many strings or nulls"
                )
            return table.append_column(pa.field(DROP, pa.string()), result.cast(pa.string()))
        if not isinstance(result, pa.Table):
            raise self._broken(f"it returned {_in_words(result)}, expected a pyarrow.Table")
        if isinstance(self.stage, Making):
            self.made += result.num_rows - table.num_rows
            return made_of(table, result, self.name, self.stage)
        if result.num_rows != table.num_rows:
            raise self._broken(f"it returned {result.num_rows} rows for {table.num_rows} documents")
        for name in (each for each in (DROP, ERROR) if each in result.column_names):
            if not _is_text(result.column(name).type):
                raise self._broken(f"its column {name!r} is {result.column(name).type}, expected string")
        odd = odd_documents(result, table)
        if odd is not None:
            raise self._broken(odd)
        return result

    def _broken(self, what: str) -> UnitFailed:
        return UnitFailed(f"stage {self.name!r} breaks its contract: {what} (pipeline.stage says what it returns)")

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
        self.lost.append(lost_rows(table.filter(mask), self.name, found, [f"{kind}: the process ended on it" for kind in found]))
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
    out = pa.concat_tables(_alike(pieces)) if pieces else table.slice(0, 0)
    seconds = (time.process_time() - cpu, time.perf_counter() - wall)
    return StageResult(out, tuple(trial.lost), trial.made, trial.error, *seconds)


def _alike(pieces: Sequence[pa.Table]) -> list[pa.Table]:
    """Return pieces with the same decision columns: a stage may return one for the rows alone that it decides on."""
    decisions = [name for name in (DROP, ERROR) if any(name in piece.column_names for piece in pieces)]
    found = []
    for piece in pieces if decisions else ():
        columns = {name: piece.column(name) if name in piece.column_names else pa.nulls(len(piece)) for name in decisions}
        alike = undecided(piece)
        for name, values in columns.items():
            alike = alike.append_column(pa.field(name, pa.string()), values.cast(pa.string()))
        found.append(alike)
    return found or list(pieces)


def _is_text(kind: pa.DataType) -> bool:
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(test(values) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null))


def _in_words(result: object) -> str:
    """Return in words what a stage returned."""
    if isinstance(result, pa.Array | pa.ChunkedArray):
        return f"{len(result)} values of type {result.type}"
    return f"{type(result).__module__}.{type(result).__qualname__}"
