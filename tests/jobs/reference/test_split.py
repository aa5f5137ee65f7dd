"""Choosing documents of a build: against a slow transcription, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill import TokenDataset
from gristmill.errors import InputError
from gristmill.format.build import open_build
from gristmill.format.manifest import build_id
from jobs.reference.recipe import Condition
from jobs.reference.split import HELD_OUT, TRAINING, divide, open_tokens
from tests.jobs.byte_builds import byte_documents, publish_bytes, words

LANGUAGES = ("en", "de", "en", "fr")


def table(number: int, first: int) -> pa.Table:
    draw = random.Random(first)
    texts = [words(draw.randrange(1, 12), first + row) for row in range(number)]
    quality = [None if row % 7 == 0 else (first + row) % 10 / 10 for row in range(number)]
    return byte_documents(texts, file=f"crawl-{first}", languages=LANGUAGES, quality=quality)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of two shards, each of several record batches."""
    made = tmp_path_factory.mktemp("build")
    publish_bytes([table(60, 0), table(80, 1000)], made, batch_tokens=600)
    return made


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the documents of a build as plain data, in order."""
    files = [folder / shard.file for shard in open_tokens(str(folder)).manifest.shards]
    return [row for file in files for row in pa.ipc.open_file(pa.memory_map(str(file))).read_all().to_pylist()]


def source(output: Path) -> list[dict[str, Any]]:
    (folder,) = (output / "builds").iterdir()
    return rows_of(folder)


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        ([], lambda row: True),
        ([{"column": "language", "equal": "en"}], lambda row: row["language"] == "en"),
        ([{"column": "quality", "at_least": 0.6}], lambda row: row["quality"] is not None and row["quality"] >= 0.6),
        ([{"column": "quality", "at_least": 0.25, "at_most": 0.55}], lambda row: 0.25 <= (row["quality"] or 0) <= 0.55),
        ([{"column": "text_bytes", "equal": 3}], lambda row: row["text_bytes"] == 3),
        (
            [{"column": "language", "equal": "en"}, {"column": "text_bytes", "at_most": 40}],
            lambda row: row["language"] == "en" and row["text_bytes"] <= 40,
        ),
    ],
    ids=["all", "equal", "at_least", "between", "whole", "both"],
)
def test_documents_that_fulfil_all_conditions_are_taken(conditions: list[Any], wanted: Any, output: Path, tmp_path: Path) -> None:
    build, folder = open_tokens(str(output)), tmp_path / "data"
    assert len(source(output)) == 140 and len(build.manifest.shards) == 2
    divide(build, [Condition(**each) for each in conditions], 0.25, 3, folder)
    training, held = rows_of(folder / TRAINING), rows_of(folder / HELD_OUT)
    expected = [row for row in source(output) if wanted(row)]
    held_ids = {row["doc_id"] for row in held}
    assert training == [row for row in expected if row["doc_id"] not in held_ids]
    assert held == [row for row in expected if row["doc_id"] in held_ids]
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "nothing is left beside it"


def test_what_is_held_out_is_the_share_and_stays_when_documents_come(output: Path, tmp_path: Path) -> None:
    def held(path: Path, name: str, share: float = 0.25, seed: int = 3) -> set[str]:
        divide(open_tokens(str(path)), [], share, seed, tmp_path / name)
        return {row["doc_id"] for row in rows_of(tmp_path / name / HELD_OUT)}

    first = held(output, "first")
    assert 20 <= len(first) <= 50
    assert held(output, "less", 0.1) < first < held(output, "more", 0.5)
    with pytest.raises(InputError, match="the build has no tokens"):
        held(output, "none", 0.0)
    assert len(rows_of(tmp_path / "none" / TRAINING)) == 140
    assert held(output, "other", seed=4) != first
    more = tmp_path / "more-documents"
    publish_bytes([table(30, 2000), table(60, 0), table(80, 1000)], more)
    assert held(more, "grown") >= first and len(held(more, "grown-too") - first) < 20


def test_the_parts_are_builds_that_the_reader_opens(output: Path, tmp_path: Path) -> None:
    build = open_tokens(str(output))
    divide(build, [Condition(column="language", equal="en")], 0.2, 0, tmp_path / "data")
    for name in (TRAINING, HELD_OUT):
        dataset = TokenDataset.open(tmp_path / "data" / name, sequence_length=8, shuffle="none", verify=True)
        stream = [token for row in rows_of(tmp_path / "data" / name) for token in row["input_ids"]]
        assert [token for sample in dataset for token in sample["input_ids"].tolist()][: len(stream) // 8 * 8] == stream[
            : len(stream) // 8 * 8
        ]
        manifest = dataset.manifest()
        assert manifest.build == build_id("tokens", manifest.shards)
        assert manifest.tokenizer is not None and build.manifest.tokenizer is not None
        assert manifest.tokenizer.sha256 == build.manifest.tokenizer.sha256 and manifest.tokenizer.eos_id == 1
        assert manifest.lineage["of"] == build.manifest.order and manifest.lineage["documents"] == ["language == 'en'"]
        assert sum(shard.text_bytes for shard in manifest.shards) == sum(
            row["text_bytes"] for row in rows_of(tmp_path / "data" / name)
        )


def test_the_same_documents_make_the_same_files_however_the_build_is_batched(output: Path, tmp_path: Path) -> None:
    publish_bytes([table(60, 0), table(80, 1000)], tmp_path / "build", batch_tokens=600)
    for name, path in (("one", output), ("two", tmp_path / "build")):
        divide(open_tokens(str(path)), [Condition(column="quality", at_least=0.2)], 0.2, 0, tmp_path / name)
    for name in (TRAINING, HELD_OUT):
        assert (tmp_path / "one" / name / "manifest.json").read_bytes() == (
            tmp_path / "two" / name / "manifest.json"
        ).read_bytes()


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ({"column": "langage", "equal": "en"}, "no column 'langage'.*language.*quality.*`shards: {columns: "),
        ({"column": "input_ids", "equal": 3}, "no column 'input_ids'"),
        ({"column": "language", "at_least": 0.5}, "'language' is string; at_least and at_most need numbers"),
        ({"column": "language", "equal": 3}, "'language' is string; it cannot equal 3"),
        ({"column": "quality", "equal": "high"}, "'quality' is float; it cannot equal 'high'"),
        ({"column": "language", "equal": "ja"}, r"none of 140 is language == 'ja'.*language is en \(70\), de \(35\), fr \(35\)"),
        ({"column": "quality", "at_least": 7}, r"none of 140 is 7 <= quality.*and \d+ more"),
    ],
    ids=["unknown", "nested", "no-number", "no-text", "no-text-either", "none", "none-above"],
)
def test_a_condition_that_cannot_be_is_refused(condition: Mapping[str, Any], found: str, output: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=found):
        divide(open_tokens(str(output)), [Condition(**condition)], 0.2, 0, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_builds_that_cannot_be_trained_on_are_refused(output: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"build: .*no such file or folder"):
        open_tokens(str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has neither"):
        open_tokens(str(tmp_path / "empty"))
    manifest, _ = open_build(output, "tokens")
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "manifest.json").write_bytes(manifest.to_json())
    with pytest.raises(InputError, match="missing"):
        open_tokens(str(copy))
    for shard in manifest.shards:
        (copy / shard.file).write_bytes(bytes(shard.bytes))
    with pytest.raises(InputError, match="damaged"):
        divide(open_tokens(str(copy)), [], 0.2, 0, tmp_path / "data")


def test_a_condition_says_what_it_asks() -> None:
    given = [{"equal": "en"}, {"at_least": 0.5}, {"at_most": 3}, {"at_least": 1, "at_most": 2}, {"equal": 0}]
    said = [str(Condition(column="c", **each)) for each in given]
    assert said == ["c == 'en'", "0.5 <= c", "c <= 3", "1 <= c <= 2", "c == 0"]
    for wrong in ({}, {"equal": 1, "at_least": 0.5}):
        with pytest.raises(ValueError, match="either `equal`"):
            Condition(column="c", **wrong)
