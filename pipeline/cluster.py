"""Run the units of a step on Ray: tasks for CPU steps, a pool of actors where a stage holds a model.

The same units, stores and commits as `pipeline/local.py`. A unit never raises, so whatever Ray raises is infrastructure: a
worker, actor or node that died. Such units are tried again by us (Ray's own retries are off), with backoff; one that lost its
worker twice runs in a child process of the next worker, where the document that kills it can be found.
"""

from __future__ import annotations

import collections
import heapq
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.child import Child, Failure, attempt, run_isolated
from pipeline.drive import Result
from pipeline.errors import UserError
from pipeline.segment import Task

IN_FLIGHT = 2  # units a worker: one running, one waiting, so that no worker idles and no queue grows
CONNECT_S = 10.0
BACKOFF_S = 0.5
BACKOFF_LIMIT_S = 30.0
ISOLATE_AFTER = 2  # deaths of the worker
LOSSES = 30  # deaths of the worker, in isolation too, before a unit is given up


def _here(folder: str) -> None:
    # Parameters may hold relative paths; a worker starts elsewhere. On other nodes the job's working directory is theirs.
    if os.path.isdir(folder):
        os.chdir(folder)


def _run(task: Task, folder: str, isolated: bool) -> Result:
    _here(folder)
    if not isolated:
        return attempt(task)
    child = Child()
    try:
        return run_isolated(child, task)
    finally:
        child.close()


class _Worker:
    """An actor that runs units and keeps what their stages opened."""

    def run(self, task: Task, folder: str, isolated: bool) -> Result:
        """Run one unit."""
        return _run(task, folder, isolated)


def join(address: str | None, workers: int | None) -> None:
    """Connect to the cluster at `address`, or start one on this machine.

    Raises:
        UserError: nothing answers there.
    """
    local: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            # Ray itself tries for two minutes and then ends the process.
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    except OSError as error:
        where = f"no Ray cluster answers at {address!r}" if address else "Ray does not start on this machine"
        advice = "give run.address (or RAY_ADDRESS) as host:port of its head, or neither to start one here"
        raise UserError(f"{where}: {error}; {advice}") from error


class RayEngine:
    """Runs tasks on a Ray cluster, or on one it starts on this machine."""

    def __init__(self, workers: int | None = None, address: str | None = None, retries: int = 4) -> None:
        self._owns = not ray.is_initialized()
        if self._owns:
            join(address or os.environ.get("RAY_ADDRESS"), workers)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        self._workers = min(workers, cpus) if workers else cpus
        self._retries = retries
        self._function = ray.remote(num_cpus=1, max_retries=0)(_run)
        self._actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its result, in the order they end."""
        if not tasks:
            return
        pool = self._workers if tasks[0].spec.actor() else 0
        yield from _Round(self, tasks, pool).results()

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._owns:
            ray.shutdown()


class _Round:
    """The units of one step under way: what waits, what flies, what waits for its next attempt."""

    def __init__(self, engine: RayEngine, tasks: Sequence[Task], pool: int) -> None:
        self.engine = engine
        self.folder = os.getcwd()
        self.waiting: collections.deque[int] = collections.deque(range(len(tasks)))
        self.later: list[tuple[float, int]] = []
        self.flying: dict[Any, tuple[int, Any]] = {}
        self.tasks = tasks
        self.lost = [0] * len(tasks)
        self.refused = [0] * len(tasks)
        self.actors: list[Any] = [engine._actor.remote() for _ in range(min(pool, len(tasks)))]
        self.load: dict[Any, int] = dict.fromkeys(self.actors, 0)

    def results(self) -> Iterator[tuple[Task, Result]]:
        """Fly and land until every unit has a result."""
        left = len(self.tasks)
        while left:
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

    def _launch(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            self.waiting.append(heapq.heappop(self.later)[1])
        while self.waiting and len(self.flying) < IN_FLIGHT * self.engine._workers:
            number = self.waiting.popleft()
            arguments = (self.tasks[number], self.folder, self.lost[number] >= ISOLATE_AFTER)
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
            return number, Failure("failed", str(error))
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
            return Failure("failed", f"its worker died {self.lost[number]} times: {type(error).__name__}: {error}")
        self._again(number, self.lost[number])
        return None

    def _again(self, number: int, times: int) -> None:
        wait = min(BACKOFF_LIMIT_S, BACKOFF_S * 2 ** (times - 1))
        heapq.heappush(self.later, (time.monotonic() + wait, number))
