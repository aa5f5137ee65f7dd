"""docs/rephrasing.md: its config builds with a real endpoint, its prompt is one, its tables say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.rephrasing import guards
from gristmill.rephrasing.prompt import NAMES, read_prompt
from jobs.__main__ import main
from pipeline.units import answers
from tests.chat_server import chat_server
from tests.conftest import ROOT, Checkout

PAGE = (ROOT / "docs/rephrasing.md").read_text()


def test_its_config_builds(
    small_crawl: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(small_crawl.folder)
    path = tmp_path / "build.yaml"
    with chat_server() as server:
        path.write_text(config.replace("build/rephrased", str(tmp_path / "out")).replace("http://127.0.0.1:8000/v1", server.url))
        assert main(["build", str(path), "--set", "run.workers=1"]) == 0, capsys.readouterr().err
    manifest = capsys.readouterr().out.split()[-1]
    docs = pa.concat_tables([pa.ipc.open_file(file).read_all() for file in sorted(Path(manifest).parent.glob("*.arrow"))])
    assert {"diverse_qa", "wikipedia", None} == set(docs["prompt"].to_pylist()) and len(server.bodies) > 5
    assert server.bodies[0]["model"] == "SmolLM2-1.7B-Instruct"


def test_its_prompt_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"by its path:\n\n((?:    .*\n|\n)+)", PAGE)
    path = tmp_path / "dialogue.md"
    path.write_text(re.sub(r"^    ", "", block, flags=re.MULTILINE))
    prompt = read_prompt(str(path))
    assert (prompt.name, prompt.input_tokens, prompt.preamble) == ("dialogue", 1000, "Here is the dialogue:")


def test_its_tables_say_what_the_code_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| (?:Nemotron-CC|FinePhrase) \|$", PAGE, re.MULTILINE)
    told = [(name, int(taken.replace(",", "")), int(given.replace(",", ""))) for name, taken, given in rows]
    assert told == [(name, read_prompt(name).input_tokens, read_prompt(name).output_tokens) for name in NAMES]
    reasons = re.findall(r"^\| `([a-z_]+)` \| [a-z]", PAGE, re.MULTILINE)
    assert set(reasons) == set(re.findall(r"`(\w+)`", (guards.__doc__ or "").partition("The reasons:")[2]))
    assert f"chunks of up to {answers.CHUNK} or {answers.CHUNK_S:g} seconds" in PAGE
