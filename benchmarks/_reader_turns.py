"""Readers that take turns: each in a process of its own, which says what CPU seconds its batches took.

A process of its own, since peers bring their own packages, threads and settings, and since its CPU seconds are then all
threads' of that reader alone. The parent lets one run at a time, so that a noisy moment meets all of them.

Reads: the folder of `_reader_data.py`, and `build/peers-reader`, where the peers' packages lie (reader_peers.txt). These come
after what is installed anyway, so none of it is replaced. Writes: what a peer needs, into the folder given.

Lines of JSON between the two: the child says {"ready": batches a turn} or {"missing": package}, then for each line that it
gets {"seconds": a batch}.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from benchmarks import _turns as harness
from benchmarks._reader_data import LENGTH, ROWS, Batches, Data
from benchmarks._reader_ours import OURS
from benchmarks._reader_peers import FURTHER, OTHERS, PEERS, ROOT
from benchmarks._turns import LEAST_S, Turns

READERS = OURS | OTHERS | FURTHER

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

WARM_S = 1.8e-8  # CPU a token of the data, of warming up, at most this after the first batches: an epoch of the faster ones
PAUSE_S = 0.002  # between two batches where only the main thread's share is measured: a very short training step


def process_cost(batches: Batches, count: int) -> float:
    """Return CPU seconds a batch of this process, all its threads, over the next `count`."""
    start = time.process_time()
    for batch in islice(batches, count):
        assert tuple(batch.shape) == (ROWS, LENGTH), f"a batch of shape {tuple(batch.shape)}"
    return (time.process_time() - start) / count


def waiting_cost(batches: Batches, count: int) -> float:
    """Return CPU seconds of this thread for the next `count` batches, each asked for after a pause, a batch."""
    spent = 0.0
    for _ in range(count):
        start = time.thread_time()
        next(batches)
        spent += time.thread_time() - start
        time.sleep(PAUSE_S)
    return spent / count


@dataclass
class Reader:
    """A reader in a process of its own; `missing` says why it takes no turns.

    Attributes:
        name: of READERS.
        turns: how many it will take.
        missing: what it lacks, after `wait`.
    """

    name: str
    data: Data
    work: Path
    turns: int
    waiting: bool = False
    missing: str | None = None
    _process: subprocess.Popen[str] = field(init=False, repr=False)
    _errors: Path = field(init=False, repr=False)

    def __post_init__(self) -> None:
        folder = self.work / self.name
        folder.mkdir(parents=True)
        self._errors = self.work / f"{self.name}.log"
        command = [sys.executable, "-m", "benchmarks._reader_turns", self.name, str(self.data.folder), str(folder)]
        homes = {"TMPDIR": str(self.work), "HF_HOME": str(self.work / "hf")}
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*command, "waiting" if self.waiting else "process", str(LEAST_S / self.turns)],
                cwd=ROOT,
                env=os.environ | ONE_THREAD | OFFLINE | homes,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def wait(self) -> None:
        """Wait until it is ready, or knows that it never will be."""
        answer = self._answer()
        if answer is None:
            lines = self._errors.read_text().strip().splitlines()
            self.missing = f"it failed: {lines[-1] if lines else f'exit status {self._process.wait()}'}"
        else:
            self.missing = answer.get("missing")

    def turn(self) -> float:
        """Let it run once; return CPU seconds a batch.

        Raises:
            RuntimeError: it ended.
        """
        pipe = self._process.stdin
        assert pipe is not None and self.missing is None
        pipe.write("\n")
        pipe.flush()
        answer = self._answer()
        if answer is None:
            raise RuntimeError(f"{self.name} ended: {self._errors.read_text()}")
        return float(answer["seconds"])

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else None


def take_turns(readers: list[Reader], turns: int) -> Turns:
    """Return CPU seconds a batch of each reader that is not missing; each repeats its batches in its own process."""
    able = [reader for reader in readers if reader.missing is None]
    return harness.take_turns({reader.name: reader.turn for reader in able}, turns, least_s=0)


def serve(name: str, data: Data, folder: Path, clock: str, turn_s: float, out: IO[str]) -> None:
    """Make a reader, warm it up, and let it run for `turn_s` or longer for each line of standard input."""
    measure = waiting_cost if clock == "waiting" else process_cost
    try:
        batches = READERS[name](data, folder)
        process_cost(batches, 1)
    except ModuleNotFoundError as error:
        _say(out, {"missing": f"{error.name} is not installed"})
        return
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    tokens = len(data.tokens())
    each = process_cost(batches, 8)
    each = process_cost(batches, max(8, min(tokens // (LENGTH * ROWS), int(tokens * WARM_S / each))))
    count = max(8, math.ceil(turn_s / each))
    _say(out, {"ready": count})
    for _ in sys.stdin:
        _say(out, {"seconds": measure(batches, count)})
    batches.close()  # generators: a loader's workers end with it


def _say(out: IO[str], answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def main() -> None:
    """Be the child: NAME, the data's folder, a folder to write into, which clock, and seconds a turn."""
    name, data, folder, clock, turn_s = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print to standard output
    sys.path.append(str(PEERS))
    serve(name, Data(Path(data)), Path(folder), clock, float(turn_s), out)
    sys.stderr.flush()
    os._exit(0)  # some peers' threads never end


if __name__ == "__main__":
    main()
