"""What becomes of work that fails, and how the document that kills a process is found; without processes, but for one."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from gristmill.errors import Damaged, InputError, StoreError, StoreFull, UnitFailed
from gristmill.storage.store import expand
from pipeline.engines import child
from pipeline.engines.child import DEATHS_AT_ONE_PLACE, STALLED, STRIKES, Child, Closed, Died, attempt, run_isolated
from pipeline.engines.failure import Failure
from pipeline.engines.remote_pool import PoolFailed, TableReply, TableRequest, pack
from pipeline.planning.plan import make_plan
from pipeline.units.segment import Task
from tests.toy import Files, Lines, Upper, documents

QUIET = Upper(segfault_on="", grow_on="")
REQUEST = TableRequest("upper", QUIET, pack(documents("f", ["one", "two", "three"])))
REPLY = TableReply(REQUEST.table, (), 0, None, 0.0, 0.0)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "a.txt").write_text("one\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("files", Files())], expand(str(tmp_path / "*.txt")))
    return Task(str(tmp_path / "out"), plan.steps[0].spec, plan.steps[0].units[0], 1, 256)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (StoreFull("no room"), "full", "no room"),
        (StoreError("no answer"), "store", "no answer"),
        (Damaged("x is cut", "steps/x.json"), "damaged", "x is cut"),
        (InputError("no such model"), "user", "no such model"),
        (UnitFailed("raised on all"), "failed", "raised on all"),
        (PoolFailed(Failure("user", "no such model")), "user", "no such model"),
        (FileNotFoundError(2, "gone", "a.warc"), "failed", "FileNotFoundError: [Errno 2] gone: 'a.warc'"),
        (OSError(errno.ENOSPC, "disk"), "full", "OSError: [Errno 28] disk"),
        (OSError(errno.EIO, "disk"), "store", "OSError: [Errno 5] disk"),
        (KeyError("inner"), "failed", "KeyError: 'inner'"),
        (cast(Exception, BaseException("a panic")), "failed", "BaseException: a panic"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_unit_raises_is_a_failure_of_the_kind_that_the_driver_acts_on(
    error: BaseException, kind: str, message: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: object) -> None:
        raise error

    monkeypatch.setattr(child, "run_unit", raising)
    found = attempt(task)
    assert isinstance(found, Failure) and found.kind == kind and found.message.startswith(message)
    assert found.record == ("steps/x.json" if kind == "damaged" else "")


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_no_failure(ending: type[BaseException], task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object) -> None:
        raise ending

    monkeypatch.setattr(child, "run_unit", raising)
    with pytest.raises(ending):
        attempt(task)


def test_a_table_is_worked_on_by_the_opened_stage_and_what_it_is_at_is_reported() -> None:
    told: list[tuple[int, str, str | None, int]] = []
    reply = attempt(REQUEST, lambda *at: told.append(at))
    assert isinstance(reply, TableReply) and reply.result().table["text"].to_pylist() == ["ONE", "TWO", "THREE"]
    assert told == [(0, "upper", None, 0)]
    assert attempt(TableRequest("upper", QUIET)) is None


@dataclass
class Scripted:
    """In place of a `Child`: dies where the script says for the work that it is given, else has a result."""

    dies: Callable[[TableRequest], tuple[int, str, str | None] | None]
    at: tuple[int, str, str | None] = (-1, "", None)
    given: list[TableRequest] = field(default_factory=list)

    def run(self, work: TableRequest) -> TableReply:
        self.given.append(work)
        where = self.dies(work)
        if where is None:
            return REPLY
        self.at = where
        raise Died("killed_by_SIGSEGV")


def isolated(dies: Callable[[TableRequest], tuple[int, str, str | None] | None]) -> tuple[object, list[TableRequest]]:
    scripted = Scripted(dies)
    return run_isolated(cast(Child, scripted), REQUEST), scripted.given


def test_a_table_that_kills_is_taken_one_by_one_and_the_document_that_kills_is_poison_at_its_third_death() -> None:
    def dies(work: TableRequest) -> tuple[int, str, str | None] | None:
        if "two" in work.poison:
            return None
        return (0, "upper", "two" if 0 in work.careful else None)

    result, given = isolated(dies)
    assert result == REPLY and len(given) == 1 + STRIKES + 1
    assert [work.careful for work in given] == [frozenset(), *[frozenset({0})] * (STRIKES + 1)]
    assert given[-1].poison == {"two": ("upper", "killed_by_SIGSEGV")} and not any(work.poison for work in given[:-1])


def test_deaths_for_other_reasons_cost_no_document() -> None:
    deaths = iter([(0, "upper", "one"), (0, "upper", "two"), (0, "upper", "one"), (0, "upper", "two"), None])
    result, given = isolated(lambda work: next(deaths))
    assert result == REPLY and not given[-1].poison


def test_deaths_outside_of_documents_end_at_the_eighth_with_the_place() -> None:
    result, given = isolated(lambda work: (-1, "", None))
    assert result == Failure("failed", "the process was ended 8 times in opening: killed_by_SIGSEGV")
    assert len(given) == DEATHS_AT_ONE_PLACE
    result, _ = isolated(lambda work: (3, "sink", None))
    assert isinstance(result, Failure) and "in sink" in result.message


def test_a_process_has_its_own_environment_tells_its_end_and_starts_again_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one test here with a process."""
    one = Child(environment={"CUDA_VISIBLE_DEVICES": "7"})
    assert isinstance(one.run(REQUEST), TableReply)
    assert one._process is not None
    environment = Path(f"/proc/{one._process.pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=7" in environment
    os.kill(one._process.pid, signal.SIGTERM)
    with pytest.raises(Died, match="killed_by_SIGTERM"):
        one.run(REQUEST)
    one.close()
    with pytest.raises(Closed):
        one.run(REQUEST)


def test_the_kinds_of_ends() -> None:
    assert child._kind(-signal.SIGKILL) == "killed_by_SIGKILL" and child._kind(1) == "exited" and STALLED == "stalled"


def test_only_work_that_reports_progress_is_replaceable(task: Task) -> None:
    assert child.replaceable(task) and child.replaceable(REQUEST)
    assert not child.replaceable(TableRequest("upper", QUIET))


def test_a_bound_on_memory_lets_a_document_raise_and_no_bound_sets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda kind, limit: limits.append(limit))
    child.limit_memory(None)
    assert limits == []
    child.limit_memory(64 << 20)
    ((soft, _),) = limits
    used = soft - (64 << 20)
    with open("/proc/self/status") as status:
        now = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    assert abs(used - now) < (16 << 20)
