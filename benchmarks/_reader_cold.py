"""Reading from a disk: what has to be true for it, and one reader's run in a fresh process.

`droppable` finds out whether a folder lies on a disk whose reads the system counts; `drop` takes a file out of memory, and
`resident` says how much of it is still there. Files that a process has mapped stay in memory, so each run has its own.

Reads: the folder of `_reader_data.py`. Writes one JSON object to standard output: `seconds` of wall time, since most of it is
waiting, `read_bytes` from the disk, by the system's count, and `needed_bytes`, those of the sequences given out.

    python -m benchmarks._reader_cold NAME FOLDER SEQUENCES SEED
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._reader_data import LENGTH, ROWS, Batches, Data
from gristmill import Blocks, TokenDataset, TokenLoader

ROOT = Path(__file__).parents[1]
PROBE = 16 << 20


def read_bytes() -> int:
    """Return how many bytes this process has had the system read from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def drop(path: Path) -> None:
    """Write a file to its disk and ask the system to forget it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(path: Path) -> int:
    """Return how many bytes of a file are in memory."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
        view = np.frombuffer(mapped, dtype=np.uint8)
        address = view.ctypes.data
        del view  # or the map could not be closed
        where = ctypes.c_void_p(address), ctypes.c_size_t(size), ctypes.c_void_p(pages.ctypes.data)
        if ctypes.CDLL(None, use_errno=True).mincore(*where):
            raise OSError(ctypes.get_errno(), "mincore", str(path))
    return int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE


def droppable(folder: Path) -> str | None:
    """Return why reads from a disk cannot be measured in a folder; None where they can."""
    path = folder / "probe"
    path.write_bytes(os.urandom(PROBE))
    try:
        drop(path)
        if left := resident(path):
            return f"{left >> 20} of {PROBE >> 20} MB stay in memory when they are dropped"
        before = read_bytes()
        path.read_bytes()
        if (found := read_bytes() - before) < PROBE:
            return f"reading {PROBE} dropped bytes counts as {found} from a disk"
    finally:
        path.unlink()
    return None


# ---- readers ----


def ours(data: Data, seed: int) -> Batches:
    """Our loader as it comes: the whole epoch shuffled, a thread that makes batches ahead."""
    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, seed=seed)
    return (batch.input_ids for batch in TokenLoader(dataset, ROWS, labels=False))


def ours_blocks(data: Data, seed: int) -> Batches:
    """Our loader with a shuffle by blocks, which reads contiguous stretches."""
    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, seed=seed, shuffle=Blocks(sequences=256, open=8))
    return (batch.input_ids for batch in TokenLoader(dataset, ROWS, labels=False))


def default_mmap(data: Data, seed: int) -> Batches:
    """A bare np.memmap of the flat file, as it comes: slices at the places of a permutation, stacked."""
    tokens = data.tokens()
    order = np.random.default_rng(seed).permutation(len(tokens) // LENGTH)
    for first in range(0, len(order), ROWS):
        yield np.stack([tokens[place * LENGTH : (place + 1) * LENGTH] for place in order[first : first + ROWS]])


READERS: dict[str, Callable[[Data, int], Batches]] = {"gristmill": ours, "blocks": ours_blocks, "mmap": default_mmap}


def files(data: Data) -> list[Path]:
    """Return the files that have to be out of memory."""
    return [data.flat, *sorted(data.build.glob("*.arrow"))]


def run(name: str, data: Data, sequences: int, seed: int) -> dict[str, float]:
    """Drop the files, then read so many sequences in a fresh process; return what it printed, and the bytes left in memory."""
    for path in files(data):
        drop(path)
    left = sum(resident(path) for path in files(data))
    command = [sys.executable, "-m", "benchmarks._reader_cold", name, str(data.folder), str(sequences), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "left_bytes": left}


def main() -> None:
    """Be the fresh process."""
    name, folder, sequences, seed = sys.argv[1:]
    count = int(sequences) // ROWS
    before, start = read_bytes(), time.perf_counter()
    batches = READERS[name](Data(Path(folder)), int(seed))
    tokens = sum(next(batches).size for _ in range(count))
    found = {"seconds": time.perf_counter() - start, "read_bytes": read_bytes() - before, "needed_bytes": tokens * 2}
    print(json.dumps({**found, "sequences": count * ROWS}))


if __name__ == "__main__":
    main()
