"""The run on a GPU, dry on the CPU: without Ray and what else such a machine has not, and what is recorded of steps that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks._gpu_checks import CHECKS
from benchmarks.gpu_day import Given, Json, Skip, never_run, run_step, step_apart

ROOT = Path(__file__).parents[2]
BLOCKED = """
import sys
for name in "ray datatrove rich scipy xxhash s3fs obstore fasttext_new pytest duckdb".split():
    sys.modules[name] = None  # as if it were not installed
"""


def test_all_steps_run_without_the_pipelines_packages(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--quick", "--minutes", "12", "--out", str(out)]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    states = {name: step["state"] for name, step in found["steps"].items()}
    expected = {"checks": "done", "tiles": "skipped", "scoring_gpu": "done", "sequence": "done", "lift": "skipped"}
    assert states == expected, found["steps"]
    tried = found["steps"]["checks"]["found"]
    assert tried.keys() == CHECKS.keys() - {"a decoder through torch.compile"}
    assert all(each["right"] for each in tried.values()), tried
    assert found["steps"]["sequence"]["found"]["scores_differ_by"] < 1e-4
    assert found["never_run"] == list(CHECKS), "nothing has run on CUDA"
    rows = json.loads(done.stdout.splitlines()[-1])
    assert rows["sequence"]["ratio"] > 0 and rows["sorted_cpu"]["ratio"] > 0 and rows["matmul_share_1.1b"]["ratio"] is None


def given(tmp_path: Path, seconds: float = 60) -> Given:
    return Given(quick=True, seconds=seconds, build=None, file=tmp_path / "step.json")


def test_what_ends_a_step_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Given) -> Json:
        raise RuntimeError("CUDA error:\n an illegal memory access")

    def cannot(_: Given) -> Json:
        raise Skip("no such thing here")

    for work, state, why in (
        (fails, "failed", "RuntimeError: CUDA error: an illegal memory access"),
        (cannot, "skipped", "no such thing here"),
    ):
        monkeypatch.setattr(gpu_day, "STEPS", {"one": (work, 1.0)})
        run_step("one", given(tmp_path))
        found = json.loads((tmp_path / "step.json").read_text())
        assert (found["state"], found["why"]) == (state, why)


def test_a_process_that_ends_or_hangs_leaves_the_other_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(python))
    for text, said in (
        ("echo no device >&2; exit 3", "its process ended with 3: no device"),
        ("exec sleep 60", "more than its 1 s"),
    ):
        python.write_text(f"#!/bin/sh\n{text}\n")
        python.chmod(0o755)
        found = step_apart("checks", given(tmp_path, 1))
        assert found["state"] == "failed" and said in found["why"]
    calls: list[str] = []

    def one(name: str, _: Given) -> Json:
        calls.append(name)
        return {"state": "failed", "why": "", "seconds": 0.0}

    monkeypatch.setattr(gpu_day, "step_apart", one)
    gpu_day.run(1, quick=True, build=None)
    assert calls == list(gpu_day.STEPS)
    monkeypatch.setattr(time, "monotonic", iter([0.0, *[58.0] * 9]).__next__)
    late = gpu_day.run(1, quick=True, build=None)["steps"]
    assert {step["why"] for step in late.values()} == {"no time was left"} and len(calls) == len(gpu_day.STEPS)


def test_paths_that_have_never_run(tmp_path: Path) -> None:
    first, second, *others = CHECKS
    found = {first: {"right": True}, second: {"right": False}}
    assert never_run({"checks": {"found": found}}, quick=False) == [second, *others]
    assert never_run({"checks": {"state": "failed"}}, quick=False) == list(CHECKS) == never_run({}, quick=True)
