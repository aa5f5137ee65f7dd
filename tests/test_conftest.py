"""What tests/conftest.py says of the other files is true of those that are there."""

from __future__ import annotations

import subprocess
import sys
from os import environ

import pytest

from tests.conftest import FEW, ROOT, SLOWEST


def test_files_that_come_first_are_there() -> None:
    assert [name for name in SLOWEST if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(SLOWEST)) == len(SLOWEST)


RANDOM = """
from hypothesis import given, settings, strategies as st

seen = {"many": 0, "some": 0}

@settings(max_examples=90)
@given(st.integers())
def test_many(number):
    seen["many"] += 1

class TestSome:
    @settings(max_examples=%d)
    @given(st.integers())
    def test_some(self, number):
        seen["some"] += 1

def test_counts():
    assert seen == {"many": %d, "some": %d}
"""


@pytest.mark.parametrize(("profile", "many"), [("default", 30), ("thorough", 90)])
def test_random_tests_try_a_third_unless_all_are_asked_for(profile: str, many: int, tmp_path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems\n")
    (tmp_path / "test_random.py").write_text(RANDOM % (FEW, many, FEW))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        env={**environ, "PYTHONPATH": str(ROOT), "HYPOTHESIS_PROFILE": profile},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
