"""Small builds with buckets, run in this process by the commands, for tests that publish what they settle on and report it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.__main__ import main
from jobs.build import build
from pipeline.engines.local import LocalEngine

SOURCE = '{jsonl: {paths: "*.jsonl", carry: {quality: float32, language: string}}}'
FIT = "buckets: {scores: {quality: {quantiles: 5}}, by: [language], min_documents: 10}"


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put two input files there, and have builds run in this process."""
    rng = np.random.default_rng(1)
    for file in "ab":
        rows = [{"text": f"{file}{n}" * (n % 9), "quality": rng.normal(), "language": "enfr"[n % 2 * 2 :][:2]} for n in range(60)]
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(build, "engine_of", lambda *_: LocalEngine(0))
    return folder


def config(folder: Path, name: str, *stages: str) -> str:
    lines = [
        f"name: {name}",
        f"output: {name}",
        f"source: {SOURCE}",
        "stages:",
        *(f"  - {each}" for each in stages),
        "  - documents",
    ]
    (folder / f"{name}.yaml").write_text("\n".join(lines))
    return f"{name}.yaml"


def built(folder: Path, capsys: pytest.CaptureFixture[str], name: str, *stages: str) -> str:
    """Build, and return the id."""
    assert main(["build", config(folder, name, *stages)]) == 0
    return capsys.readouterr().out.split()[1]


def published(folder: Path, capsys: pytest.CaptureFixture[str], stage: str = FIT, name: str = "buckets") -> str:
    """Build, publish what the stage settled on in `kept/q1`, and return the build's id."""
    found = built(folder, capsys, "first", stage)
    assert main(["publish", "first", name, "kept/q1"]) == 0
    assert capsys.readouterr().out == f"artifact {record(folder)['id']} kept/q1\n"
    return found


def record(folder: Path) -> dict[str, object]:
    """Return the record of the artifact."""
    found: dict[str, object] = json.loads((folder / "kept/q1/artifact.json").read_text())
    return found
