"""What a stage opens is a function: all else it may do instead is said once, with the stage and its file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import UnitFailed
from gristmill.storage.store import expand
from pipeline.engines.child import Child, attempt, run_isolated
from pipeline.engines.failure import Failure
from pipeline.engines.remote_pool import TableRequest
from pipeline.planning.plan import make_plan
from pipeline.stage import Map, Transform
from pipeline.units.opened import opened
from pipeline.units.segment import Task
from tests.toy import Files, Lines, Unique


@dataclass(frozen=True, kw_only=True)
class Odd(Map):
    """Does something odd when it is opened, and leaves a line in `log` each time."""

    how: str
    log: str

    def open(self) -> Transform:
        with Path(self.log).open("a") as file:
            file.write("opened\n")
        return DOES[self.how]()  # type: ignore[return-value]


def interrupt() -> None:
    raise KeyboardInterrupt


def look() -> None:
    Path("/nowhere/model.bin").read_bytes()


DOES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "text": lambda: "upper",
    "exit": lambda: sys.exit("no GPU"),
    "interrupt": interrupt,
    "file": look,
    "raise": lambda: {}["model"],
}
LINE = DOES["raise"].__code__.co_firstlineno
OPENING = f"open() of stage Odd ({__file__})"
SAID = {
    "nothing": f"{OPENING} returned None, expected the function that does the work; is its `return` missing?",
    "text": f"{OPENING} returned 'upper', expected the function that does the work",
    "exit": f"{OPENING} ended the process (SystemExit: no GPU); raise an error",
    "file": f"{OPENING} raised FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/model.bin'",
    "raise": f"open() of stage Odd raised KeyError: 'model' ({__file__}:{LINE}); mend it",
    "interrupt": "the stage ended the process: ",
}


def task_of(stage: Map, folder: Path) -> Task:
    (folder / "a.txt").write_text("one\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("odd", stage), ("files", Files())], expand(str(folder / "*.txt")))
    return Task(str(folder / "out"), plan.steps[0].spec, plan.steps[0].units[0], 1, 256)


@pytest.mark.parametrize("how", ["nothing", "text", "exit", "file", "raise"])
def test_a_stage_that_opens_no_function_fails_its_unit_or_its_pool(how: str, tmp_path: Path) -> None:
    stage = Odd(how=how, log=str(tmp_path / "log"))
    assert attempt(task_of(stage, tmp_path)) == attempt(TableRequest("odd", stage)) == Failure("failed", SAID[how])


def test_what_ends_a_process_outside_of_documents_is_met_once(tmp_path: Path) -> None:
    process = Child()
    try:
        for how in ("exit", "interrupt"):
            found = run_isolated(process, task_of(Odd(how=how, log=str(tmp_path / how)), tmp_path))
            assert isinstance(found, Failure) and found.kind == "failed" and found.message.startswith(SAID[how])
            assert (tmp_path / how).read_text() == "opened\n"
    finally:
        process.close()


def test_a_barrier_that_gives_no_function_is_named_with_the_method() -> None:
    class Forgets(Unique):
        def settle(self) -> Any:
            pass

    with pytest.raises(UnitFailed, match=r"settle\(\) of stage Forgets .* returned None"):
        opened(Forgets(), Forgets().settle, method="settle")
