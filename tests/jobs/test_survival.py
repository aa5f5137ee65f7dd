"""The command itself, killed at random, run twice at once, and out of room: the same build in the end."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Checkout
from tests.warcs import real_pages

CONFIG = """
name: survival
output: {output}
source:
  warc: {{paths: "{crawl}/*.warc.gz"}}
stages:
  - extract_html
  - language: {{keep: [en, fr, de, es], min_score: 0.3}}
  - dedup_exact
  - dedup_exact
  - documents
run: {{on: {on}, workers: {workers}, batch_rows: {rows}}}
"""


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("crawl")
    for number in range(4):
        (place / f"{number}.warc.gz").write_bytes(real_pages(8, number % 2, skip=25 * number))
    return place


def config(crawl: Path, output: Path, workers: int = 1, rows: int = 256, on: str = "local") -> str:
    path = crawl.parent / f"{output.parent.name}-{workers}-{rows}-{on}.yaml"
    path.write_text(CONFIG.format(output=output, crawl=crawl, workers=workers, rows=rows, on=on))
    return str(path)


def start(config: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs", "build", config]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said(out)


def said(out: str) -> str:
    word, build, path = out.splitlines()[-1].split()
    assert word == "build" and Path(path).is_file()
    return build


@pytest.fixture(scope="module")
def expected(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("expected") / "out"
    return said(Checkout(crawl).here("build", config(crawl, output))[0])


def test_driver_killed_at_random_moments(crawl: Path, expected: str, tmp_path: Path) -> None:
    chance = random.Random(2)
    output = tmp_path / "out"
    killed = 0
    for _ in range(3):
        process = start(config(crawl, output, workers=2, rows=4))
        deadline = time.monotonic() + 60
        # Not before it has begun to write, so that each kill leaves something half done.
        while not (output / "scratch").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(chance.uniform(0.05, 1.0))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate(timeout=60)
    assert killed > 0
    assert said(Checkout(crawl).here("build", config(crawl, output, workers=2))[0]) == expected
    assert not any((output / "scratch").iterdir()), "what killed processes left is swept"


def test_driver_killed_with_its_own_ray_and_run_again_without(crawl: Path, expected: str, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(config(crawl, output, workers=2, rows=4, on="ray"))
    deadline = time.monotonic() + 120
    while not list(output.glob("steps/*/*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(output.glob("steps/*/*.json")) and not (output / "runs").exists(), "killed between its first and its last shard"
    assert said(Checkout(crawl).here("build", config(crawl, output))[0]) == expected


def test_two_drivers_at_once_on_one_output(crawl: Path, expected: str, tmp_path: Path) -> None:
    both = [start(config(crawl, tmp_path / "out", rows=rows)) for rows in (256, 3)]
    assert [finish(process) for process in both] == [expected, expected]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_build_and_room_lets_it_go_on(crawl: Path, expected: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    build = ("build", config(crawl, disk / "out"))
    with small_disk(disk, "150k"):
        _, errors = Checkout(crawl).here(*build, code=3)
        assert "no space left" in errors and "run the same command again" in errors
        assert "Traceback" not in errors
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert said(Checkout(crawl).here(*build)[0]) == expected
