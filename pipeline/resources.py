"""What a stage asks of the machines, and what its processes get of those that there are.

A stage says what its own processes hold (`Stage.resources`), a config says it otherwise (`run.pools`), and `sizes` shares out
the machines between all stages of a step that have processes of their own. Pure functions; they read and write nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from gristmill.errors import UserError

GRAIN = 10_000  # Ray knows resources to a ten-thousandth


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a stage's own processes hold; null takes what the machines suggest.

    `actors`: processes; by default one for each GPU, one where there is none. `gpus`: of each; a fraction shares a GPU. By
    default the GPUs are divided evenly between the processes, and between the stages that don't say. `cpus`: of each; by default
    1 where that leaves CPUs to the other steps. `batch_rows`: documents that a table is to have there, at least; by default it
    has what the stages before have left of a table of `run.batch_rows`.
    """

    actors: int | None = None
    gpus: float | None = None
    cpus: float | None = None
    batch_rows: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("actors", "batch_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        for name in ("gpus", "cpus"):
            value = getattr(self, name)
            if value is None:
                continue
            grains = value * GRAIN
            if not 0 <= value < math.inf or (value > 1 and value != int(value)) or abs(round(grains) - grains) > 1e-6:
                raise ValueError(f"{name} must be 0, a fraction of 1 to four digits, or a whole number, found {value}")

    def over(self, other: Resources | None) -> Resources:
        """Return what this one says, and the other where this one says nothing.

        >>> Resources(actors=2).over(Resources(actors=1, gpus=0.5))
        Resources(actors=2, gpus=0.5, cpus=None, batch_rows=None)
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return Resources(**{name: getattr(other, name, None) if value is None else value for name, value in own.items()})


@dataclass(frozen=True)
class PoolSize:
    """What a stage's pool gets: so many processes, and the GPUs and CPUs of each."""

    actors: int
    gpus: float
    cpus: float

    def __str__(self) -> str:
        return f"{self.actors} actor{'s' * (self.actors != 1)} with {self.gpus:g} GPUs and {self.cpus:g} CPUs each"


@dataclass(frozen=True)
class Machine:
    """What a machine has."""

    cpus: float
    gpus: int


def sizes(asked: Mapping[str, Resources], machines: Sequence[Machine]) -> dict[str, PoolSize]:
    """Return what each pool gets, all at once, with a CPU left for the other steps; the largest first.

    Raises:
        UserError: the machines do not have it.
    """
    gpus = sum(machine.gpus for machine in machines)
    given = {name: _actors_given(pool, machines) for name, pool in asked.items() if pool.gpus is not None}
    left = int(gpus - sum(actors * (asked[name].gpus or 0) for name, actors in given.items()))
    sharing = len(asked) - len(given)
    found: dict[str, PoolSize] = {}
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
        found[name] = PoolSize(actors, share, pool.cpus or 0.0)
    spare = sum(machine.cpus for machine in machines) - sum(size.actors * size.cpus for size in found.values())
    silent = [name for name, pool in asked.items() if pool.cpus is None]
    if sum(found[name].actors for name in silent) + 1 <= spare:
        found |= {name: PoolSize(found[name].actors, found[name].gpus, 1.0) for name in silent}
    found = dict(sorted(found.items(), key=lambda item: (-item[1].gpus, -item[1].cpus)))
    gpus_of(found, machines)
    return found


def gpus_of(found: Mapping[str, PoolSize], machines: Sequence[Machine]) -> dict[str, list[tuple[int, ...]]]:
    """Return the GPUs of each process of each pool, as numbers on its machine, placed as Ray places them.

    A fraction is of one GPU, and a process is on one machine.

    Raises:
        UserError: the machines do not have it, or no whole CPU of any is left for the other steps.
    """
    cpus = [machine.cpus for machine in machines]
    gpus = [[1.0] * machine.gpus for machine in machines]
    placed: dict[str, list[tuple[int, ...]]] = {name: [] for name in found}
    for name, size in found.items():
        for number in range(size.actors):
            for at in range(len(machines)):
                taken = _fitting(gpus[at], size.gpus)
                if taken is not None and cpus[at] >= size.cpus:
                    cpus[at] = round(cpus[at] - size.cpus, 4)
                    for gpu in taken:
                        gpus[at][gpu] = round(gpus[at][gpu] - min(size.gpus, 1.0), 4)
                    placed[name].append(taken)
                    break
            else:
                advice = f"{number} of them fit; lower actors, gpus or cpus of run.pools.{name}"
                raise UserError(_too_much(name, str(size), machines, advice))
    if not any(left >= 1 for left in cpus):
        asked = "; ".join(f"{name}: {size}" for name, size in found.items())
        raise UserError(
            f"run.pools: {asked}; that leaves no whole CPU on any machine for the other steps; there are {_listed(machines)}; "
            "lower actors or cpus"
        )
    return placed


def _actors_given(pool: Resources, machines: Sequence[Machine]) -> int:
    """Return the processes of a pool that says its GPUs."""
    share = pool.gpus or 0.0
    if pool.actors is not None or share == 0:
        return pool.actors or 1
    return max(1, sum(machine.gpus * _slots(share) if share <= 1 else int(machine.gpus // share) for machine in machines))


def _slots(share: float) -> int:
    return GRAIN // round(share * GRAIN)


def _fitting(free: Sequence[float], share: float) -> tuple[int, ...] | None:
    """Return the GPUs of a machine that have so much left, or None when it does not have it."""
    if share == 0:
        return ()
    if share > 1:
        whole = [at for at, left in enumerate(free) if left == 1]
        return tuple(whole[: int(share)]) if len(whole) >= share else None
    return next(((at,) for at, left in enumerate(free) if round(left - share, 4) >= 0), None)


def _too_much(name: str, asked: str, machines: Sequence[Machine], advice: str) -> str:
    return f"run.pools.{name}: asks for {asked}; there are {_listed(machines)}; {advice}"


def _listed(machines: Sequence[Machine]) -> str:
    return " + ".join(f"{machine.gpus} GPUs and {machine.cpus:g} CPUs" for machine in machines) or "no machines"
