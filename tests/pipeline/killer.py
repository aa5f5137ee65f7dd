"""Real kills, at random."""

from __future__ import annotations

import os
import random
import signal
import threading

import psutil


def _is_worker(process: psutil.Process) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return bool(line) and (line[0].startswith("ray::_") or any("pipeline.engines.child" in word for word in line))


class Killer:
    """SIGKILLs random workers of the cluster (and the children they isolate documents in) until stopped.

    Not more than `most` of them: where starting one takes longer than `every` seconds, nothing would ever be done.
    """

    def __init__(self, seed: int, every: float, most: int = 4) -> None:
        self.kills = 0
        self._most = most
        self._chance = random.Random(seed)
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while self.kills < self._most and not self._stop.wait(self._chance.uniform(0.5, 1.5) * self._every):
            family = psutil.Process().children(recursive=True)
            victims = [process.pid for process in family if _is_worker(process)]
            if victims:
                try:
                    os.kill(self._chance.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1
