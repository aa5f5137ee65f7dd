"""Run the units of a step on Ray: tasks for CPU steps, a pool of actors where a stage holds a model.

The same units, stores and commits as `pipeline/local.py`. A unit never raises, so whatever Ray raises is infrastructure: a
worker, actor or node that died. Such units are tried again by us (Ray's own retries are off), with backoff; one that lost its
worker twice runs in a child process of the next worker, where the document that kills it can be found.

A stage with a pool (`pipeline/pool.py`) works in actors that hold their resources (a placement group) until the build ends or a
step needs another pool. Segments send them tables; a call whose actor died is sent again, by the segment.
"""

from __future__ import annotations

import collections
import heapq
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.child import Child, Elsewhere, Failure, attempt, run_isolated
from pipeline.cluster_join import join
from pipeline.drive import Result
from pipeline.errors import UserError
from pipeline.pool import Answer, Call, Machine, PoolSize, Size, sizes
from pipeline.preflight import Preflight
from pipeline.ray_reasons import reason
from pipeline.segment import Task
from pipeline.stage import Stage

IN_FLIGHT = 2  # units a worker: one running, one waiting, so that no worker idles and no queue grows
AHEAD = 2  # tables an actor of a pool: one worked on, one waiting there; at least so many of each segment
MEET_S = 5.0  # between two looks for nodes that joined
BACKOFF_S = 0.5
BACKOFF_LIMIT_S = 30.0
ISOLATE_AFTER = 2  # deaths of the worker
LOSSES = 30  # deaths of the worker, in isolation too, before a unit is given up
CALL_LOSSES = 10  # deaths of a pool's actors under one table, before its unit is given up
PLACE_S = 120.0  # for which a pool waits for what others of the cluster hold


def _here(folder: str) -> None:
    # Parameters may hold relative paths; a worker starts elsewhere. On other nodes the job's working directory is theirs.
    if os.path.isdir(folder):
        os.chdir(folder)


def _run(task: Task, folder: str, isolated: bool, pools: Mapping[str, Hosts]) -> Result:
    _here(folder)
    asks = {name: _Asks(hosts, task, folder, name) for name, hosts in pools.items()}
    if not isolated:
        return attempt(task, pools={name: Elsewhere(ask, pools[name].ahead) for name, ask in asks.items()})
    child = Child(asks)
    try:
        return run_isolated(child, task)
    finally:
        child.close()


class _Worker:
    """An actor that runs units and keeps what their stages opened."""

    def run(self, task: Task, folder: str, isolated: bool, pools: Mapping[str, Hosts]) -> Result:
        """Run one unit."""
        return _run(task, folder, isolated, pools)


class _Host:
    """An actor of a pool: its child process has the stage open and maps tables; what kills there kills the child."""

    def __init__(self) -> None:
        self._child = Child()

    def run(self, call: Call, folder: str) -> Answer | Failure | None:
        """Map one table, or only open the stage."""
        _here(folder)
        return run_isolated(self._child, call)


@dataclass(frozen=True)
class Hosts:
    """The actors of one pool, as a segment gets them, and how many tables it may have there."""

    actors: tuple[Any, ...]
    ahead: int


class _Asks:
    """How a segment reaches a pool: each table goes to the actor that has the fewest of its tables."""

    def __init__(self, hosts: Hosts, task: Task, folder: str, name: str) -> None:
        first = task.unit.index % len(hosts.actors)
        self._actors = hosts.actors[first:] + hosts.actors[:first]
        self._load = [0] * len(self._actors)
        self._call = Call(name, dict(task.spec.pools())[name], memory=task.memory)
        self._folder = folder

    def __call__(self, table: pa.Buffer) -> Callable[[], Answer | Failure]:
        """Send a table; what is returned waits for the answer, through deaths of actors."""
        call = replace(self._call, table=table)
        at, reference = self._send(call)

        def wait() -> Answer | Failure:
            nonlocal at, reference
            for lost in range(CALL_LOSSES):
                if lost:
                    time.sleep(_backoff(lost))
                    at, reference = self._send(call)
                try:
                    reply: Answer | Failure = ray.get(reference)
                    return reply
                except RayTaskError as error:
                    return Failure("failed", reason(error))
                except RayError as error:
                    message = reason(error)
                finally:
                    self._load[at] -= 1
            return Failure("failed", f"actors of {call.name} died {CALL_LOSSES} times under one table: {message}")

        return wait

    def _send(self, call: Call) -> tuple[int, Any]:
        at = self._load.index(min(self._load))
        self._load[at] += 1
        return at, self._actors[at].run.remote(call, self._folder)


def _backoff(times: int) -> float:
    return min(BACKOFF_LIMIT_S, BACKOFF_S * 2.0 ** (times - 1))


class _Pool:
    """The actors of one stage, from the driver's side; they come again when they die, with what they hold."""

    def __init__(self, name: str, stage: Stage, size: Size) -> None:
        self.name = name
        self.stage = stage
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
        for number in range(size.actors):
            place = PlacementGroupSchedulingStrategy(self._group, number) if self._group is not None else "DEFAULT"
            options = {"num_cpus": size.cpus, "num_gpus": size.gpus, "max_restarts": -1, "max_task_retries": 0}
            self.actors.append(ray.remote(**options)(_Host).options(scheduling_strategy=place).remote())

    def open(self, memory: int | None, folder: str) -> None:
        """Open the stage in all actors. Raises UserError when that is the user's to mend; units meet all else."""
        opening = [actor.run.remote(Call(self.name, self.stage, memory=memory), folder) for actor in self.actors]
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


class RayEngine:
    """Runs tasks on a Ray cluster, or on one it starts on this machine."""

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        retries: int = 4,
        pools: Mapping[str, PoolSize] | None = None,
    ) -> None:
        self._owns = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if self._owns:
            join(address, workers)
        # On a cluster of this process's own, on this machine, nothing can differ.
        self.preflight = None if self._owns and not address else Preflight()
        self._most = workers
        self._retries = retries
        self._sizes = pools or {}
        self._pools: list[_Pool] = []
        self._function = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its result, in the order they end."""
        if not tasks:
            return
        if self.preflight is not None:
            self.preflight.check(tasks[0])
        pools = self._ready(tasks[0])
        held = sum(pool.size.actors * pool.size.cpus for pool in self._pools)
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1) - held))
        workers = min(self._most, cpus) if self._most else cpus
        segments = min(workers, len(tasks))
        hosts = {
            name: Hosts(tuple(pool.actors), max(AHEAD, math.ceil(AHEAD * len(pool.actors) / segments)))
            for name, pool in pools.items()
        }
        yield from _Round(self, tasks, workers, hosts).results()

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        for pool in self._pools:
            pool.stop()
        self._pools = []
        if self._owns:
            ray.shutdown()

    def _ready(self, task: Task) -> dict[str, _Pool]:
        """Return the pools of a step by the names of its stages, opened.

        Those that are there from a step before serve again, when they are all that this one needs; else they make room.
        """
        needed = dict(task.spec.pools())
        there = {
            name: pool
            for name, stage in needed.items()
            for pool in self._pools
            if pool.stage == stage and self._sizes.get(pool.name) == self._sizes.get(name)
        }
        if len(there) == len(needed):
            return there
        for pool in self._pools:
            pool.stop()
        self._pools = []
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [Machine(node.get("CPU", 0.0), int(node.get("GPU", 0))) for node in nodes]
        for name, size in sizes({name: self._sizes.get(name, PoolSize()) for name in needed}, machines).items():
            self._pools.append(_Pool(name, needed[name], size))
        for pool in self._pools:
            pool.open(task.memory, os.getcwd())
        return {pool.name: pool for pool in self._pools}


class _Round:
    """The units of one step under way: what waits, what flies, what waits for its next attempt."""

    def __init__(self, engine: RayEngine, tasks: Sequence[Task], workers: int, pools: Mapping[str, Hosts]) -> None:
        self.engine = engine
        self.folder = os.getcwd()
        self.workers = workers
        self.pools = pools
        self.waiting: collections.deque[int] = collections.deque(range(len(tasks)))
        self.later: list[tuple[float, int]] = []
        self.flying: dict[Any, tuple[int, Any]] = {}
        self.tasks = tasks
        self.met = time.monotonic()
        self.lost = [0] * len(tasks)
        self.refused = [0] * len(tasks)
        actors = min(workers, len(tasks)) if tasks[0].spec.actor() else 0
        self.actors: list[Any] = [engine._actor.remote() for _ in range(actors)]
        self.load: dict[Any, int] = dict.fromkeys(self.actors, 0)

    def results(self) -> Iterator[tuple[Task, Result]]:
        """Fly and land until every unit has a result."""
        left = len(self.tasks)
        while left:
            self._meet_new_nodes()
            self._launch()
            if not self.flying:
                time.sleep(max(0.0, self.later[0][0] - time.monotonic()))
                continue
            ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=1.0)
            for reference in ready:
                number, result = self._land(reference)
                if result is not None:
                    left -= 1
                    yield self.tasks[number], result
        for actor in self.actors:
            ray.kill(actor)

    def _meet_new_nodes(self) -> None:
        if self.engine.preflight is not None and time.monotonic() - self.met >= MEET_S:
            self.met = time.monotonic()
            self.engine.preflight.check(self.tasks[0])

    def _launch(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            self.waiting.append(heapq.heappop(self.later)[1])
        while self.waiting and len(self.flying) < IN_FLIGHT * self.workers:
            number = self.waiting.popleft()
            arguments = (self.tasks[number], self.folder, self.lost[number] >= ISOLATE_AFTER, self.pools)
            if self.actors:
                actor = min(self.actors, key=self.load.__getitem__)
                self.load[actor] += 1
                self.flying[actor.run.remote(*arguments)] = (number, actor)
            else:
                self.flying[self.engine._function.remote(*arguments)] = (number, None)

    def _land(self, reference: Any) -> tuple[int, Result | None]:  # noqa: ANN401 - Ray's references have no common type
        number, actor = self.flying.pop(reference)
        if actor is not None and actor in self.load:
            self.load[actor] -= 1
        try:
            result: Result = ray.get(reference)
        except RayTaskError as error:
            # Raised by our own code around the unit: a bug, or a stage that does not travel. Trying again is no use.
            return number, Failure("failed", reason(error))
        except RayError as error:
            return number, self._lose(number, actor, error)
        if isinstance(result, Failure) and result.kind == "store" and self.refused[number] < self.engine._retries:
            self.refused[number] += 1
            self._again(number, self.refused[number])
            return number, None
        return number, result

    def _lose(self, number: int, actor: Any, error: RayError) -> Failure | None:  # noqa: ANN401
        """Account for a worker that died under a unit; return a failure when it died too often."""
        if actor is not None and actor in self.load:
            self.actors.remove(actor)
            del self.load[actor]
            fresh = self.engine._actor.remote()
            self.actors.append(fresh)
            self.load[fresh] = 0
        self.lost[number] += 1
        if self.lost[number] > LOSSES:
            return Failure("failed", f"its worker died {self.lost[number]} times: {reason(error)}")
        self._again(number, self.lost[number])
        return None

    def _again(self, number: int, times: int) -> None:
        heapq.heappush(self.later, (time.monotonic() + _backoff(times), number))
