"""Run the units of a step on this machine: in child processes, or in this very process with `workers=0` (for a debugger).

Reads and writes through the store only. A child that dies is replaced, and the document that killed it is found
(`pipeline/engines/child.py`). A stage that has a pool works in processes of its own (`pipeline/engines/local_pools.py`), to
which the units send tables; not with `workers=0`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from gristmill.errors import UserError
from pipeline.engines.child import Child, Closed, attempt, replaceable, reporting, run_isolated
from pipeline.engines.drive import Result
from pipeline.engines.failure import Failure
from pipeline.engines.heartbeat import SILENT, Heartbeat
from pipeline.engines.local_pools import LocalPool, local_pools
from pipeline.engines.remote_pool import RemotePool, serving_again
from pipeline.engines.retries import backoff
from pipeline.fitted import working
from pipeline.resources import Resources
from pipeline.units.segment import Task


class LocalEngine:
    """Runs tasks on `workers` child processes; reports to a heartbeat how they go.

    Args:
        workers: units at once. 0: one, in this very process, with all its stages.
        retries: of a unit whose store failed.
        pools: what processes of stages are to have, by the name of the stage.
        heart: what progress is reported to; None: to nothing.
    """

    def __init__(
        self,
        workers: int,
        retries: int = 4,
        pools: Mapping[str, Resources] | None = None,
        heart: Heartbeat | None = None,
    ) -> None:
        self._retries = retries
        self._asked = pools or {}
        self._pools: dict[str, LocalPool] = {}
        self._heart = heart or Heartbeat(SILENT, print)
        self._children = [Child(stalled=self._heart.rhythm.limit) for _ in range(workers)]

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its result, in the order they end.

        Raises:
            UserError: a stage's pool cannot be made, or a stage is of a class that no other process can import.
        """
        if not tasks:
            return
        if self._children:
            _refuse_script(tasks[0])
            pools = self._ready(tasks[0])
            for child in self._children:
                child.pools = {name: RemotePool(pool.send, 1, pool.asked.batch_rows) for name, pool in pools.items()}
        self._heart.begin(tasks[0].spec.title(), len(tasks), replaceable(tasks[0]))
        if not self._children:
            for task in tasks:
                yield task, self._retried(task, None)
            self._heart.end()
            return
        todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            todo.put(task)
        done: queue.SimpleQueue[tuple[Task, Result] | BaseException] = queue.SimpleQueue()
        for child in self._children:
            threading.Thread(target=self._serve, args=(child, todo, done), daemon=True).start()
        for _ in tasks:
            result = done.get()
            if isinstance(result, BaseException):
                raise result
            yield result
        self._heart.end()

    def close(self) -> None:
        """End the children."""
        self._heart.end()
        for child in self._children:
            child.close()
        for pool in self._pools.values():
            pool.close()

    def _ready(self, task: Task) -> dict[str, LocalPool]:
        """Return the pools of a step by the names of its stages, opened; others than it needs make room."""
        needed = task.spec.pools(self._asked)
        again = serving_again(needed, list(self._pools.values()))
        if again is not None:
            return again
        for pool in self._pools.values():
            pool.close()
        self._pools = local_pools(needed, task.memory, self._heart.rhythm.limit)
        for pool in self._pools.values():
            pool.open()
        return self._pools

    def _serve(
        self, child: Child, todo: queue.SimpleQueue[Task], done: queue.SimpleQueue[tuple[Task, Result] | BaseException]
    ) -> None:
        while True:
            try:
                task = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((task, self._retried(task, child)))
            except Closed:
                return
            except BaseException as error:
                # A thread that died silently would leave the build waiting for ever.
                done.put(error)
                raise

    def _retried(self, task: Task, child: Child | None) -> Result:
        unit = task.unit.label

        def heard(documents: int, stage: str) -> None:
            self._heart.moved(unit, documents, stage)

        try:
            refused = 0
            while True:
                if child is not None:
                    child.heard = heard
                result = run_isolated(child, task) if child is not None else attempt(task, reporting(heard))
                if not isinstance(result, Failure) or result.kind != "store" or refused == self._retries:
                    return result
                refused += 1
                time.sleep(backoff(refused))
        finally:
            self._heart.finished(unit)


def _refuse_script(task: Task) -> None:
    """Refuse stages of the script that runs: its children could import them only by running it, which would build in each."""
    for name, stage in task.spec.all():
        cls = type(working(stage))
        if cls.__module__ == "__main__":
            raise UserError(
                f"stage {name!r}: its class {cls.__name__} is in the script that runs, which the processes that work "
                "cannot import; put the class into a module of its own and import it from there, or give LocalEngine(workers=0)"
            )
