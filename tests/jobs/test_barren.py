"""Inputs that give no document, and builds without any: whoever builds is told, in words and counts; good inputs say nothing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.build import build
from jobs.report import report
from jobs.tokenizer.corpus import documents_of
from pipeline.engines.local import LocalEngine
from stages.source.jsonl import JsonlSource

REQUEST = (
    b"WARC/1.0\r\nWARC-Type: request\r\nContent-Type: application/http\r\nContent-Length: 18\r\n\r\n"
    b"GET / HTTP/1.1\r\n\r\n\r\n\r\n"
)


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Build documents of files in this process, which starts no worker for it; return the warnings."""
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))

    def run(source: str, files: Mapping[str, bytes], *stages: object, **parameters: object) -> list[str]:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        text = {
            "name": "t",
            "output": str(tmp_path / "out"),
            "source": {source: {"paths": f"{folder}/*", **parameters}},
            "stages": [*stages, "documents"],
            "run": {"workers": 1},
        }
        (tmp_path / "t.yaml").write_text(yaml.safe_dump(text))
        assert build.build_of(str(tmp_path / "t.yaml"), {}) == build.BUILT
        said = capsys.readouterr()
        assert said.out.startswith("build ")
        return [line.removeprefix("warning: ") for line in said.err.splitlines() if "warning" in line]

    return run


def packed(table: pa.Table, path: Path) -> bytes:
    pq.write_table(table, path)
    content = path.read_bytes()
    path.unlink()
    return content


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


GOOD = lines({"text": "one"}, {"text": "two"})


def test_good_inputs_say_nothing(told: Callable[..., list[str]]) -> None:
    assert told("jsonl", {"a.jsonl": GOOD, "b.jsonl": GOOD + b"broken\n"}) == []


def test_a_wrong_key_is_told_with_the_keys_that_there_are(told: Callable[..., list[str]]) -> None:
    (line, none) = told("jsonl", {"a.jsonl": lines({"content": "x", "id": 1}, {"content": "y"})})
    assert line.startswith("a.jsonl: not one document, all that was found in it is in quarantine: no_text_key 2; the first: ")
    assert "'content', 'id'" in line and "set text_key" in line
    assert none == "the build has 0 documents: 2 quarantined by jsonl (no_text_key 2)"


def test_of_several_files_the_bad_ones_are_named(told: Callable[..., list[str]]) -> None:
    noise = {
        "noise.jsonl.bz2": b"BZh9 not one",
        "wide.jsonl": '{"text": "a"}\n'.encode("utf-16"),
        "cut.gz": gzip.compress(GOOD)[:9],
    }
    found = told("jsonl", {"good.jsonl": GOOD, "empty.jsonl": b"", "blank.jsonl": b"\n \n", **noise})
    assert [line.split(":")[0] for line in found] == [
        "cut.gz",
        "noise.jsonl.bz2",
        "wide.jsonl",
        "no document in blank.jsonl, empty.jsonl",
    ]
    assert "UTF-16" in found[2] and "0 documents" not in "".join(found)


def test_arrays_are_read_and_told(told: Callable[..., list[str]]) -> None:
    array = json.dumps([{"text": "three"}, {"text": "four"}]).encode()
    found = told("jsonl", {"a.jsonl": GOOD, "b.json": array, "c.json": b" " + array})
    assert found == ["b.json, c.json: is a JSON array, not lines of JSON; its elements were read as lines are"]


def test_tables_and_archives_without_documents(told: Callable[..., list[str]], tmp_path: Path) -> None:
    table = packed(pa.table({"content": ["x"], "n": [1]}), tmp_path / "x")
    assert (
        "no_text_column 1; the first: no_text_column: no 'text' among the columns ('content', 'n')"
        in told("parquet", {"a": table})[0]
    )
    assert told("warc", {"a": REQUEST}, "extract_html")[-2].startswith("a: not one document, all that was found in it")


def test_many_are_counted_and_the_first_named(told: Callable[..., list[str]]) -> None:
    found = told("jsonl", {f"{n:02}.jsonl": b"broken\n" for n in range(13)} | {f"e{n:02}": b"" for n in range(12)})
    assert len(found) == 10 + 1 + 1 + 1
    assert found[10].startswith("3 more files gave not one document")
    assert found[11].startswith("no document in e00, e01") and "e09 and 2 more:" in found[11]


def test_a_build_whose_documents_are_all_dropped_says_where_they_went(told: Callable[..., list[str]]) -> None:
    (line,) = told("jsonl", {"a.jsonl": GOOD}, {"language": {"keep": ["zh"]}})
    assert line == "the build has 0 documents: 2 dropped by language (language 2)"


def test_what_was_told_is_told_again_and_in_the_report(told: Callable[..., list[str]], tmp_path: Path, capsys) -> None:
    files = {"a.jsonl": lines({"content": "x"}), "b.jsonl": GOOD}
    assert told("jsonl", files) == told("jsonl", files) != []
    report.report(str(tmp_path / "out"), as_json=True)
    (found,) = json.loads(capsys.readouterr().out)["barren"]
    assert (found["file"], found["records"], found["kinds"]) == ("a.jsonl", 1, {"no_text_key": 1})
    report.report(str(tmp_path / "out"))
    (page,) = (tmp_path / "out/builds").glob("*/report.html")
    assert "not one document, all that was found in it" in page.read_text()


def test_a_lost_manifest_of_a_unit_is_told_and_the_build_stands(told: Callable[..., list[str]], tmp_path: Path) -> None:
    assert told("jsonl", {"a.jsonl": GOOD}) == []
    (unit,) = (tmp_path / "out/steps").glob("*/*.json")
    unit.unlink()
    (line,) = told("jsonl", {})
    assert f"{unit} was committed and is gone" in line and "--verify" in line


def test_documents_to_learn_from_are_no_different(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {"a.jsonl": lines({"content": "x"}), "b.jsonl": GOOD, "c.jsonl": b""}.items():
        (tmp_path / name).write_bytes(content)
    for _ in range(2):
        tables = list(documents_of(JsonlSource(paths=f"{tmp_path}/*")))
        assert [text for table in tables for text in table["text"].to_pylist()] == ["one", "two"]
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split(":")[1] for line in said] == [" a.jsonl", " c.jsonl"] and "'content'" in said[0]
