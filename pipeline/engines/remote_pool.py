"""A table's way from a segment to a process that has a stage open, and back.

`Flow` (`pipeline/units/flow.py`) has a bounded number of tables with a pool and takes them back in order, so the CPU steps of a
segment go on while the model works. `RemotePool` is such a pool: it packs a table, a `Send` takes it to one of the pool's
processes, which answers a `TableRequest` with a `TableReply` (`answer`), in a child (`pipeline/engines/child.py`), so that a
document that kills ends neither the pool nor the build. There are three ways to send:

    from a child, to its parent           `pipeline/engines/child.py`
    from a parent, to children beside it  `pipeline/engines/local_pools.py`
    on Ray, to actors                     `pipeline/engines/on_ray/pools.py`

Here is what knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import pyarrow as pa

from pipeline.engines.failure import Failure
from pipeline.resources import Resources
from pipeline.stage import AnyMap, Transform
from pipeline.units.bisection import StageResult, Watch, work_through


@dataclass(frozen=True)
class TableRequest:
    """One table for one stage, with all that a process anywhere needs; without a table the stage is only opened.

    `memory`: bytes of private memory that the table may take beyond what the process has. `poison`: document → (stage, kind of
    error), of those that killed a process. `careful`: numbers of the tables to take one document at a time; this one is 0.
    """

    name: str
    stage: AnyMap
    table: pa.Buffer | None = None
    memory: int | None = None
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    careful: frozenset[int] = frozenset()


@dataclass(frozen=True)
class TableReply:
    """A `StageResult` with its tables packed."""

    table: pa.Buffer
    lost: tuple[pa.Buffer, ...]
    made: int
    error: str | None
    cpu_s: float
    wall_s: float

    def result(self) -> StageResult:
        """Unpack."""
        return StageResult(unpack(self.table), tuple(map(unpack, self.lost)), self.made, self.error, self.cpu_s, self.wall_s)


Send = Callable[[pa.Buffer], Callable[[], TableReply | Failure]]  # takes a packed table; what it returns waits for the reply


class PoolFailed(Exception):
    """A pool cannot work for a unit, which ends with this failure."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)


@dataclass(frozen=True)
class RemotePool:
    """A `flow.Pool` whose processes are reached through `send`."""

    send: Send
    ahead: int
    batch_rows: int | None = None

    def submit(self, table: pa.Table) -> Callable[[], StageResult]:
        """Send a table; return a function that waits for its result. That raises PoolFailed when there is none."""
        wait = self.send(pack(table))

        def receive() -> StageResult:
            reply = wait()
            if isinstance(reply, Failure):
                raise PoolFailed(reply)
            return reply.result()

        return receive


class OpenPool(Protocol):
    """The processes of a stage, as an engine keeps them from step to step."""

    stage: AnyMap
    asked: Resources


AnyPool = TypeVar("AnyPool", bound=OpenPool)


def serving_again(needed: Mapping[str, tuple[AnyMap, Resources]], pools: Sequence[AnyPool]) -> dict[str, AnyPool] | None:
    """Return the pools that a step needs, by the names of its stages, when all are there from a step before; else None."""
    there = {name: pool for name, each in needed.items() for pool in pools if (pool.stage, pool.asked) == each}
    return there if len(there) == len(needed) else None


def answer(request: TableRequest, function: Transform, watch: Watch | None) -> TableReply | None:
    """Return what an opened stage makes of a request's table; None when it has none."""
    if request.table is None:
        return None
    table, careful = unpack(request.table), 0 in request.careful
    result = work_through(request.name, request.stage, function, table, request.poison, watch, careful)
    return TableReply(pack(result.table), tuple(map(pack, result.lost)), result.made, result.error, result.cpu_s, result.wall_s)


def pack(table: pa.Table) -> pa.Buffer:
    """Return a table as an IPC stream: of a slice, its own rows only."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def unpack(buffer: pa.Buffer) -> pa.Table:
    """Return what `pack` was given."""
    return pa.ipc.open_stream(buffer).read_all()
