"""The reader on files that are on the disk and not in memory, beside a bare np.memmap as it comes.

Makes random documents, writes them through the `shards` sink and as a flat file, in a temporary folder. Before each run
the files are dropped from memory; each run is a fresh process. Rates are of wall time: most of it is waiting for the disk. A
system that reads ahead by default fetches a long stretch for each sequence at a random place; what was read is its own count.

Where reads of a disk can't be measured (no folder lies on one whose reads are counted), that is said, and both ratios are null.

    python -m benchmarks.reader_cold [--quick]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import _reader_cold as cold
from benchmarks._reader_data import Data, make
from benchmarks._table import Rows, closing, number, ranged, table
from benchmarks._turns import ratio

READ_AT_MOST = 2.2  # times the bytes needed; a sequence at a random place touches one page more than it fills
FASTER = 4.0

# How many sequences a run reads. Of the bare map fewer, or it would have read the whole file and come to run from memory.
SEQUENCES = {"gristmill": 4096, "blocks": 4096, "mmap": 128}

NAMES = {"gristmill": "gristmill, global shuffle", "blocks": "gristmill, shuffle by blocks", "mmap": "np.memmap as it comes"}


def folders() -> list[Path]:
    """Return where to look for a disk: the usual place of temporary files first."""
    return [Path(tempfile.gettempdir()), Path("/var/tmp"), cold.ROOT / "build"]


def find_disk() -> tuple[Path | None, list[str]]:
    """Return the first folder whose disk can be measured, or None; and why each one before it can't."""
    reasons: list[str] = []
    for folder in folders():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            reason = cold.droppable(Path(place))
        if reason is None:
            return folder, reasons
        reasons.append(f"{folder}: {reason}")
    return None, reasons


def measure(data: Data, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Return what each reader's runs found; they take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for seed in range(rounds):
        for name in NAMES:
            found[name].append(cold.run(name, data, SEQUENCES[name], seed))
    return found


def rate(runs: list[dict[str, float]]) -> list[float]:
    """Return sequences a second of each run."""
    return [run["sequences"] / run["seconds"] for run in runs]


def amount(runs: list[dict[str, float]]) -> float:
    """Return bytes read over bytes needed, the median of the runs."""
    return median(run["read_bytes"] / run["needed_bytes"] for run in runs)


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the table."""
    plain = median(rate(found["mmap"]))
    lines = [
        [NAMES[name], number(amount(runs)), number(median(rate(runs))), number(median(rate(runs)) / plain)]
        for name, runs in found.items()
    ]
    print(table(["", "read / needed", "sequences/s", "over np.memmap"], lines))


def main() -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader_cold", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds; within a minute")
    quick = parser.parse_args().quick
    tokens, rounds = (150_000_000, 3) if quick else (1_000_000_000, 9)
    disk, reasons = find_disk()
    rows: Rows = {"cold_bytes": (None, round(1 / READ_AT_MOST, 3)), "cold_speed": (None, FASTER)}
    if disk is None:
        print("skipped: reads of a disk can't be measured here:", *reasons, sep="\n    ")
    else:
        with tempfile.TemporaryDirectory(dir=disk) as place:
            found = measure(make(Path(place), tokens, columns=False), rounds)
        left = max(run["left_bytes"] for runs in found.values() for run in runs)
        print(f"{tokens / 1e6:.0f} M tokens in {disk}, dropped from memory before each run (at most {left / 1e6:.1f} MB stayed)")
        show(found)
        fast, slow = rate(found["gristmill"]), rate(found["mmap"])
        speed = ratio([one / other for one, other in zip(fast, slow, strict=True)])
        print(f"np.memmap's seconds over ours: {ranged(speed)}")
        rows = {"cold_bytes": (1 / amount(found["gristmill"]), rows["cold_bytes"][1]), "cold_speed": (speed, FASTER)}
    print(closing(rows))


if __name__ == "__main__":
    main()
