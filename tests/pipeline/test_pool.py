"""A stage with a pool on Ray: the same build as without, whatever dies; never more tables ahead, or actors, than there may be."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gristmill.errors import UserError
from gristmill.storage.store import expand, open_store
from pipeline.cluster import RayEngine
from pipeline.drive import Options, Outcome, drive, manifests
from pipeline.local import LocalEngine
from pipeline.plan import Plan, make_plan
from pipeline.resources import Resources
from tests.toy import Files, Lines, Pooled, Short, Unique, Upper

ray = pytest.importorskip("ray")

MEMORY = 300 << 20
HALVES = Resources(actors=2, gpus=0.5, cpus=0.25)
ROWS = 5
# By the stages: `upper` runs in the segment, `pooled` behind it meets upper case.
WORDS = {"raises": "RuntimeError", "dies": "killed_by_SIGSEGV", "grows": "MemoryError", "falls": "killed_by_SIGSEGV"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 30 lines, some too short, some twice, four that are poison."""
    place = tmp_path_factory.mktemp("texts")
    for shard in range(3):
        lines = ["ab"[: 1 + n % 5 // 4 or None] * (1 + n % 4) + str(n * (shard + 1) % 17) for n in range(30)]
        for at, word in enumerate(WORDS):
            if at % 3 == shard:
                lines[11 + at] = f"it {word}"
        (place / f"{shard}.txt").write_text("\n".join(lines))
    return place


def plan_of(texts: Path, log: Path | str = "", seconds: float = 0.0, poison: bool = True, again: bool = False) -> Plan:
    before = Upper(raise_on="", segfault_on="falls" * poison, grow_on="")
    words = dict(raise_on="RAISES", segfault_on="DIES" * poison, grow_on="GROWS" * poison)
    pooled = Pooled(**words, log=str(log), seconds=seconds)
    stages = [
        ("lines", Lines(paths=f"{texts}/*.txt")),
        ("upper", before),
        ("short", Short(least=3)),
        ("pooled", pooled),
        ("unique", Unique()),
        *([("pooled-2", pooled)] if again else []),
        ("files", Files()),
    ]
    return make_plan("toy", stages, expand(f"{texts}/*.txt"))


def on_ray(plan: Plan, root: Path, size: Resources = HALVES) -> Outcome:
    return drive(plan, lambda: RayEngine(pools={"pooled": size, "pooled-2": size}), Options(str(root), ROWS, MEMORY))


def local(plan: Plan, root: Path, workers: int) -> Outcome:
    return drive(plan, lambda: LocalEngine(workers), Options(str(root), ROWS, MEMORY if workers else None))


def committed(plan: Plan, root: Path) -> list[Any]:
    """All that the first step left, but for the timings."""
    timings = {"cpu_s", "wall_s"}
    return [
        [unit.outputs, unit.measures, [{k: v for k, v in a.items() if k not in timings} for a in unit.ledger]]
        for unit in manifests(open_store(str(root)), plan.steps[0])
    ]


@contextlib.contextmanager
def killing(log: Path, names: tuple[str, ...]) -> Iterator[list[psutil.Process]]:
    """Kill a process of each name, each after one more process has opened the stage; gives them, and their children."""
    killed: list[psutil.Process] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        seen = 0
        for name in names:
            found: list[psutil.Process] = []
            while not found and time.monotonic() < deadline:
                time.sleep(0.05)
                if len(list(log.iterdir())) > seen:
                    found = [p for p in psutil.Process().children(recursive=True) if name in " ".join(_line(p))]
            for process in found[:1]:
                killed.extend([process, *process.children()])
                process.kill()
            seen = len(list(log.iterdir()))

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    thread.join()


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_same_build_with_the_stage_opened_once_an_actor(cluster: None, texts: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    plan, pooled = plan_of(texts, poison=False, again=True), plan_of(texts, log, poison=False, again=True)
    expected = local(plan, tmp_path / "a", 0)
    found = on_ray(pooled, tmp_path / "b")
    assert found.build == expected.build is not None, found.failures
    assert committed(pooled, tmp_path / "b") == committed(plan, tmp_path / "a")
    assert len(list(log.iterdir())) == HALVES.actors
    for unit in manifests(open_store(str(tmp_path / "b")), pooled.steps[0]):
        (account,) = [account for account in unit.ledger if account["stage"] == "pooled"]
        assert 0 < account["cpu_s"] < unit.seconds["cpu"]
    deadline = time.monotonic() + 20
    while ray.available_resources().get("GPU") != 1.0:
        assert time.monotonic() < deadline, "the pool still holds the GPU"
        time.sleep(0.1)


def test_same_build_whatever_dies(cluster: None, texts: Path, tmp_path: Path) -> None:
    """Documents that kill the model's process, one that kills the segment's; and actors and their children are killed."""
    log = tmp_path / "log"
    log.mkdir()
    plan, pooled = plan_of(texts), plan_of(texts, log, seconds=0.1)
    expected = local(plan, tmp_path / "a", 1)
    with killing(log, ("ray::_Host", "pipeline.child")) as killed:
        found = on_ray(pooled, tmp_path / "b")
    assert len(killed) == 3, "an actor, its child, and another child"
    _, left = psutil.wait_procs(killed, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE], "a child outlives its actor"
    assert found.build == expected.build is not None, found.failures
    assert committed(pooled, tmp_path / "b") == committed(plan, tmp_path / "a")
    kinds: collections.Counter[str] = collections.Counter()
    for unit in manifests(open_store(str(tmp_path / "b")), pooled.steps[0]):
        for account in unit.ledger:
            kinds.update(account["quarantined"])
    assert kinds == collections.Counter(WORDS.values())


def test_what_the_cluster_does_not_have_is_refused(cluster: None, texts: Path, tmp_path: Path) -> None:
    message = r"run\.pools\.pooled: asks for 3 actors with 0\.5 GPUs and 0 CPUs each; there are 1 GPUs and 2 CPUs; 2 of them fit"
    with pytest.raises(UserError, match=message):
        on_ray(plan_of(texts, poison=False), tmp_path, Resources(actors=3, gpus=0.5))


def test_a_model_that_cannot_be_opened_is_told_as_it_is(cluster: None, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no folder '/nowhere'$"):
        on_ray(plan_of(texts, "/nowhere"), tmp_path)
