"""The reader's shuffled batches on files in memory, beside the readers of other projects, and what a start costs.

Makes random documents, writes them through the `shards` sink and gives every reader the same tokens in its own form, in a
temporary folder. A batch is 16 sequences of 2048 tokens, as numpy arrays (torch tensors where a peer knows nothing else).

Each reader runs in a process of its own with one thread for numpy and torch; what counts are that process's CPU seconds. They
take turns in one run, and a ratio is the median over the turns of a peer's seconds over ours. `_reader_peers.py` says how
each peer is set up. A peer that is not installed (reader_peers.txt) is named and skipped: its ratio is null.

    python -m benchmarks.reader [--quick]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._reader_data import LENGTH, ROWS, Data, make
from benchmarks._reader_ours import OURS
from benchmarks._reader_peers import FURTHER, OTHERS, ROOT
from benchmarks._reader_turns import READERS, Reader, take_turns
from benchmarks._table import MachineRows, Rows, closing, number, ranged, table
from benchmarks._turns import Turns

# How many times the CPU seconds of ours a peer takes.
GOALS = {"memmap": 1.5, "litdata": 2.5, "datatrove": 5.6, "datasets": 6.0, "megatron": 20.0, "grain": 42.0, "streaming": 40.0}

# One reader's seconds over another's.
BETWEEN = {
    "torch_int64": ("memmap", "gristmill_int64", 0.9),
    "scored": ("gristmill", "gristmill_scored", 0.25),
    "main_thread": ("dataloader", "gristmill_prefetched", 15.0),
}

# These two are measured by the main thread's share alone, with a pause between batches as a training step would make it.
WAITING = ("gristmill_prefetched", "dataloader")
WHOLE, QUICK = (400_000_000, 41), (40_000_000, 9)  # tokens, and turns of each reader

# What is measured once: how it follows from `_reader_claims.py`, and what it has to reach.
CLAIMS: dict[str, tuple[str, str, Callable[[float], float], float]] = {
    "indices_time": ("indices_seconds", "s to the first 1,024 of 10^12 indices; 0.05 over it", lambda s: 0.05 / s, 1.0),
    "indices_memory": ("indices_bytes", "bytes they take; 10 MB over it", lambda size: 10e6 / size, 1.0),
    "resume": ("resume", "a start at step 10^6 over one at 0; inverse", lambda cost: 1 / cost, 0.909),
    "resume_mixed": ("resume_mixed", "the same, two sources mixed by weights that change", lambda cost: 1 / cost, 0.909),
    "state": ("state_bytes", "bytes of the state of these; 200 over it", lambda size: 200 / size, 1.0),
}


@contextmanager
def started(names: list[str], data: Data, work: Path, turns: int) -> Iterator[list[Reader]]:
    """Start readers, wait until all are ready, and end them in any case."""
    readers = [Reader(name, data, work, turns, waiting=name in WAITING) for name in names]
    try:
        for reader in readers:
            reader.wait()
        yield readers
    finally:
        for reader in readers:
            reader.close()


def claims(data: Data, rounds: int) -> dict[str, float]:
    """Return what `_reader_claims.py` finds, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks._reader_claims", str(data.folder), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def show_readers(found: Turns, missing: dict[str, str]) -> None:
    """Print a line a reader: tokens a CPU-second, and how many times our seconds it takes."""
    lines = []
    for name in READERS:
        if name in WAITING or name in missing:
            continue
        rate = ROWS * LENGTH / found.median(name) / 1e6
        goal = number(GOALS.get(name))
        lines.append([name, number(rate), ranged(found.over(name, "gristmill")), goal])
    print(table(["", "Mtok/CPU-s", "its time / ours", "goal"], lines))
    for name, reason in missing.items():
        print(f"{name}: skipped, {reason}")
    if missing:
        print("`make bench` installs benchmarks/reader_peers.txt; torch and datasets are development tools")


def show_claims(found: Turns, measured: dict[str, float]) -> None:
    """Print a line for each of the other ratios, with what was measured."""
    lines = []
    for name, (one, other, goal) in BETWEEN.items():
        lines.append([name, ranged(found.over(one, other)), number(goal), f"{one} over {other}"])
    for name, (key, meaning, inverse, goal) in CLAIMS.items():
        lines.append([name, number(inverse(measured[key])), number(goal), f"{number(measured[key])} {meaning}"])
    print(table(["", "ratio", "goal", ""], lines))
    for name in WAITING:
        if name in found.seconds:
            print(f"main thread of {name}: {found.median(name) * 1e6:.0f} µs a batch")


def main() -> None:
    """Measure, print the tables, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds; within a minute")
    quick = parser.parse_args().quick
    (tokens, turns), state = QUICK if quick else WHOLE, MachineRows()
    with tempfile.TemporaryDirectory() as place:
        data = make(Path(place) / "data", tokens)
        with started([*OURS, *OTHERS, *FURTHER], data, Path(place) / "work", turns) as readers:
            found = take_turns(readers, turns)
            missing = {reader.name: reader.missing for reader in readers if reader.missing is not None}
        measured = claims(data, turns)
    rows: Rows = {
        **{name: (found.over(name, "gristmill"), goal) for name, goal in GOALS.items()},
        **{name: (found.over(one, other), goal) for name, (one, other, goal) in BETWEEN.items()},
        **{name: (inverse(measured[key]), goal) for name, (key, _, inverse, goal) in CLAIMS.items()},
    }
    print(f"{tokens / 1e6:.0f} M tokens, batches of {ROWS} x {LENGTH}, files in memory, {turns} turns each")
    show_readers(found, missing)
    print()
    show_claims(found, measured)
    print(state)
    print(closing(rows))


if __name__ == "__main__":
    main()
