"""Run the units of a step on this machine: in child processes, or in this very process with `workers=0` (for a debugger).

Reads and writes through the store only. A child that dies is replaced, and the document that killed it is found
(`pipeline/child.py`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence

from pipeline.child import Child, Closed, Failure, attempt, replaceable, reporting, run_isolated
from pipeline.drive import Result
from pipeline.heartbeat import SILENT, Heartbeat
from pipeline.segment import Task

BACKOFF_S = 1.0


class LocalEngine:
    """Runs tasks on `workers` child processes; tells a heartbeat how they go."""

    def __init__(self, workers: int, retries: int = 4, heart: Heartbeat | None = None) -> None:
        self._retries = retries
        self._heart = heart or Heartbeat(SILENT, print)
        self._children = [Child(stalled=self._heart.rhythm.limit) for _ in range(workers)]

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        """Yield each task with its result, in the order they end."""
        if not tasks:
            return
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
            for number in range(self._retries + 1):
                if child is not None:
                    child.heard = heard
                result = run_isolated(child, task) if child is not None else attempt(task, reporting(heard))
                if not isinstance(result, Failure) or result.kind != "store":
                    break
                time.sleep(BACKOFF_S * 2**number)
            return result
        finally:
            self._heart.finished(unit)
