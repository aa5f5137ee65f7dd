"""The same units on Ray: real workers, real kills, the same build."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.cluster import RayEngine
from pipeline.drive import Options, Outcome, drive, manifests
from pipeline.heartbeat import Heartbeat, Rhythm
from pipeline.plan import Plan, make_plan
from pipeline.ray_reasons import reason
from tests.pipeline.killer import Killer
from tests.pipeline.toy_corpus import plan_of, run, totals
from tests.toy import Files, Lines, Waits

ray = pytest.importorskip("ray")

MEMORY = 300 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=200 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def poisoned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """The build of the plan with documents that kill, made here."""
    return run(plan_of(corpus, poison=True), tmp_path_factory.mktemp("local"), workers=1).build


def run_on_ray(plan: Plan, root: Path, workers: int, batch_rows: int = 7) -> Outcome:
    outcome = drive(plan, lambda: RayEngine(workers), Options(str(root), batch_rows, MEMORY))
    assert outcome.build is not None, outcome.failures
    return outcome


def test_same_build_on_ray_for_any_number_of_workers(cluster: None, corpus: Path, tmp_path: Path) -> None:
    local = run(plan_of(corpus), tmp_path / "local")
    for workers in (1, 3):
        place = tmp_path / str(workers)
        assert run_on_ray(plan_of(corpus), place, workers, batch_rows=5 * workers).build == local.build
        assert totals(plan_of(corpus), place) == totals(plan_of(corpus), tmp_path / "local")


def test_same_build_while_workers_are_killed(cluster: None, corpus: Path, poisoned: str | None, tmp_path: Path) -> None:
    """Documents that kill are quarantined, and no other, though workers die under others too."""
    with Killer(seed=3, every=2.0) as killer:
        built = run_on_ray(plan_of(corpus, poison=True), tmp_path, 3)
    assert killer.kills > 0
    assert built.build == poisoned


def test_a_worker_that_does_not_move_is_told_and_replaced_and_the_document_that_holds_it_is_found(
    cluster: None, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nwait\nfour\n")
    stages = [("lines", Lines(paths="")), ("waits", Waits(until=str(tmp_path / "never"))), ("files", Files())]
    plan = make_plan("t", stages, expand(str(tmp_path / "*.txt")))
    lines: list[str] = []
    heart = Heartbeat(Rhythm(1.0, 2.0, replace=True), lines.append)
    outcome = drive(plan, lambda: RayEngine(1, heart=heart), Options(str(tmp_path / "out"), 2))
    assert outcome.build is not None, outcome.failures
    assert totals(plan, tmp_path / "out")["waits/whole"] == {"in": 5, "kept": 4, "dropped": 0, "quarantined": 1}
    assert any(
        "a.txt has not moved for" in line and "at waits after 4 documents; its worker is replaced soon" in line for line in lines
    )
    assert any("documents so far; under way: a.txt 4 at waits" in line for line in lines)


def test_damage_is_mended_on_ray(cluster: None, corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus)
    built = run(plan, tmp_path).build
    store = open_store(str(tmp_path))
    harmed = [unit.outputs["rows-0"].data for unit in manifests(store, plan.steps[0])[:2]]
    for name in harmed:
        content = store.read(name)
        store.remove(name)
        store.put_new(name, content[:-20])
    for name in ("finished", "builds", "runs", *(step.folder for step in plan.steps[1:])):
        shutil.rmtree(tmp_path / name)
    assert run_on_ray(plan, tmp_path, 2).build == built
    drive(plan, lambda: pytest.fail("nothing is damaged any more"), Options(str(tmp_path), verify=True))


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
