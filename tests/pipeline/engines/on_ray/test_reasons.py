"""What is told of errors that Ray wraps: the task's own error and its cause, on one line."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray.exceptions import RayTaskError

from pipeline.engines.on_ray.reasons import REASON_CHARS, reason


def test_a_plain_error_is_its_kind_and_words_on_one_line() -> None:
    assert reason(ValueError("a\n  b")) == "ValueError: a b"
    assert reason(ValueError()) == "ValueError"
    assert reason(ValueError("\x1b[31mred\x1b[0m")) == "ValueError: red"


def test_of_a_task_the_end_of_its_traceback() -> None:
    text = "\x1b[36mray::f()\x1b[39m\nTraceback (most recent call last):\n  File x, line 1\npkg.mod.OddError: it broke: twice"
    assert reason(RayTaskError("f", text, OSError("other"))) == "OSError: other"
    assert reason(RuntimeError(text)) == "OddError: it broke: twice"


def test_the_first_cause_is_told_with_it() -> None:
    text = (
        "Traceback (most recent call last):\nKeyError: 'first'\n\nThe above exception was the direct cause of the following "
        "exception:\n\nTraceback (most recent call last):\nValueError: second"
    )
    assert reason(RuntimeError(text)) == "ValueError: second, because of KeyError: 'first'"


def test_a_long_one_is_cut() -> None:
    said = reason(ValueError("x" * 1000))
    assert len(said) == REASON_CHARS and said.endswith("x…")
    exact = "x" * (REASON_CHARS - len("ValueError: "))
    assert reason(ValueError(exact)) == f"ValueError: {exact}"
