"""What tests/conftest.py says of the other files is true of those that are there."""

from __future__ import annotations

from tests.conftest import ROOT, SLOWEST


def test_files_that_come_first_are_there() -> None:
    assert [name for name in SLOWEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(SLOWEST)) == len(SLOWEST)
