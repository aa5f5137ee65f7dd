"""How far workers on a Ray cluster are, for the driver's heartbeat: a desk where they leave word, and the driver looks in.

Nothing waits for it, and nothing depends on it: word that is lost with a node costs a line.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engines.heartbeat import Heartbeat

REPORT_S = 5.0  # between two words of a worker, and two looks of the driver, at least


class _Desk:
    """The actor: what was left since the last look."""

    def __init__(self) -> None:
        self._units: dict[str, tuple[int, str]] = {}
        self._lines: list[str] = []

    def report(self, unit: str, documents: int, stage: str) -> None:
        self._units[unit] = (documents, stage)

    def note(self, line: str) -> None:
        self._lines.append(line)

    def news(self) -> tuple[dict[str, tuple[int, str]], list[str]]:
        found = self._units, self._lines
        self._units, self._lines = {}, []
        return found


class Desk:
    """The desk, from the driver's side: beside it, so that it is lost with it alone."""

    def __init__(self, heart: Heartbeat) -> None:
        self._heart = heart
        self._every = min(REPORT_S, *(each / 4 for each in (heart.rhythm.every, heart.rhythm.stalled) if each is not None))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        desk = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)(_Desk)
        self._actor: Any = desk.options(scheduling_strategy=here).remote()
        self._asked: Any = None
        self._looked = time.monotonic()

    def reporter(self) -> Reporter:
        """Return what workers leave word with."""
        return Reporter(self._actor, self._every)

    def look(self, under_way: set[str]) -> None:
        """Pass on what has come, without waiting for it; of units that have ended meanwhile nothing."""
        if self._asked is not None:
            if not ray.wait([self._asked], timeout=0)[0]:
                return
            with contextlib.suppress(RayError):
                units, lines = ray.get(self._asked)
                for unit, (documents, stage) in units.items():
                    if unit in under_way:
                        self._heart.moved(unit, documents, stage)
                for line in lines:
                    self._heart.say(line)
            self._asked = None
        if time.monotonic() - self._looked >= self._every:
            self._looked = time.monotonic()
            self._asked = self._actor.news.remote()

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)


class Reporter:
    """How workers leave word; travels to them. As a context it reports one unit, at its begin and while it moves."""

    def __init__(self, actor: Any, every: float) -> None:  # noqa: ANN401 - Ray's handles have no common type
        self._actor = actor
        self._every = every

    @contextlib.contextmanager
    def reporting(self, unit: str) -> Iterator[Callable[[int, str], None]]:
        """Give a function that takes documents and stage, as often as one likes."""
        latest, moves = (0, ""), 1
        ended = threading.Event()

        def moved(documents: int, stage: str) -> None:
            nonlocal latest, moves
            latest, moves = (documents, stage), moves + 1

        def report() -> None:
            sent = 0
            while True:
                if moves != sent:
                    sent = moves
                    self._actor.report.remote(unit, *latest)
                if ended.wait(self._every):
                    return

        threading.Thread(target=report, daemon=True).start()
        try:
            yield moved
        finally:
            ended.set()

    def note(self, line: str) -> None:
        """Leave a line for people."""
        self._actor.note.remote(line)
