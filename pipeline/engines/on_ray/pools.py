"""A stage's pool on Ray: actors that hold their resources, open the stage once and map the tables of all segments.

`pipeline/resources.py` says how many with what. A placement group holds the resources until the build ends or a step needs
another pool; a table whose actor died is sent again, by the segment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gristmill.errors import UserError
from pipeline.engines.cargo import Cargo, pack
from pipeline.engines.child import Child, run_isolated
from pipeline.engines.failure import Failure
from pipeline.engines.on_ray.reasons import reason
from pipeline.engines.remote_pool import TableReply, TableRequest
from pipeline.engines.retries import backoff
from pipeline.resources import PoolSize, Resources
from pipeline.stage import AnyMap
from pipeline.units.segment import Task

TABLE_LOSSES = 10  # deaths of a pool's actors under one table, before its unit is given up
PLACE_S = 120.0  # for which a pool waits for what others of the cluster hold


def here(folder: str) -> None:
    """Work in the driver's folder, where there is one."""
    # Parameters may hold relative paths; a worker starts elsewhere. On other nodes the job's working directory is theirs.
    if os.path.isdir(folder):
        os.chdir(folder)


class _Host:
    """An actor of a pool: its child process has the stage open and maps tables; what kills there kills the child."""

    def __init__(self, cargo: Cargo | None, stalled: float | None) -> None:
        if cargo is not None:
            cargo.unload()
        self._child = Child(stalled=stalled)

    def run(self, request: TableRequest, folder: str) -> TableReply | Failure | None:
        """Map one table, or only open the stage."""
        here(folder)
        return run_isolated(self._child, request)


@dataclass(frozen=True)
class Hosts:
    """The actors of one pool, as a segment gets them, the stage that they have open, and how many tables it may have there.

    `packed`: the stage, pickled: where a segment runs its code may not be there before the segment's unit is.
    """

    actors: tuple[Any, ...]
    packed: bytes
    ahead: int
    batch_rows: int | None


class ToActors:
    """How a segment sends tables to a pool: each goes to the actor that has the fewest of its tables."""

    def __init__(self, hosts: Hosts, task: Task, folder: str, name: str) -> None:
        first = task.unit.index % len(hosts.actors)
        self._actors = hosts.actors[first:] + hosts.actors[:first]
        self._load = [0] * len(self._actors)
        self._request = TableRequest(name, cloudpickle.loads(hosts.packed), memory=task.memory)
        self._folder = folder

    def __call__(self, table: pa.Buffer) -> Callable[[], TableReply | Failure]:
        """Send a table; what is returned waits for the reply, through deaths of actors."""
        request = replace(self._request, table=table)
        at, reference = self._send(request)

        def wait() -> TableReply | Failure:
            nonlocal at, reference
            for lost in range(TABLE_LOSSES):
                if lost:
                    time.sleep(backoff(lost))
                    at, reference = self._send(request)
                try:
                    reply: TableReply | Failure = ray.get(reference)
                    return reply
                except RayTaskError as error:
                    return Failure("failed", reason(error))
                except RayError as error:
                    message = reason(error)
                finally:
                    self._load[at] -= 1
            return Failure("failed", f"actors of {request.name} died {TABLE_LOSSES} times under one table: {message}")

        return wait

    def _send(self, request: TableRequest) -> tuple[int, Any]:
        at = self._load.index(min(self._load))
        self._load[at] += 1
        return at, self._actors[at].run.remote(request, self._folder)


class ActorPool:
    """The actors of one stage, from the driver's side; they come again when they die, with what they hold."""

    def __init__(self, name: str, stage: AnyMap, asked: Resources, size: PoolSize, stalled: float | None) -> None:
        self.name = name
        self.stage, self.asked = stage, asked
        self.packed: bytes = cloudpickle.dumps(stage)
        self.size = size
        self.actors: list[Any] = []
        bundle = {kind: share for kind, share in (("CPU", size.cpus), ("GPU", size.gpus)) if share}
        self._group = placement_group([bundle] * size.actors, strategy="PACK") if bundle else None
        if self._group is not None and not self._group.wait(PLACE_S):
            self.stop()
            raise UserError(
                f"run.pools.{self.name}: {size} did not get their place within {PLACE_S:.0f} s, of the cluster's "
                f"{ray.cluster_resources()} there is {ray.available_resources()}; wait for what holds the rest, or ask for less"
            )
        cargo = pack([stage])
        for number in range(size.actors):
            place = PlacementGroupSchedulingStrategy(self._group, number) if self._group is not None else "DEFAULT"
            options = {"num_cpus": size.cpus, "num_gpus": size.gpus, "max_restarts": -1, "max_task_retries": 0}
            self.actors.append(ray.remote(**options)(_Host).options(scheduling_strategy=place).remote(cargo, stalled))

    def open(self, memory: int | None, folder: str) -> None:
        """Open the stage in all actors. Raises UserError when that is the user's to mend; units meet all else."""
        opening = [actor.run.remote(TableRequest(self.name, self.stage, memory=memory), folder) for actor in self.actors]
        for reference in opening:
            try:
                reply = ray.get(reference)
            except RayError:
                continue
            if isinstance(reply, Failure) and reply.kind == "user":
                raise UserError(reply.message)

    def stop(self) -> None:
        """End the actors and give back what they hold."""
        for actor in self.actors:
            ray.kill(actor)
        if self._group is not None:
            remove_placement_group(self._group)
