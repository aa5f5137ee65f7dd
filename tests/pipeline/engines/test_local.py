"""The engine of this machine: failures of the store are tried again so often, and nothing is waited for that has ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.errors import UserError
from gristmill.storage.store import expand
from pipeline.engines import local
from pipeline.engines.failure import Failure, Kind
from pipeline.engines.heartbeat import Heartbeat, Rhythm
from pipeline.engines.local import LocalEngine
from pipeline.engines.retries import backoff
from pipeline.planning.plan import make_plan
from pipeline.records import UnitRecord
from pipeline.units.segment import Task
from tests.toy import Files, Lines


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("one\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("files", Files())], expand(str(tmp_path / "*.txt")))
    return [Task(str(tmp_path / "out"), plan.steps[0].spec, unit, 3, 256) for unit in plan.steps[0].units]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    yield seconds


def failing(monkeypatch: pytest.MonkeyPatch, kind: Kind, times: int) -> list[str]:
    """Let each unit fail so often before it is done; returns the attempts."""
    attempts: list[str] = []
    real = local.attempt

    def attempt(task: Task, *more: object) -> object:
        attempts.append(task.unit.label)
        if attempts.count(task.unit.label) <= times:
            return Failure(kind, "no")
        return real(task, *more)  # type: ignore[call-overload]

    monkeypatch.setattr(local, "attempt", attempt)
    return attempts


def test_a_store_that_fails_is_tried_again_with_longer_and_longer_waits(
    tasks: list[Task], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = failing(monkeypatch, "store", times=3)
    results = [result for _, result in LocalEngine(0, retries=4).run(tasks[:1])]
    assert not isinstance(results[0], Failure)
    assert len(attempts) == 4 and slept == [backoff(1), backoff(2), backoff(3)] == [0.5, 1.0, 2.0]


def test_after_so_many_retries_it_is_the_units_failure(
    tasks: list[Task], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = failing(monkeypatch, "store", times=99)
    assert [result for _, result in LocalEngine(0, retries=2).run(tasks[:1])] == [Failure("store", "no")]
    assert len(attempts) == 3 and len(slept) == 2, "nothing is waited for behind the last"


def test_other_failures_are_not_tried_again_and_the_other_units_are_done(
    tasks: list[Task], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "failed", times=1)
    found = list(LocalEngine(0).run(tasks))
    assert [result for _, result in found] == [Failure("failed", "no")] * 3 and slept == []


def test_the_heart_hears_of_each_unit_and_stops_with_the_step(tasks: list[Task]) -> None:
    lines: list[str] = []
    heart = Heartbeat(Rhythm(60.0, None), lines.append)
    engine = LocalEngine(0, heart=heart)
    assert len(list(engine.run(tasks))) == 3
    heart._next = 0.0
    heart.tick()
    assert lines == ["lines-files: 3 of 3 done, 3 documents so far; under way: none"]
    engine.close()


def test_without_work_nothing_is_started() -> None:
    engine = LocalEngine(3)
    assert list(engine.run([])) == [] and all(child._process is None for child in engine._children)
    engine.close()


def test_waits_grow_to_a_bound() -> None:
    assert [backoff(times) for times in (1, 2, 3, 6, 7, 50)] == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


def test_a_stage_of_the_script_that_runs_is_refused_before_a_process_starts(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)  # a worker of the tests' has none
    with pytest.raises(UserError, match="stage 'files': its class Files is in the script that runs, which the processes"):
        next(LocalEngine(1).run(tasks))
    (_, result) = next(LocalEngine(0).run(tasks[:1]))
    assert isinstance(result, UnitRecord), "in this process it is there"
