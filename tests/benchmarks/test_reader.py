"""The readers that the benchmark compares give the same tokens; turns, ratios and the drops from memory are what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _reader_cold as cold
from benchmarks import _reader_turns
from benchmarks._reader_data import LENGTH, ROWS, Data, make
from benchmarks._reader_turns import READERS, take_turns
from benchmarks.reader import BETWEEN, GOALS, started
from gristmill import TokenDataset

ROOT = Path(__file__).parents[2]
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    # A whole number of batches, so that every reader has the same sequences.
    return make(tmp_path_factory.mktemp("reader") / "data", 8 * ROWS * LENGTH)


@pytest.fixture(scope="module")
def judged(data: Data) -> dict[str, str]:
    script = Path(__file__).with_name("reader_rows.py")
    folder = data.folder.parent
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | QUIET | {"TMPDIR": str(folder), "HF_HOME": str(folder / "hf")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", READERS)
def test_readers_give_the_tokens_that_were_made(name: str, judged: dict[str, str]) -> None:
    if judged[name].endswith("is not installed"):
        pytest.skip(judged[name])
    assert judged[name] == "ok"


def test_flat_file_and_build_are_the_same_tokens(data: Data) -> None:
    tokens = np.asarray(data.tokens())
    assert len(tokens) == 8 * ROWS * LENGTH
    assert (np.concatenate(list(data.documents())) == tokens).all()
    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, shuffle="none")
    assert (dataset[3]["input_ids"] == data.sequences()[3]).all()


def test_turns_are_shared_by_those_that_can(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reader_turns, "LEAST_S", 0.01)
    with started(["gristmill", "none of them", "memmap"], data, tmp_path, 3) as readers:
        assert [reader.missing for reader in readers] == [None, "it failed: KeyError: 'none of them'", None]
        found = take_turns(readers, 3)
        ended = readers[2]
        ended._process.kill()
        with pytest.raises((RuntimeError, BrokenPipeError)):
            for _ in range(2):
                ended.turn()
    assert set(found.seconds) == {"gristmill", "memmap"}
    assert all(len(turns) == 3 and min(turns) > 0 for turns in found.seconds.values())
    assert found.over("none of them", "gristmill") is None and found.over("memmap", "gristmill") is not None


def test_rows_are_those_that_machines_expect() -> None:
    assert all(re.fullmatch(r"\w+", name) for name in {*GOALS, *BETWEEN})
    assert {reader for one, other, _ in BETWEEN.values() for reader in (one, other)} | set(GOALS) <= set(READERS)


def test_peers_are_pinned() -> None:
    lines = (ROOT / "benchmarks" / "reader_peers.txt").read_text().splitlines()
    named = [line for line in lines if not line.startswith("#")]
    assert named and all(re.match(r"[\w-]+==[\d.]+( |$)", line) for line in named)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    if reason := cold.droppable(folder):
        pytest.skip(f"no disk to measure: {reason}")
    return folder


@pytest.fixture(scope="module")
def larger(disk: Path) -> Data:
    return make(disk / "data", 3_000_000, columns=False)


def test_dropped_files_are_read_from_the_disk(disk: Path) -> None:
    path = disk / "file"
    path.write_bytes(os.urandom(1 << 20))
    path.read_bytes()
    assert cold.resident(path) == 1 << 20
    before = cold.read_bytes()
    path.read_bytes()
    assert cold.read_bytes() == before
    cold.drop(path)
    assert cold.resident(path) == 0
    path.read_bytes()
    assert cold.read_bytes() - before >= 1 << 20


@pytest.mark.parametrize("name", cold.READERS)
def test_cold_runs_count_what_they_needed(name: str, larger: Data) -> None:
    found = cold.run(name, larger, 2 * ROWS, 0)
    assert found["left_bytes"] == 0
    assert found["sequences"] == 2 * ROWS and found["needed_bytes"] == 2 * ROWS * LENGTH * 2
    assert found["read_bytes"] >= found["needed_bytes"] and found["seconds"] > 0
