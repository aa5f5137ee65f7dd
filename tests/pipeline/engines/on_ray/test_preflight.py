"""Nodes are examined before they work: one that cannot is told what it lacks, with what to do.

`tests/jobs/test_on_nodes.py` does it on a real cluster.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.engines.examine import Exam, Paper, code_of, faults, put_away, report_of, set_exam, sit
from pipeline.planning.code import hash_of
from pipeline.planning.fingerprint import version_of
from pipeline.planning.plan import make_plan
from pipeline.units.segment import Task
from stages.filter.language import Language
from tests.toy import Files, Lines, Upper


@pytest.fixture
def exam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Exam:
    monkeypatch.setattr("pipeline.engines.examine.SEEN_S", 0.0)
    (tmp_path / "a.txt").write_text("one\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("upper", Upper()), ("files", Files())], expand(str(tmp_path / "*.txt")))
    step = plan.steps[0]
    return set_exam(Task(str(tmp_path / "out"), step.spec, step.units[0], 1, 256), "feed")


def found(exam: Exam, paper: Paper) -> list[str]:
    return faults(exam, paper, "n1")


def test_a_node_like_the_driver_is_fit_and_leaves_nothing_behind(exam: Exam) -> None:
    assert exam.modules == ("tests.toy",) and set(exam.code) == {"gristmill", "pipeline", "tests.toy"}
    assert exam.libraries == {}
    assert found(exam, sit(exam, "n1")) == []
    put_away(exam, ["n1", "n2"])
    assert open_store(exam.root).list("preflight") == []


def test_another_folder_is_noticed_in_both_directions(exam: Exam, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(exam, root=str(tmp_path / "other"))
    (fault,) = found(exam, sit(elsewhere, "n1"))
    assert "another folder" in fault and "all nodes mount" in fault
    # A copy: what the driver put is there, what is put there the driver does not see.
    shutil.copytree(exam.root, tmp_path / "copy")
    (fault,) = found(exam, sit(dataclasses.replace(exam, root=str(tmp_path / "copy")), "n1"))
    assert "another folder" in fault


def test_an_output_that_cannot_be_used_is_told_with_the_reason(exam: Exam) -> None:
    (Path(exam.root) / "probe").mkdir()
    (fault,) = found(exam, sit(exam, "n1"))
    assert fault.startswith(f"cannot use the output {exam.root!r}: ") and "Is a directory" in fault and "credentials" in fault


def test_code_imports_and_files_are_compared(exam: Exam, tmp_path: Path) -> None:
    odd = dataclasses.replace(exam, modules=("no.such.module",), files=(str(tmp_path / "gone"), str(tmp_path / "a.txt")))
    paper = dataclasses.replace(sit(odd, "n1"), code={**exam.code, "pipeline": "0123456789ab"})
    imports, code, files = found(exam, paper)
    assert imports.startswith("cannot import no.such.module (ModuleNotFoundError: No module named 'no'); install")
    assert f"pipeline 0123456789ab (driver: {exam.code['pipeline']})" in code and "gristmill" not in code
    assert files.startswith(f"has no {str(tmp_path / 'gone')!r}; put inputs and models")


def test_libraries_that_decide_what_stages_do_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engines.examine.SEEN_S", 0.0)
    (tmp_path / "a.txt").write_text("one\n")
    plan = make_plan(
        "t", [("lines", Lines(paths="")), ("language", Language()), ("files", Files())], expand(str(tmp_path / "a.txt"))
    )
    exam = set_exam(Task(str(tmp_path / "out"), plan.steps[0].spec, plan.steps[0].units[0], 1, 256), "feed")
    assert exam.libraries == {"fasttext-new": version_of("fasttext-new"), "python": version_of("python")}
    paper = sit(exam, "n1")
    assert found(exam, paper) == []
    (fault,) = found(exam, dataclasses.replace(paper, libraries={**exam.libraries, "fasttext-new": "0.0.9"}))
    assert fault.startswith(
        f"has other libraries than the driver: fasttext-new 0.0.9 (driver: {exam.libraries['fasttext-new']}); "
    )


def test_the_code_of_a_package_is_its_sources_and_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gm_odd_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "a.py").write_text("x = 1\n")
    (tmp_path / "gm_odd_module.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    codes = [code_of("gm_odd_package"), code_of("gm_odd_module")]
    (package / "inner" / "__pycache__").mkdir()
    assert [code_of("gm_odd_package"), code_of("gm_odd_module")] == codes
    (package / "inner" / "a.py").rename(package / "inner" / "b.py")
    (tmp_path / "gm_odd_module.py").write_text("x = 2\n")
    hash_of.cache_clear()
    assert len({*codes, code_of("gm_odd_package"), code_of("gm_odd_module")}) == 4
    assert code_of("gm_no_such_package") == ""


def test_a_library_that_a_node_lacks_is_named_whether_the_driver_has_it_or_not() -> None:
    exam = Exam("", "", {}, (), {"numpy": "2.0", "no-such-library": "absent"}, ())
    paper = Paper({}, {"numpy": "absent", "no-such-library": "absent"}, output="none")
    said, _ = faults(exam, paper, "n1")
    assert said == (
        "lacks libraries that a stage names in libraries(): numpy (driver: 2.0), no-such-library (driver: absent); install them "
        "there; names are those of pip"
    )


def test_all_faults_of_all_nodes_are_one_message() -> None:
    report = report_of({"b (10.0.0.2)": ["cannot x", "has no y"], "c (10.0.0.3)": ["did not answer"]}, 3)
    assert report.splitlines() == [
        "2 of 3 nodes cannot work on this build:",
        "  node b (10.0.0.2) cannot x",
        "  node b (10.0.0.2) has no y",
        "  node c (10.0.0.3) did not answer",
    ]
