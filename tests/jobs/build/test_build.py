"""`build`: what is said when units failed. `tests/jobs/test_commands.py` and `test_mistakes.py` run it."""

from __future__ import annotations

from jobs.build.build import _by_message
from pipeline.engines.failure import Failure


def test_units_that_failed_of_the_same_are_told_together() -> None:
    broken, lost = Failure("failed", "open() raised KeyError"), Failure("store", "the store is away")
    failures = [("0 jsonl-save", "a", broken), ("0 jsonl-save", "b", lost), ("0 jsonl-save", "c", broken)]
    assert _by_message(failures) == {broken.message: ["0 jsonl-save, a", "0 jsonl-save, c"], lost.message: ["0 jsonl-save, b"]}
