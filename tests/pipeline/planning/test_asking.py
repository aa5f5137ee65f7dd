"""What a stage says of itself: its answers are of the right kind, and what it raises instead has the line of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import UserError
from pipeline.planning.asking import asked
from pipeline.planning.plan_check import column_faults, content_faults
from tests.toy import Files, Lines, Upper


@dataclass(frozen=True, kw_only=True)
class Says(Upper):
    """Gives other answers than it should."""

    answers: tuple[tuple[str, Callable[[], Any]], ...] = ()

    def libraries(self) -> Any:
        return dict(self.answers).get("libraries", tuple)()

    def files(self) -> Any:
        return dict(self.answers).get("files", tuple)()

    def resources(self) -> Any:
        return dict(self.answers).get("resources", lambda: None)()

    def attachments(self) -> Any:
        return dict(self.answers).get("attachments", dict)()

    def measures(self) -> Any:
        return dict(self.answers).get("measures", tuple)()


def stages(method: str, answer: Callable[[], Any]) -> list[Any]:
    return [("lines", Lines(paths="")), ("says", Says(answers=((method, answer),))), ("files", Files())]


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("libraries", lambda: "numpy", "its libraries() returns 'numpy', expected a tuple of distributions as pip names them"),
        ("files", lambda: "model.bin", "its files() returns 'model.bin', expected a tuple of paths"),
        ("files", lambda: None, "its files() returns None, expected a tuple of paths"),
        ("files", lambda: (Path("a"),), "its files() returns (PosixPath('a'),), expected a tuple of paths"),
        ("measures", lambda: "size", "its measures() returns 'size', expected a tuple of columns"),
        ("attachments", lambda: ("a",), "its attachments() returns ('a',), expected a mapping of names to paths"),
        ("resources", lambda: {"gpus": 1}, "its resources() returns {'gpus': 1}, expected pipeline.resources.Resources, or None"),
    ],
)
def test_an_answer_of_another_kind_is_a_fault_of_the_plan(method: str, answer: Callable[[], Any], said: str) -> None:
    ((at, message),) = [(fault.at, fault.message) for fault in column_faults(stages(method, answer))]
    assert at == 1 and message.startswith(f"stage 'says': {said}")


@pytest.mark.parametrize("method", ["libraries", "files", "resources", "attachments", "measures"])
@pytest.mark.parametrize("error", [KeyError("inner"), SystemExit("no")])
def test_whatever_is_raised_there_has_its_method_and_the_line_of_the_stages_file(method: str, error: BaseException) -> None:
    def raising() -> None:
        raise error  # this line

    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# this line"))
    (fault,) = column_faults(stages(method, raising))
    assert fault.message == f"stage 'says': its {method}() raised {type(error).__name__}: {error} ({__file__}:{line}); mend it"


def test_our_own_bugs_stay_what_they_are() -> None:
    def raising() -> None:
        raise KeyError("inner")

    with pytest.raises(KeyError):
        asked(UserError, "check", raising)


def test_a_file_that_is_missing_is_a_fault_of_the_stage_that_names_it() -> None:
    named = Upper()
    missing = type("Missing", (Upper,), {"__module__": __name__, "files": lambda self: ("/no/model.bin",)})()
    between = [("lines", Lines(paths="")), ("upper", named), ("missing", missing), ("files", Files())]
    ((at, message),) = [(fault.at, fault.message) for fault in content_faults(between)]
    assert at == 2 and message.startswith("stage 'missing': '/no/model.bin' does not exist (looked in ")
