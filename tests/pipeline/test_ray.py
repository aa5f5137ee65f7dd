"""The same units on Ray: real workers, real kills, the same build."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.cluster import RayEngine
from pipeline.drive import Options, Outcome, drive
from pipeline.plan import Plan
from tests.pipeline.toy_corpus import plan_of, run, totals

ray = pytest.importorskip("ray")

MEMORY = 300 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20)
    yield
    ray.shutdown()


def run_on_ray(plan: Plan, root: Path, workers: int, batch_rows: int = 7) -> Outcome:
    outcome = drive(plan, lambda: RayEngine(workers), Options(str(root), batch_rows, MEMORY))
    assert outcome.build is not None, outcome.failures
    return outcome


def test_same_build_on_ray_for_any_number_of_workers(cluster: None, corpus: Path, tmp_path: Path) -> None:
    local = run(plan_of(corpus), tmp_path / "local")
    for workers in (1, 2, 4):
        place = tmp_path / str(workers)
        assert run_on_ray(plan_of(corpus), place, workers, batch_rows=5 * workers).build == local.build
        assert totals(plan_of(corpus), place) == totals(plan_of(corpus), tmp_path / "local")


def test_killers_are_quarantined_on_ray_too(cluster: None, corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus, poison=True)
    local = run(plan, tmp_path / "local", workers=1)
    assert run_on_ray(plan, tmp_path / "ray", 4).build == local.build


def _is_worker(process: psutil.Process) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return bool(line) and (line[0].startswith("ray::_") or "pipeline.child" in line)


class Killer:
    """SIGKILLs random workers of the cluster (and the children they isolate documents in) until stopped."""

    def __init__(self, seed: int, every: float) -> None:
        self.kills = 0
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
        while not self._stop.wait(self._chance.uniform(0.5, 1.5) * self._every):
            family = psutil.Process().children(recursive=True)
            victims = [process.pid for process in family if _is_worker(process)]
            if victims:
                try:
                    os.kill(self._chance.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1


def test_same_build_while_workers_are_killed(cluster: None, corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus, poison=True)
    local = run(plan, tmp_path / "local", workers=1)
    with Killer(seed=3, every=2.0) as killer:
        built = run_on_ray(plan, tmp_path / "ray", 4)
    assert killer.kills > 0
    assert built.build == local.build
