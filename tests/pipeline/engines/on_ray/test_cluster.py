"""The same units on Ray: real workers, real kills, the same build; pools that open a stage once an actor. One cluster for all.

What a build must come to is computed in this process, over texts where what kills is something short, which is dropped: the same
documents are kept.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from gristmill.errors import UserError
from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.heartbeat import Heartbeat, Rhythm
from pipeline.engines.local import LocalEngine
from pipeline.engines.on_ray.cluster import RayEngine
from pipeline.engines.on_ray.reasons import reason
from pipeline.planning.plan import Plan, make_plan
from pipeline.resources import Resources
from tests.pipeline.toy_corpus import totals
from tests.toy import Files, Lines, Pooled, Share, Short, Unique, Upper, Waits

ray = pytest.importorskip("ray")

MEMORY = 300 << 20
HALVES = Resources(actors=2, gpus=0.5, cpus=0.25)
ROWS = 5
# By the stages: `upper` runs in the segment, `pooled` behind it meets upper case.
WORDS = {
    "raises": "RuntimeError",
    "dies": "killed_by_SIGSEGV",
    "grows": "MemoryError",
    "falls": "killed_by_SIGSEGV",
    "breaks": "RuntimeError",
}
# Killed while they work: what runs a unit, an actor of a pool and its child, another child, an actor that runs units.
KILLED = ("ray::_run", "ray::_Host", "pipeline.engines.child", "ray::_Worker.run")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20
    )
    yield
    ray.shutdown()


def texts_of(folder: Path, *poison: str) -> Path:
    """Three shards of 16 lines, some too short, some twice, one for each word that is poison; and one without any.

    `x` stands for the poison that is left out. One line is for `Waits`.
    """
    folder.mkdir()
    for shard in range(3):
        lines = ["ab"[: 1 + n % 5 // 4 or None] * (1 + n % 4) + str(n * (shard + 1) % 17) for n in range(16)]
        for at, word in enumerate(WORDS):
            if at % 3 == shard:
                lines[6 + at] = f"it {word}" if word in poison else "x"
        (folder / f"{shard}.txt").write_text("\n".join([*lines, "wait"] if shard == 1 else lines))
    (folder / "3.txt").write_text("")
    return folder


def plan_of(texts: Path, log: Path | str, seconds: float = 0.0) -> Plan:
    """Two barriers; a stage with a pool before and behind the first; behind the second one whose processes are kept.

    What waits there does so until the log has a file `go`.
    """
    pooled = Pooled(raise_on="RAISES", segfault_on="DIES", grow_on="GROWS", log=str(log), seconds=seconds)
    stages = [
        ("lines", Lines(paths="")),
        ("upper", Upper(raise_on="breaks", segfault_on="falls", grow_on="")),
        ("short", Short(least=3)),
        ("pooled", pooled),
        ("unique", Unique()),
        ("pooled-2", pooled),
        ("share", Share()),
        ("waits", Waits(until=f"{log}/go", word="WAIT")),
        ("files", Files()),
    ]
    return make_plan("toy", stages, expand(f"{texts}/*.txt"))


def on_ray(plan: Plan, root: Path, size: Resources = HALVES, rows: int = ROWS) -> Outcome:
    return drive(plan, lambda: RayEngine(pools={"pooled": size, "pooled-2": size}), Options(str(root), rows, MEMORY))


def here(plan: Plan, root: Path) -> str:
    built = drive(plan, lambda: LocalEngine(0), Options(str(root), ROWS)).build
    assert built is not None
    return built


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder in which who opens a pool's stage leaves a file."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def opened(log: Path) -> int:
    return sum(path.name != "go" for path in log.iterdir())


def kinds(plan: Plan, root: Path) -> collections.Counter[str]:
    """What the first step quarantined."""
    found: collections.Counter[str] = collections.Counter()
    for unit in manifests(open_store(str(root)), plan.steps[0]):
        for account in unit.ledger:
            found.update(account["quarantined"])
    return found


def committed(plan: Plan, root: Path) -> list[Any]:
    """All that the first step left, but for the timings."""
    timings = {"cpu_s", "wall_s"}
    return [
        [unit.outputs, unit.measures, [{k: v for k, v in a.items() if k not in timings} for a in unit.ledger]]
        for unit in manifests(open_store(str(root)), plan.steps[0])
    ]


@contextlib.contextmanager
def killing(log: Path, names: Sequence[str]) -> Iterator[list[psutil.Process]]:
    """Kill a process of each name, in order, once a stage has been opened; gives them and their children, by and by.

    What waits goes on behind the last.
    """
    killed: list[psutil.Process] = []

    def kill() -> None:
        deadline = time.monotonic() + 200
        for name in names:
            seen, found = opened(log) if killed else 0, list[psutil.Process]()
            while not found and time.monotonic() < deadline:
                time.sleep(0.2)  # each look reads every process of the machine
                # A child that is killed while it starts tells nothing: another one has opened the stage since the last kill.
                if opened(log) > seen or name != "pipeline.engines.child":
                    found = _family(name)
            killed.extend(found)
            for process in found[:1]:
                process.kill()
        (log / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    thread.join()


def _family(name: str) -> list[psutil.Process]:
    """Return one process of this name, and the child of one of a pool's, which it must have; nothing where there is none."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            children = process.children() if name == "ray::_Host" else []
            if name in " ".join(process.cmdline()) and (children or name != "ray::_Host"):
                return [process, *children]
    return []


def harm(plan: Plan, root: Path) -> None:
    """Cut the rows of the first step's units, and delete all that came of them."""
    store = open_store(str(root))
    for unit in manifests(store, plan.steps[0]):
        name = unit.outputs["rows-0"].data
        if store.exists(name):
            content = store.read(name)
            store.remove(name)
            store.put_new(name, content[:-20])
    for name in ("finished", "builds", "runs", *(step.folder for step in plan.steps[1:])):
        shutil.rmtree(root / name)


def test_same_build_on_ray_of_what_was_damaged_with_each_pool_opened_once_an_actor(
    cluster: None, log: Path, tmp_path: Path
) -> None:
    """On workers, on a pool's actors for all segments, and on actors that are kept; no trace of where a unit was computed."""
    (log / "go").touch()
    plan = plan_of(texts_of(tmp_path / "texts", "raises", "breaks"), log)
    expected = here(plan, tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "ray")
    harm(plan, tmp_path / "ray")
    before = opened(log)
    built = on_ray(plan, tmp_path / "ray")
    assert built.build == expected, built.failures
    assert opened(log) - before == HALVES.actors
    assert totals(plan, tmp_path / "ray") == totals(plan, tmp_path / "here")
    assert committed(plan, tmp_path / "ray") == committed(plan, tmp_path / "here")
    drive(plan, lambda: pytest.fail("nothing is damaged any more"), Options(str(tmp_path / "ray"), verify=True))
    for unit in manifests(open_store(str(tmp_path / "ray")), plan.steps[0]):
        (account,) = [account for account in unit.ledger if account["stage"] == "pooled"]
        assert 0 < account["cpu_s"] < unit.seconds["cpu"] or account["in"] == 0
    deadline = time.monotonic() + 20
    while ray.available_resources().get("GPU") != 1.0:
        assert time.monotonic() < deadline, "the pool still holds the GPU"
        time.sleep(0.1)


def test_same_build_whatever_dies_of_workers_of_a_pool_and_of_the_segments_that_feed_it(
    cluster: None, log: Path, tmp_path: Path
) -> None:
    """Documents that kill the model's process, one that kills the segment's; and processes of each kind are killed.

    The documents that kill are quarantined, and no other, though workers die under others too; with tables of another size.
    """
    plan = plan_of(texts_of(tmp_path / "texts", *WORDS), log, seconds=0.05)
    with killing(log, KILLED) as killed:
        found = on_ray(plan, tmp_path / "b", rows=7)
    assert len(killed) == len(KILLED) + 1, "one of each, and the child of the pool's"
    _, left = psutil.wait_procs(killed, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE], "a child outlives its actor"
    assert kinds(plan, tmp_path / "b") == collections.Counter(WORDS.values())
    assert found.build == here(plan_of(texts_of(tmp_path / "clean"), log), tmp_path / "a"), totals(plan, tmp_path / "b")


def test_a_worker_that_does_not_move_is_told_and_replaced_and_the_document_that_holds_it_is_found(
    cluster: None, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nwait\nfour\n")
    stages = [("lines", Lines(paths="")), ("waits", Waits(until=str(tmp_path / "never"))), ("files", Files())]
    plan = make_plan("t", stages, expand(str(tmp_path / "*.txt")))
    lines: list[str] = []
    heart = Heartbeat(Rhythm(1.0, 1.0, replace=True), lines.append)
    outcome = drive(plan, lambda: RayEngine(1, heart=heart), Options(str(tmp_path / "out"), 2))
    assert outcome.build is not None, outcome.failures
    assert totals(plan, tmp_path / "out")["waits/whole"] == {"in": 5, "kept": 4, "dropped": 0, "quarantined": 1}
    assert any(
        "a.txt has not moved for" in line and "at waits after 4 documents; its worker is replaced soon" in line for line in lines
    )
    assert any("documents so far; under way: a.txt 4 at waits" in line for line in lines)


def test_what_the_cluster_does_not_have_is_refused(cluster: None, tmp_path: Path) -> None:
    message = r"run\.pools\.pooled: asks for 3 actors with 0\.5 GPUs and 0 CPUs each; there are 1 GPUs and 3 CPUs; 2 of them fit"
    with pytest.raises(UserError, match=message):
        on_ray(plan_of(texts_of(tmp_path / "texts"), ""), tmp_path / "out", Resources(actors=3, gpus=0.5))


def test_a_model_that_cannot_be_opened_is_told_as_it_is(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no folder '/nowhere'$"):
        on_ray(plan_of(texts_of(tmp_path / "texts"), "/nowhere"), tmp_path / "out", Resources(actors=1))


class Unloadable:
    """Cannot be made again where it is sent."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (importlib.import_module, ("gristmill_is_not_there",))


def _raises(error: object) -> None:
    try:
        raise KeyError("inner\nof two lines")
    except KeyError as inner:
        raise ValueError("outer") from inner


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (None, "ValueError: outer, because of KeyError: 'inner\\nof two lines'"),
        (Unloadable(), "ModuleNotFoundError: No module named 'gristmill_is_not_there'"),
    ],
    ids=["raises", "does-not-travel"],
)
def test_the_reason_of_an_error_on_ray_is_what_was_raised_and_its_first_cause(cluster: None, argument: object, said: str) -> None:
    with pytest.raises(ray.exceptions.RayError) as raised:
        ray.get(ray.remote(num_cpus=0, max_retries=0)(_raises).remote(argument))
    assert len(str(raised.value).splitlines()) > 3
    assert reason(raised.value) == said
