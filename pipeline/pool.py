"""Stages with a pool: processes of their own on Ray, which open the stage once and map the tables of all segments.

A segment's CPU steps go on while the model works: `Flow` (`pipeline/flow.py`) has a bounded number of tables with the pool and
takes them back in order. Here is what does not know Ray: how many processes with what (`Size`, worked out from `run.pools` and
the machines there are), and one table's way there and back (`Call`, `Answer`), which `pipeline/child.py` runs in a child of
each of the pool's actors, so that a document that kills ends neither the actor nor the build.
"""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.errors import UserError
from gristmill.private import fresh_folder, private_folder
from pipeline.fingerprint import digest, parameters
from pipeline.flow import StageResult, work_through
from pipeline.stage import Stage, Transform

GRAIN = 10_000  # Ray knows resources to a ten-thousandth

_OPEN: dict[str, Transform] = {}  # by parameters alone: hashing the weights in each process would take as long as reading them


@dataclass(frozen=True, kw_only=True)
class PoolSize:
    """What a stage's pool may have; null takes what the cluster suggests.

    `actors`: processes; by default one for each GPU, one where there is none. `gpus`: of each; a fraction shares a GPU. By
    default the GPUs are divided evenly between the actors, and between the stages that don't say. `cpus`: of each; by default 1
    where that leaves CPUs to the other steps.
    """

    actors: int | None = None
    gpus: float | None = None
    cpus: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"actors must be at least 1, found {self.actors}")
        for name in ("gpus", "cpus"):
            value = getattr(self, name)
            if value is None:
                continue
            grains = value * GRAIN
            if not 0 <= value < math.inf or (value > 1 and value != int(value)) or abs(round(grains) - grains) > 1e-6:
                raise ValueError(f"{name} must be 0, a fraction of 1 to four digits, or a whole number, found {value}")


@dataclass(frozen=True)
class Size:
    """What a pool gets: so many actors, and the GPUs and CPUs of each."""

    actors: int
    gpus: float
    cpus: float

    def __str__(self) -> str:
        return f"{self.actors} actor{'s' * (self.actors != 1)} with {self.gpus:g} GPUs and {self.cpus:g} CPUs each"


@dataclass(frozen=True)
class Machine:
    """What a node of the cluster has."""

    cpus: float
    gpus: int


def sizes(asked: Mapping[str, PoolSize], machines: Sequence[Machine]) -> dict[str, Size]:
    """Return what each pool gets, all at once, with a CPU left for the other steps; the largest first.

    Raises:
        UserError: the machines do not have it.
    """
    gpus = sum(machine.gpus for machine in machines)
    given = {name: _actors_given(pool, machines) for name, pool in asked.items() if pool.gpus is not None}
    left = int(gpus - sum(actors * (asked[name].gpus or 0) for name, actors in given.items()))
    sharing = len(asked) - len(given)
    found: dict[str, Size] = {}
    for name, pool in asked.items():
        if pool.gpus is not None:
            actors, share = given[name], pool.gpus
        elif gpus == 0:
            actors, share = pool.actors or 1, 0.0
        else:
            if left < 1:
                advice = "the other pools leave it no whole one; say its gpus too, a fraction of one, or give the others less"
                raise UserError(_too_much(name, "a share of the GPUs", machines, advice))
            actors = pool.actors or left
            share = GRAIN // (sharing * math.ceil(actors / left)) / GRAIN
        found[name] = Size(actors, share, pool.cpus or 0.0)
    spare = sum(machine.cpus for machine in machines) - sum(size.actors * size.cpus for size in found.values())
    silent = [name for name, pool in asked.items() if pool.cpus is None]
    if sum(found[name].actors for name in silent) + 1 <= spare:
        found |= {name: Size(found[name].actors, found[name].gpus, 1.0) for name in silent}
    found = dict(sorted(found.items(), key=lambda item: (-item[1].gpus, -item[1].cpus)))
    _place(found, machines)
    return found


def _actors_given(pool: PoolSize, machines: Sequence[Machine]) -> int:
    """Return the actors of a pool that says its GPUs."""
    share = pool.gpus or 0.0
    if pool.actors is not None or share == 0:
        return pool.actors or 1
    return max(1, sum(machine.gpus * _slots(share) if share <= 1 else int(machine.gpus // share) for machine in machines))


def _slots(share: float) -> int:
    return GRAIN // round(share * GRAIN)


def _place(found: Mapping[str, Size], machines: Sequence[Machine]) -> None:
    """Find each actor a machine, as Ray will: a fraction is of one GPU, an actor is on one machine. Raises UserError."""
    free = [(machine.cpus, [1.0] * machine.gpus) for machine in machines]
    for name, size in found.items():
        for number in range(size.actors):
            for at, (cpus, gpus) in enumerate(free):
                taken = _take(gpus, size.gpus)
                if taken is not None and cpus >= size.cpus:
                    free[at] = (round(cpus - size.cpus, 4), taken)
                    break
            else:
                advice = f"{number} of them fit; lower actors, gpus or cpus of run.pools.{name}"
                raise UserError(_too_much(name, str(size), machines, advice))
    if not any(cpus >= 1 for cpus, _ in free):
        asked = "; ".join(f"{name}: {size}" for name, size in found.items())
        raise UserError(
            f"run.pools: {asked}; that leaves no whole CPU on any machine for the other steps; the cluster has "
            f"{_listed(machines)}; lower actors or cpus"
        )


def _take(gpus: list[float], share: float) -> list[float] | None:
    """Return what is left of a machine's GPUs, or None when they do not have it."""
    if share > 1:
        whole = [at for at, left in enumerate(gpus) if left == 1]
        taken = set(whole[: int(share)])
        return [0.0 if at in taken else left for at, left in enumerate(gpus)] if len(whole) >= share else None
    if share == 0:
        return gpus
    for at, left in enumerate(gpus):
        if round(left - share, 4) >= 0:
            return [*gpus[:at], round(left - share, 4), *gpus[at + 1 :]]
    return None


def _too_much(name: str, asked: str, machines: Sequence[Machine], advice: str) -> str:
    return f"run.pools.{name}: asks for {asked}; the cluster has {_listed(machines)}; {advice}"


def _listed(machines: Sequence[Machine]) -> str:
    return " + ".join(f"{machine.gpus} GPUs and {machine.cpus:g} CPUs" for machine in machines) or "no machines"


@dataclass(frozen=True)
class Call:
    """One table for one stage, with all that a process anywhere needs; without a table the stage is only opened."""

    name: str
    stage: Stage
    table: pa.Buffer | None = None
    memory: int | None = None  # bytes of private memory that a table may take beyond what the process has
    poison: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    careful: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Answer:
    """What became of a table, packed."""

    table: pa.Buffer
    lost: tuple[pa.Buffer, ...]
    error: str | None
    cpu_s: float
    wall_s: float

    def done(self) -> StageResult:
        """Unpack."""
        return StageResult(unpack(self.table), tuple(map(unpack, self.lost)), self.error, self.cpu_s, self.wall_s)


def run_call(call: Call, function: Transform, report: Any = None) -> Answer | None:  # noqa: ANN401 - segment.Report
    """Map a table through an opened stage; None when there is no table."""
    if call.table is None:
        return None
    number = 0

    def watch(stage: str, document: str | None) -> None:
        if report is not None:
            report(number, stage, document, 0)

    done = work_through(call.name, call.stage, function, unpack(call.table), call.poison, watch, number in call.careful)
    return Answer(pack(done.table), tuple(map(pack, done.lost)), done.error, done.cpu_s, done.wall_s)


def open_once(stage: Stage) -> Transform:
    """Return the stage opened, remembered in this process.

    It is opened while no other process of this machine opens it: the first reads the weights from afar or from the disk, the
    others find them in its cache.
    """
    key = digest(type(stage).__module__, type(stage).__name__, parameters(stage))
    if key not in _OPEN:
        wanted = Path(tempfile.gettempdir(), f"gristmill-{os.geteuid()}")  # on the machine's own disk: some homes know no locks
        folder = private_folder(wanted) or fresh_folder("locks", str(wanted))
        with (folder / f"{key}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _OPEN[key] = stage.open()  # type: ignore[attr-defined]
    return _OPEN[key]


def pack(table: pa.Table) -> pa.Buffer:
    """Return a table as an IPC stream: of a slice, its own rows only."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def unpack(buffer: pa.Buffer) -> pa.Table:
    """Return what `pack` was given."""
    return pa.ipc.open_stream(buffer).read_all()
