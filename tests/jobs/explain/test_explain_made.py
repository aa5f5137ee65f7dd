"""`explain` of documents that were made of others: from each back to its record, and from the record to what was made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.__main__ import main
from pipeline.schema import document_id, made_id

CONFIG = """\
name: words
output: {folder}/out
source: {{text: {{paths: "{folder}/*.txt", per: line}}}}
stages:
  - tests.toy:Words: {{raise_on: boom}}
  - save
  - tests.toy:Short: {{least: 2}}
  - dedup_exact
  - documents
run: {{workers: 1, heartbeat: null}}
"""
LINES = {"a": ["the mill grinds", "", "boom", "a water"], "b": ["mill water"]}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for name, lines in LINES.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    assert main(["build", str(folder / "config.yaml")]) == 0
    return folder / "out"


def explained(output: Path, document: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["explain", str(output), document]) == 0
    return capsys.readouterr().out


def verdicts(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+): (kept|dropped: \w+|quarantined: \w+|made \d+ documents?)", text, re.MULTILINE)


def of(file: str, line: int, *numbers: int) -> str:
    name = document_id(f"{file}.txt", sum(len(each) + 1 for each in LINES[file][:line]))
    for number in numbers:
        name = made_id(name, number)
    return name


def test_a_made_document_begins_as_its_parent(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(output, of("a", 0, 1), capsys)
    assert verdicts(out) == [(name, "kept") for name in ("text", "Words", "Short", "dedup_exact", "documents")]
    assert f"  parent = {of('a', 0)}" in out and "  word = 1" in out
    assert "    | the mill grinds" in out and "    | mill\n" in out
    assert re.search(r"row = 1\n", out), "where the build holds it"


def test_a_parent_ends_where_others_are_made_of_it(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(output, of("a", 0), capsys)
    assert verdicts(out) == [("text", "kept"), ("Words", "made 3 documents")]
    children = [f"  {of('a', 0, number)} = kept, {size} bytes of text" for number, size in enumerate((3, 4, 6))]
    assert "\n".join(children) in out


def test_made_documents_are_lost_under_their_own_names(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdicts(explained(output, of("a", 3, 0), capsys))[-1] == ("Short", "dropped: too_short")
    assert verdicts(explained(output, of("b", 0, 0), capsys))[-1] == ("dedup_exact", "dropped: exact_duplicate")


def test_a_parent_that_nothing_is_made_of_is_what_is_lost(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdicts(explained(output, of("a", 2), capsys))[-1] == ("Words", "quarantined: RuntimeError")


def test_a_parent_all_of_whose_documents_are_lost_is_found(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verdicts(explained(output, of("b", 0), capsys)) == [("text", "kept"), ("Words", "made 2 documents")]


def test_plan_and_report_tell_of_both(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(output), "--json"]) == 0
    stages = {stage["stage"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert list(stages) == ["text", "Words", "Short", "dedup_exact", "documents"], "a save has no account"
    words = stages["Words"]
    assert words["in"] + words["made"] == words["kept"] + sum(words["quarantined"].values()) == 8
    assert [name for name, stage in stages.items() if "made" in stage] == ["Words"]
    with pa.ipc.open_file(next(output.glob("builds/*/documents-00000.arrow"))) as file:
        assert file.read_all()["parent"].to_pylist() == [of("a", 0)] * 3 + [of("a", 3)]
    assert main(["plan", str(output.parent / "config.yaml")]) == 0
    out = capsys.readouterr().out
    assert "0 text-save" in out and "text → Words (makes documents) → save: done" in out
    assert main(["plan", str(output.parent / "config.yaml"), "--json"]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert segments[0]["stages"] == ["text", "Words", "save"]
    assert [segment["makes"] for segment in segments] == [["Words"], [], [], [], []]
