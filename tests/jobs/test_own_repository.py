"""A repository of somebody else's, with a source, a package and a file of stages, on three nodes that do not have it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.conftest import ROOT
from tests.pipeline.ray_heads import Head, head

pytest.importorskip("ray")

FILES = {
    # As on a node that does not have it: what is read from the repository itself cannot be imported there.
    "gm_theirs/__init__.py": """
        import os

        if os.environ.get("GM_NO_CHECKOUT", "nowhere") in __file__:
            raise ImportError("this node has no checkout of the repository")
    """,
    "gm_theirs/sources.py": """
        from dataclasses import dataclass
        from stages.source.jsonl import JsonlSource

        @dataclass(frozen=True, kw_only=True)
        class Mine(JsonlSource):
            '''JSON lines, as of ours.'''
    """,
    "gm_theirs/words.txt": "boring\n",
    "gm_theirs/filters.py": """
        import time
        from dataclasses import dataclass
        from importlib.resources import files

        import pyarrow as pa
        from gm_theirs_helper import has
        from pipeline.stage import Filter, Judge

        @dataclass(frozen=True, kw_only=True)
        class Boring(Filter):
            '''Drop what has a boring word; takes its time.'''

            seconds: float = 0.0

            def open(self) -> Judge:
                words = files("gm_theirs").joinpath("words.txt").read_text().split()

                def judge(docs: pa.Table) -> pa.Array:
                    time.sleep(self.seconds * docs.num_rows)
                    return pa.array([has(text, words) for text in docs["text"].to_pylist()], pa.string())

                return judge
    """,
    "gm_theirs_helper.py": """
        def has(text, words):
            assert "odd" not in text
            return "boring" if any(word in text for word in words) else None
    """,
    "rules/shout.py": """
        from dataclasses import dataclass
        import pyarrow.compute as pc
        from pipeline.stage import Map, Transform

        @dataclass(frozen=True, kw_only=True)
        class Shout(Map):
            '''Texts in capitals.'''

            def open(self) -> Transform:
                return lambda docs: docs.set_column(docs.column_names.index("text"), "text", pc.utf8_upper(docs["text"]))
    """,
    "theirs.yaml": """
        name: theirs
        output: out
        source: {"gm_theirs.sources:Mine": {paths: "in/*.jsonl"}}
        stages:
          - gm_theirs.filters:Boring
          - rules/shout.py:Shout
          - dedup_exact
          - documents
        run: {on: local, workers: 1}
    """,
}
PLACES = 6


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (tmp_path / "repo/in").mkdir()
    for shard in range(PLACES):
        texts = [f"text {number} of many" for number in range(shard, shard + 8)] + [f"a boring one, {shard}"]
        texts += ["an odd one"] if shard == 2 else []
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / "repo/in" / f"{shard}.jsonl").write_text(lines)
    return tmp_path / "repo"


@pytest.fixture
def cluster(repository: Path) -> Iterator[Head]:
    """Three nodes that have this project, and not the repository."""
    environment = {"PYTHONPATH": str(ROOT), "GM_NO_CHECKOUT": str(repository), "RAY_AUTH_MODE": "disabled"}
    with head(environment, cpus=1) as found:
        for _ in range(2):
            found.add(f"--address={found.address}", "--num-cpus=1")
            found.wait_for("Ray runtime started")
        yield found


def start(repository: Path, *overrides: str) -> subprocess.Popen[str]:
    sets = [word for pair in overrides for word in ("--set", pair)]
    command = [sys.executable, "-m", "jobs", "build", "theirs.yaml", *sets]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def built(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, out + errors
    return out.split()[-2]


def test_killed_and_resumed_on_nodes_without_it_a_repository_gives_the_build_of_one_process(
    repository: Path, cluster: Head, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    assert main(["build", "theirs.yaml"]) == 0
    one = capsys.readouterr().out.split()[-2]
    on_ray = ("run.on=ray", f"run.address={cluster.address}", "output=far", "stages.Boring.seconds=0.1")
    slow = start(repository, *on_ray)
    wait_for_a_unit(repository / "far", slow)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    done = list((repository / "far/steps").glob("*/*.json"))
    assert 0 < len(done) < 2 * PLACES
    assert built(start(repository, *on_ray)) == one
    assert set(done) <= set((repository / "far/steps").glob("*/*.json"))


def wait_for_a_unit(output: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not list(output.glob("steps/*/*.json")):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
