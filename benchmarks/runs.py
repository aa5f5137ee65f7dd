"""A benchmark run several times, each in a process of its own: for each of its ratios the median of the runs and their range.

A single run on a shared machine is no figure: one day three runs of a ratio gave 5.3, 12.9 and 19.4. What README and docs say
comes from here, three runs unless said otherwise. Runs the benchmark as it is; reads the last line that it prints; writes
nothing.

    python -m benchmarks.runs [--runs N] [--quick] NAME [ARGUMENT ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks._table import closing, number, table

ROOT = Path(__file__).parents[1]
RUNS = 3

Ratios = dict[str, dict[str, float | None]]


def run(name: str, arguments: Sequence[str]) -> Ratios:
    """Run `python -m benchmarks.NAME` once; return its last line.

    Raises:
        SystemExit: it failed; its own words are on standard error.
    """
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"benchmarks.{name} ended with {done.returncode}")
    found: Ratios = json.loads(done.stdout.splitlines()[-1])
    return found


def summary(runs: Sequence[Ratios]) -> tuple[str, str]:
    """Return the table of medians with their ranges, and the line for machines."""
    rows, last = [], dict[str, tuple[float | None, float]]()
    for name, first in runs[0].items():
        values = [value for each in runs if (value := each[name]["ratio"]) is not None]
        goal = first["goal"]
        assert goal is not None
        middle = median(values) if values else None
        span = f"{number(min(values))}-{number(max(values))}" if values else "-"
        rows.append([name, number(middle), span, number(goal)])
        last[name] = (middle, goal)
    return table(["", "median", "range", "goal"], rows), closing(last)


def main(argv: Sequence[str] | None = None) -> None:
    """Run it, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS, help=f"{RUNS} unless said otherwise")
    parser.add_argument("--quick", action="store_true", help="with the benchmark's own --quick")
    parser.add_argument("name", metavar="NAME", help="of a benchmark, such as stages")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the benchmark's own")
    given = parser.parse_args(argv)
    arguments = ["--quick"] * given.quick + given.arguments
    found = []
    for turn in range(1, given.runs + 1):
        print(f"run {turn} of {given.runs}", file=sys.stderr)
        found.append(run(given.name, arguments))
    shown, last = summary(found)
    print(f"benchmarks.{' '.join([given.name, *arguments])}, {given.runs} runs")
    print(shown)
    print(last)


if __name__ == "__main__":
    main()
