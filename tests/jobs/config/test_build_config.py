"""Configs: what loads, and what the build then is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import ConfigError, InputError
from jobs.config.build_config import load
from jobs.config.run import Run
from tests.jobs.config.known import GOOD, KNOWN, Encode, Extract, Language, Ngram, Reference, Score, Shards, Warc, loaded


def test_a_good_config(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD)
    assert (made.name, made.output, made.source_name) == ("demo", "build/demo", "warc")
    assert made.source == Warc(paths="examples/crawl/*.warc.gz")
    assert made.stages == (
        ("extract_html", Extract()),
        ("language", Language(keep=("en", "no"), min_score=1.0)),
        ("encode", Encode(tokenizer="build/tokenizers/superbpe-8k")),
        ("score", Score(reference=Reference(ngram=Ngram(order=3)), weights={"nll": 1.0, "on": 0.5})),
        ("shards", Shards(tokens_per_shard=50_000_000)),
    )
    assert made.run == Run(on="ray", memory_per_worker="512MiB") and made.run.memory_bytes == 512 * 2**20
    assert isinstance(dict(made.stages)["language"].min_score, float)  # type: ignore[attr-defined]
    assert made.places[-1] == f"{tmp_path}/a.yaml:4:3" and made.places[1] == f"{tmp_path}/a.yaml:7:5"


def test_the_text_of_a_build_is_plain_has_the_defaults_and_loads_again(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD, {"run.workers": "2"})
    assert made.text["stages"][1]["language"]["characters"] == 1000 and made.text["run"]["workers"] == 2
    again = loaded(tmp_path, json.dumps(made.text))
    assert (again.stages, again.source, again.run, again.text) == (made.stages, made.source, made.run, made.text)


def test_a_list_of_paths_and_a_named_union(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD.replace('"examples/crawl/*.warc.gz"', "[a.gz, b.gz]").replace("scheme: rho1", "share: [0, 1]"))
    assert made.source.paths == ("a.gz", "b.gz")
    assert dict(made.stages)["score"].share == (0.0, 1.0)  # type: ignore[attr-defined]


def test_anchors_are_understood(tmp_path: Path) -> None:
    made = loaded(tmp_path, GOOD.replace("name: demo", "name: &n demo").replace("build/demo", "*n"))
    assert made.output == "demo"


@pytest.mark.parametrize(
    ("key", "value", "get", "expected"),
    [
        ("run.on", "local", lambda b: b.run.on, "local"),
        ("run.workers", "2", lambda b: b.run.workers, 2),
        ("output", "s3://bucket/x y", lambda b: b.output, "s3://bucket/x y"),
        ("source.warc.paths", "[a, b]", lambda b: b.source.paths, ("a", "b")),
        ("stages.language.min_score", "0.7", lambda b: b.stages[1][1].min_score, 0.7),
        ("stages.1.language.fast", "true", lambda b: b.stages[1][1].fast, True),
        ("stages.language.keep.1", "nn", lambda b: b.stages[1][1].keep, ("en", "nn")),
        ("stages.score.reference.ngram.order", "5", lambda b: b.stages[3][1].reference.ngram.order, 5),
    ],
)
def test_overrides(tmp_path: Path, key: str, value: str, get: Any, expected: object) -> None:
    assert get(loaded(tmp_path, GOOD, {key: value})) == expected


def test_an_override_adds_what_the_file_leaves_out(tmp_path: Path) -> None:
    text = GOOD.replace("run: {on: ray, memory_per_worker: 512MiB}\n", "").replace(": {tokens_per_shard: 50_000_000}", "")
    made = loaded(tmp_path, text, {"run.workers": "3", "stages.shards.tokens_per_shard": "1000"})
    assert made.run.workers == 3 and made.stages[-1][1] == Shards(tokens_per_shard=1000)


def test_a_stage_that_is_there_twice_needs_its_index(tmp_path: Path) -> None:
    text = GOOD.replace("- extract_html", "- language")
    with pytest.raises(ConfigError, match=r"'language' is there 2 times; use its index: 0 or 1"):
        loaded(tmp_path, text, {"stages.language.fast": "true"})
    assert loaded(tmp_path, text, {"stages.0.language.fast": "true"}).stages[0][1] == Language(fast=True)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match=r"does not exist; did you mean '.*/demo\.yaml'\?"):
        load(tmp_path / "dmeo.yaml", known=KNOWN)
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path, known=KNOWN)
    with pytest.raises(ConfigError, match=r"demo\.yaml:1:1: byte 0xe9 is not UTF-8"):
        load(tmp_path / "demo.yaml", known=KNOWN)
