"""A build with a real server of a real small model: the plumbing holds. What so small a model writes is not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.__main__ import main
from tests.llama_server import llama_server

PROMPT = """input_tokens: 40
output_tokens: 48
---
Say this in other words, in one or two sentences: {text}
"""
TEXTS = [
    "The old mill stands at the river, where the water turns its wheel.",
    "Bakers buy flour from the mill and bake bread of it in the morning.\nA flood came in the spring and carried the bridge "
    "away, so that carts had to go round by the ford until another bridge of oak was built in the following year.",
]


def built(folder: Path, url: str, capsys: pytest.CaptureFixture[str], *behind: str) -> tuple[str, pa.Table]:
    (folder / "short.md").write_text(PROMPT)
    (folder / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    endpoint = {"url": url, "concurrency": 2, "attempts": 2}
    rephrase = {"endpoint": endpoint, "model": "smollm2", "prompts": [str(folder / "short.md")], "keep_original": True}
    content = {
        "name": "t",
        "output": str(folder / "out"),
        "source": {"jsonl": {"paths": str(folder / "in.jsonl")}},
        "stages": [{"rephrase": {**rephrase, "same_language": False}}, *behind, "documents"],
        "run": {"workers": 1},
    }
    (folder / "build.yaml").write_text(json.dumps(content))
    assert main(["build", str(folder / "build.yaml")]) == 0, capsys.readouterr().err
    _, build, manifest = capsys.readouterr().out.splitlines()[-1].split()
    files = Path(manifest).parent.glob("documents-*.arrow")
    return build, pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files])


def test_a_small_model_answers_once_and_the_build_is_the_same_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with llama_server(tmp_path) as url:
        first, docs = built(tmp_path, url, capsys)
        assert main(["report", str(tmp_path / "out"), "--json"]) == 0
        stage = json.loads(capsys.readouterr().out)["stages"][1]
    assert docs.filter(pc.is_null(docs["prompt"]))["text"].to_pylist() == TEXTS
    assert stage["asked"]["answers"] == 3 and stage["asked"]["tokens_in"] > 60 and stage["quarantined"] == {}
    assert stage["in"] + stage["made"] == 5 == stage["kept"] + sum(stage["dropped"].values())
    assert set(stage["dropped"]) <= {"cut", "refusal", "too_short", "copy"}, "so small a model often says the same"
    # The server is gone: what is built with a later stage changed is made of the answers that are kept.
    again, same = built(tmp_path, url, capsys, "save")
    assert again == first and same.equals(docs)
