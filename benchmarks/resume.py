"""What it costs to run a finished build again, and whether a changed parameter recomputes what `plan` says and no more.

Builds a copy of `examples/crawl` in a temporary folder with the real commands (`python -m jobs build`), in child processes. Then:
- the same command again, `on: ray`: wall and CPU seconds, and what it reads. A finished build needs no work, so no Ray is
  started for it; a bare `ray.init` and `shutdown` is timed beside it.
- a parameter of the sink, then one of a barrier in the middle, is changed: the units that `plan` names before, and those
  whose manifests are there after that were not before.

Files opened are counted by the kernel (inotify on the output and on the crawl), whoever opens them and however, mapped files
too; a file opened twice in a row may count once, never not at all, and the builds that do work show that the counting works.
Bytes read are `rchar` of /proc/self/io as the process ends: all that it read by system calls, Python's own modules among it.
Lower is better in every row but the shares recomputed, which shall be what was planned.

    python -m benchmarks.resume [--quick]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _table

ROOT = Path(__file__).parents[1]
CRAWL = ROOT / "examples" / "crawl"
QUICK_RUNS, RUNS = 3, 9
LIMIT_S = 2.0

# Without the filters whose words take most of the time: what a rerun costs does not depend on the stages.
QUICK_STAGES = "[extract_html, {language: {keep: [en, fr, de]}}, dedup_exact, dedup_minhash, documents]"
STAGES = "[extract_html, {language: {keep: [en, fr, de]}}, gopher_quality, dedup_exact, dedup_minhash, documents]"
CHANGES = {"sink": "stages.documents.bytes_per_shard=1000000", "barrier": "stages.dedup_minhash.threshold=0.9"}

# The child tells what it has read when its work is done; `build` ends by SystemExit.
TELL = """
import atexit, sys
atexit.register(lambda: print(open("/proc/self/io").read(), file=sys.stderr))
"""
JOBS = TELL + 'import runpy\nsys.argv[0] = "jobs"\nrunpy.run_module("jobs", run_name="__main__")'
IMPORTS = TELL + "import jobs.build.build"
RAY = "import ray\nray.init(include_dashboard=False, log_to_driver=False, logging_level='ERROR')\nray.shutdown()"


@dataclass(frozen=True)
class Ran:
    """What a child process took: seconds, bytes it read by system calls (0 where it did not tell), and its last line."""

    wall: float
    cpu: float
    read: int
    last: str


def run(code: str, *arguments: str) -> Ran:
    """Run Python code in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{arguments} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    counted = [line for line in done.stderr.splitlines() if line.startswith("rchar: ")]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(wall, cpu, int(counted[-1].split()[1]) if counted else 0, (done.stdout.splitlines() or [""])[-1])


class Opened:
    """Counts files opened below some folders, as inotify reports them; folders made later are not watched."""

    OPEN, IS_FOLDER, NONBLOCK, HEAD = 0x20, 0x40000000, 0o4000, struct.Struct("iIII")

    def __init__(self, folders: Sequence[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(self.NONBLOCK)
        self._names: dict[int, str] = {}
        for top in folders:
            for place, _, _ in os.walk(top):
                watch = libc.inotify_add_watch(self._descriptor, os.fsencode(place), self.OPEN)
                if self._descriptor < 0 or watch < 0:
                    raise OSError(ctypes.get_errno(), f"inotify cannot watch {place}")
                inside = Path(place).relative_to(top).parts
                self._names[watch] = inside[0] if inside else top.name

    def counts(self) -> Counter[str]:
        """Return how many files were opened since the last call, by the topmost folder they are in."""
        found: Counter[str] = Counter()
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return found
            place = 0
            while place < len(data):
                watch, mask, _, length = self.HEAD.unpack_from(data, place)
                place += self.HEAD.size + length
                if watch in self._names and not mask & self.IS_FOLDER:
                    found[self._names[watch]] += 1

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)


def config(folder: Path, quick: bool) -> Path:
    """Copy the crawl, so that nobody else opens it, and write the build's YAML; return its path."""
    shutil.copytree(CRAWL, folder / "crawl")
    path = folder / "build.yaml"
    path.write_text(
        f"name: resume\noutput: {folder / 'out'}\nsource: {{warc: {{paths: '{folder / 'crawl'}/*.warc.gz'}}}}\n"
        f"stages: {QUICK_STAGES if quick else STAGES}\nrun: {{on: ray, workers: 2}}\n"
    )
    return path


def manifests(output: Path) -> set[str]:
    """Return the names of the units that are committed."""
    return {str(path.relative_to(output)) for path in (output / "steps").glob("*/*.json")}


def reruns(path: Path, watched: Sequence[Path], times: int) -> tuple[list[Ran], Counter[str]]:
    """Run the finished build again and again; return what each took and what was opened in all of them."""
    watch = Opened(watched)
    found = [run(JOBS, "build", str(path)) for _ in range(times)]
    opened = watch.counts()
    watch.close()
    return found, opened


def changed(path: Path, watched: Sequence[Path], setting: str) -> dict[str, Any]:
    """Plan and build with one parameter changed; return units in all, planned, done, and what was opened."""
    options = ("--set", setting, "--set", "run.on=local")
    plan = json.loads(run(JOBS, "plan", str(path), "--json", *options).last)
    units = sum(step["units"] for step in plan["segments"])
    before, watch = manifests(watched[0]), Opened(watched)
    took = run(JOBS, "build", str(path), *options)
    opened = watch.counts()
    watch.close()
    done = len(manifests(watched[0]) - before)
    planned = units - sum(step["done"] for step in plan["segments"])
    return {"units": units, "planned": planned, "done": done, "wall": took.wall, "opened": opened}


def by_folder(opened: Counter[str]) -> str:
    """Return counts of opened files for people."""
    return ", ".join(f"{name} {number}" for name, number in sorted(opened.items())) or "none"


def median(found: Sequence[Ran], what: Callable[[Ran], float]) -> float:
    """Return the median of one figure."""
    return statistics.median(map(what, found))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer stages and runs; within a minute")
    quick = parser.parse_args(argv).quick
    times = QUICK_RUNS if quick else RUNS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path, watched = config(folder, quick), (folder / "out", folder / "crawl")
        watch = Opened(watched[1:])
        first = run(JOBS, "build", str(path), "--set", "run.on=local")
        assert watch.counts(), "the first build reads the crawl: the counting does not work here"
        watch.close()
        bare, imports = ([run(code) for _ in range(times)] for code in (TELL, IMPORTS))
        ray = [run(RAY) for _ in range(1 if quick else 3)]
        again, opened = reruns(path, watched, times)
        assert {each.last for each in again} == {first.last}, "a rerun named another build"
        changes = {name: changed(path, watched, setting) for name, setting in CHANGES.items()}
    rows = []
    steps = (
        ("interpreter", bare),
        ("importing jobs.build", imports),
        ("rerun", again),
        ("start and end of Ray", ray),
        ("first build", [first]),
    )
    for name, found in steps:
        figures = (median(found, lambda ran: ran.wall), median(found, lambda ran: ran.cpu))
        read = median(found, lambda ran: ran.read) / 1e6
        rows.append([name, *map(_table.number, (*figures, read or None))])
    print(f"medians of {times} runs; files opened in all reruns together: {by_folder(opened)}")
    print(_table.table(["", "wall s", "CPU s", "MB read"], rows))
    lines = [
        [
            setting,
            str(found["units"]),
            str(found["planned"]),
            str(found["done"]),
            _table.number(found["wall"]),
            by_folder(found["opened"]),
        ]
        for setting, found in zip(CHANGES.values(), changes.values(), strict=True)
    ]
    print(_table.table(["changed", "units", "planned", "done", "wall s", "files opened"], lines))
    data = (opened["data"] + opened["crawl"]) / times
    closing: dict[str, tuple[float | None, float]] = {
        "rerun_of_2_s": (median(again, lambda ran: ran.wall) / LIMIT_S, 1.0),
        "data_files_opened": (data, 0.0),
    }
    for name, change in changes.items():
        closing[f"recomputed_share_{name}"] = (change["done"] / change["units"], change["planned"] / change["units"])
    print(_table.closing(closing))


if __name__ == "__main__":
    main()
