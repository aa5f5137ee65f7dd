"""What a machine is asked before it works: what it answers, and each fault with what to do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gristmill.storage.store import open_store
from pipeline.engines.examine import Exam, Paper, code_of, faults, put_away, sit
from pipeline.planning.fingerprint import ABSENT


@pytest.fixture
def exam(tmp_path: Path) -> Exam:
    """An exam that this machine passes, with the driver's file in place."""
    there = tmp_path / "words.txt"
    there.touch()
    code = {name: code_of(name) for name in ("gristmill", "pipeline")}
    made = Exam(str(tmp_path / "out"), "token", code, ("tests.toy",), {}, (str(there),))
    open_store(made.root).put_new(made.shown, b"token")
    return made


def test_the_drivers_own_machine_is_fit_and_leaves_nothing(exam: Exam) -> None:
    paper = sit(exam, "node")
    assert faults(exam, paper, "node") == []
    assert paper.code == exam.code and all(paper.code.values())
    put_away(exam, ["node"])
    assert [path for path in Path(exam.root).rglob("*") if "token" in path.name] == []


def test_a_machine_says_what_it_cannot_import_and_which_files_it_lacks(exam: Exam) -> None:
    paper = sit(replace(exam, modules=("tests.toy", "gm_absent"), files=(*exam.files, "/no/a", "/no/b")), "node")
    assert paper.unimportable == {"gm_absent": "ModuleNotFoundError: No module named 'gm_absent'"}
    assert paper.missing == ("/no/a", "/no/b")
    imports, files = faults(exam, paper, "node")
    assert imports.startswith("cannot import gm_absent (ModuleNotFoundError") and "install the driver's packages" in imports
    assert files.startswith("has no '/no/a' and 1 more; put inputs")


def test_another_content_of_the_drivers_file_is_another_output(exam: Exam) -> None:
    assert sit(replace(exam, token="token"), "node").elsewhere is False
    store = open_store(exam.root)
    store.put_new("preflight/other-driver", b"not that token")
    assert sit(replace(exam, token="other"), "node").elsewhere is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": {"gristmill": "abc"}}, "has other code than the driver: gristmill abc (driver: "),
        ({"code": {}}, "pipeline is not there (driver: "),
        ({"output": "PermissionError: no"}, "cannot use the output"),
        ({"elsewhere": True}, "is another folder"),
    ],
    ids=["other code", "no code", "no output", "elsewhere"],
)
def test_each_fault_is_told(exam: Exam, change: dict, said: str) -> None:
    paper = replace(sit(exam, "node"), **change)
    (found,) = faults(exam, paper, "node")
    assert said in found


def test_libraries_that_are_absent_or_of_another_version_are_told_apart(exam: Exam) -> None:
    asked = replace(exam, libraries={"one": "1", "two": "2", "three": "3"})
    paper = replace(sit(exam, "node"), libraries={"one": "1", "two": ABSENT, "three": "4"})
    absent, other = faults(asked, paper, "node")
    assert absent.startswith("lacks libraries that a stage names in libraries(): two (driver: 2);")
    assert other.startswith("has other libraries than the driver: three 4 (driver: 3);")


def test_a_paper_that_says_nothing_is_not_fit(exam: Exam) -> None:
    assert any("other code" in fault for fault in faults(exam, Paper(elsewhere=True), "node"))
