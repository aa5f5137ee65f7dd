"""docs/extend.md: the repository that it describes is made, and every command in it runs there."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main, parser_of
from tests.conftest import ROOT

PAGE = (ROOT / "docs/extend.md").read_text()
NAMED = re.compile(r"`([\w./]+)`[^`\n]*:\n\n```(\w+)\n(.*?)```", re.DOTALL)  # a file, and the block that it holds
AWAY = {"--set run.address=auto", "docker build"}  # commands that need a cluster, or Docker


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mydata")
    files = {name: text for name, _, text in NAMED.findall(PAGE)}
    listed = re.search(r"image:\n\n(.*?)\n\n", PAGE, re.DOTALL)
    assert listed and {line.strip() for line in listed[1].splitlines()} == {*files, "mydata/__init__.py"}
    for name, text in {**files, "mydata/__init__.py": ""}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    return folder


def commands() -> list[str]:
    lines = [line.partition("  #")[0].rstrip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("export ")]


def test_every_command_runs(repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(repository)
    told = {}
    for line in commands():
        words = shlex.split(line)
        if any(each in line for each in AWAY):
            assert words[0] == "docker" or parser_of(words[3]).parse_args(words[3:])
            continue
        if words[:3] == ["python", "-m", "jobs"] and "run.on=ray" not in words:
            assert main(words[3:]) == 0, (line, capsys.readouterr().err)
            told[line] = capsys.readouterr().out
            continue
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run([sys.executable, *words[1:]], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        told[line] = done.stdout
    assert "1 passed" in told["python -m pytest tests"]
    assert "dropped: digits" in told["python -m jobs explain build/mydata http://a.example/2"]
    assert "1 to compute" in told["python -m jobs plan build.yaml --set stages.Digits.most=0.1"]
    built = told["python -m jobs build build.yaml"].split()[-2]
    assert told["python -m jobs build build.yaml --set run.on=ray"].split()[-2] == built
    assert main(["report", "build/mydata", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [(each["stage"], each["kept"]) for each in stages[1:3]] == [("Digits", 2), ("dedup_exact", 1)]


def test_the_image_is_built_from_ours() -> None:
    (dockerfile,) = blocks("dockerfile")
    tag = re.search(r"--tag (\S+)", (ROOT / "infra/Dockerfile").read_text())
    assert tag and dockerfile.startswith(f"FROM {tag[1]}\n")
    assert "PYTHONPATH=/opt/gristmill" in (ROOT / "infra/Dockerfile").read_text()


def test_all_python_that_is_shown_can_be_read() -> None:
    for block in blocks("python"):
        ast.parse(block if not block.startswith(" ") else f"class Shown:\n{block}")
