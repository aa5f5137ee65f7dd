"""docs/buckets.md: its configs are written, its commands run one after the other, and what it says of them holds."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from jobs.__main__ import main
from jobs.build import build
from pipeline.engines.local import LocalEngine
from tests.conftest import ROOT

PAGE = (ROOT / "docs/buckets.md").read_text()
NAMED = re.compile(r"`([\w.]+)`:\n\n```yaml\n(.*?)```", re.DOTALL)  # a file, and the block that it holds


def put_scored(path: Path, seed: int, shift: float) -> None:
    """Write documents with two scores and a language."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "text": "word " * (1 + n % 50),
            "edu": float(rng.normal(shift)),
            "web": float(rng.random()),
            "language": "fr" if n % 4 == 0 else "en",
        }
        for n in range(600)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))
    put_scored(tmp_path / "scored/a.jsonl", 1, 0.0)
    put_scored(tmp_path / "night/b.jsonl", 2, 1.0)
    files = dict(NAMED.findall(PAGE))
    assert set(files) == {"first.yaml", "night.yaml"} and PAGE.count("```yaml") == 2
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (commands,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    printed = {}
    for line in commands.splitlines():
        assert main(shlex.split(line)[3:]) == 0, (line, capsys.readouterr().err)
        printed[line] = capsys.readouterr().out
    assert "buckets (from edges-1, " in printed["python -m jobs plan night.yaml"]
    assert len(printed["python -m jobs plan night.yaml"].splitlines()) == 3, "no barrier"
    assert main(["report", "build/night", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["buckets"]
    assert found["artifact"]["name"] == "edges-1" and found["levels"][18:] == ["medium_high", "high"]
    drift = {score: each["drift"] for score, each in found["scores"].items()}
    assert [row["group"] for row in drift["edu"]] == [None, ["en"], ["fr"]]
    assert drift["edu"][0]["cdf_distance"] > 0.2 > drift["web"][0]["cdf_distance"], "only edu moved"
