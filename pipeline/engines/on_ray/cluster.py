"""Run the units of a step on Ray: tasks for CPU steps, a pool of actors where a stage holds a model.

The same units, stores and commits as `pipeline/engines/local.py`. A unit never raises, so whatever Ray raises is infrastructure:
a worker, actor or node that died. Such units are tried again by us (Ray's own retries are off), with backoff; one that lost its
worker twice runs in a child process of the next worker, where the document that kills it can be found.

A stage with a pool works in actors of its own (`pipeline/engines/on_ray/pools.py`), to which segments send tables. Workers leave
word of how far they are (`pipeline/engines/on_ray/news.py`).
"""

from __future__ import annotations

import collections
import heapq
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from gristmill.storage import notes
from pipeline.engines.cargo import Cargo, pack
from pipeline.engines.child import Child, Heard, attempt, replaceable, reporting, run_isolated
from pipeline.engines.drive import Result
from pipeline.engines.failure import Failure
from pipeline.engines.heartbeat import SILENT, Heartbeat
from pipeline.engines.on_ray.join import join
from pipeline.engines.on_ray.news import Desk, Reporter
from pipeline.engines.on_ray.pools import ActorPool, Hosts, ToActors, here
from pipeline.engines.on_ray.preflight import Preflight
from pipeline.engines.on_ray.reasons import reason
from pipeline.engines.remote_pool import RemotePool, serving_again
from pipeline.engines.retries import backoff
from pipeline.resources import Machine, Resources, sizes
from pipeline.units.segment import Task

IN_FLIGHT = 2  # units a worker: one running, one waiting, so that no worker idles and no queue grows
AHEAD = 2  # tables an actor of a pool: one worked on, one waiting there; at least so many of each segment
MEET_S = 5.0  # between two looks for nodes that joined
ISOLATE_AFTER = 2  # deaths of the worker
LOSSES = 30  # deaths of the worker, in isolation too, before a unit is given up


@dataclass(frozen=True)
class Setting:
    """What the units of a step find where they run: the driver's folder, the pools, and what reports how they go.

    `stalled`: seconds without progress after which the child of a unit in isolation is killed; None: never.
    """

    folder: str
    pools: Mapping[str, Hosts]
    reporter: Reporter | None = None
    stalled: float | None = None


def _run(cargo: Cargo | None, packed: bytes, setting: Setting, isolated: bool) -> Result:
    """Run a unit: a pickled `Task`, whose stages can only be unpickled where their code is."""
    here(setting.folder)
    if cargo is not None:
        cargo.unload()
    task: Task = cloudpickle.loads(packed)
    if setting.reporter is None:
        return _work(task, setting, isolated, None)
    notes.listen(setting.reporter.note)
    with setting.reporter.reporting(task.unit.label) as heard:
        return _work(task, setting, isolated, heard)


def _work(task: Task, setting: Setting, isolated: bool, heard: Heard | None) -> Result:
    pools = {
        name: RemotePool(ToActors(hosts, task, setting.folder, name), hosts.ahead, hosts.batch_rows)
        for name, hosts in setting.pools.items()
    }
    if not isolated:
        return attempt(task, reporting(heard), pools)
    child = Child(pools, setting.stalled, heard)
    try:
        return run_isolated(child, task)
    finally:
        child.close()


class _Worker:
    """An actor that runs units and keeps what their stages opened."""

    def run(self, cargo: Cargo | None, packed: bytes, setting: Setting, isolated: bool) -> Result:
        """Run one unit."""
        return _run(cargo, packed, setting, isolated)


class RayEngine:
    """Runs tasks on a Ray cluster, or on one it starts on this machine."""

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        retries: int = 4,
        pools: Mapping[str, Resources] | None = None,
        heart: Heartbeat | None = None,
    ) -> None:
        self._owns = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if self._owns:
            join(address, workers)
        # On a cluster of this process's own, on this machine, nothing can differ.
        self.preflight = None if self._owns and not address else Preflight()
        self._most = workers
        self._retries = retries
        self._asked = pools or {}
        self._pools: list[ActorPool] = []
        self.heart = heart or Heartbeat(SILENT, print)
        self.desk = Desk(self.heart) if heart is not None else None
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
            name: Hosts(
                tuple(pool.actors),
                pool.packed,
                ahead=max(AHEAD, math.ceil(AHEAD * len(pool.actors) / segments)),
                batch_rows=pool.asked.batch_rows,
            )
            for name, pool in pools.items()
        }
        self.heart.begin(tasks[0].spec.title(), len(tasks), replaceable(tasks[0]))
        yield from _Round(self, tasks, workers, hosts).results()
        self.heart.end()

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        self.heart.end()
        if self.desk is not None:
            self.desk.close()
            self.desk = None
        for pool in self._pools:
            pool.stop()
        self._pools = []
        if self._owns:
            ray.shutdown()

    def _ready(self, task: Task) -> dict[str, ActorPool]:
        """Return the pools of a step by the names of its stages, opened.

        Those that are there from a step before serve again, when they are all that this one needs; else they make room.
        """
        needed = task.spec.pools(self._asked)
        again = serving_again(needed, self._pools)
        if again is not None:
            return again
        for pool in self._pools:
            pool.stop()
        self._pools = []
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        machines = [Machine(node.get("CPU", 0.0), int(node.get("GPU", 0))) for node in nodes]
        for name, size in sizes({name: asked for name, (_, asked) in needed.items()}, machines).items():
            self._pools.append(ActorPool(name, *needed[name], size, self.heart.rhythm.limit))
        for pool in self._pools:
            pool.open(task.memory, os.getcwd())
        return {pool.name: pool for pool in self._pools}


class _Round:
    """The units of one step under way: what waits, what flies, what waits for its next attempt."""

    def __init__(self, engine: RayEngine, tasks: Sequence[Task], workers: int, pools: Mapping[str, Hosts]) -> None:
        self.engine = engine
        limit = engine.heart.rhythm.limit if replaceable(tasks[0]) else None
        self.setting = Setting(os.getcwd(), pools, engine.desk.reporter() if engine.desk is not None else None, limit)
        cargo = pack(stage for _, stage in tasks[0].spec.all())
        self.cargo = cargo and ray.put(cargo)  # once for all units
        self.workers = workers
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
            self._listen()
            self._launch()
            if not self.flying:
                time.sleep(max(0.0, self.later[0][0] - time.monotonic()))
                continue
            ready, _ = ray.wait(list(self.flying), num_returns=1, timeout=1.0)
            for reference in ready:
                number, result = self._land(reference)
                if result is not None:
                    left -= 1
                    self.engine.heart.finished(self.tasks[number].unit.label)
                    yield self.tasks[number], result
        for actor in self.actors:
            ray.kill(actor)

    def _meet_new_nodes(self) -> None:
        if self.engine.preflight is not None and time.monotonic() - self.met >= MEET_S:
            self.met = time.monotonic()
            self.engine.preflight.check(self.tasks[0])

    def _listen(self) -> None:
        """Hear how the units go, and end the workers of those that do not, but in isolation: there it is the child that ends."""
        if self.engine.desk is None:
            return
        under_way = {self.tasks[number].unit.label for number, _ in self.flying.values()}
        self.engine.desk.look(under_way)
        stuck = set(self.engine.heart.stuck(self.setting.stalled, set(self.setting.pools)))
        for reference, (number, actor) in self.flying.items():
            unit = self.tasks[number].unit.label
            if unit in stuck and not self._isolated(number):
                self.engine.heart.interrupted(unit)
                if actor is None:
                    ray.cancel(reference, force=True)
                else:
                    ray.kill(actor)

    def _isolated(self, number: int) -> bool:
        return self.lost[number] >= ISOLATE_AFTER

    def _launch(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            self.waiting.append(heapq.heappop(self.later)[1])
        while self.waiting and len(self.flying) < IN_FLIGHT * self.workers:
            number = self.waiting.popleft()
            arguments = (self.cargo, cloudpickle.dumps(self.tasks[number]), self.setting, self._isolated(number))
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
        self.engine.heart.interrupted(self.tasks[number].unit.label)
        if self.lost[number] > LOSSES:
            return Failure("failed", f"its worker died {self.lost[number]} times: {reason(error)}")
        self._again(number, self.lost[number])
        return None

    def _again(self, number: int, times: int) -> None:
        heapq.heappush(self.later, (time.monotonic() + backoff(times), number))
