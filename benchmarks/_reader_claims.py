"""What a start costs: the first indices of a huge source, opening, and going on from a saved state; for a fresh process.

Reads: the build that `_reader_data.py` made. Writes one JSON object to standard output:

    indices_seconds, indices_bytes      the first 1,024 places of 10^12 sequences; memory at its highest
    resume, resume_mixed                CPU seconds from nothing to the first batch at step 10^6, over those at step 0
    state_bytes                         of the state of two mixed sources at step 10^6, as JSON

    python -m benchmarks._reader_claims FOLDER ROUNDS
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from benchmarks._reader_data import LENGTH, ROWS, Data
from gristmill import Source, TokenDataset, TokenLoader
from gristmill.reader.shuffle import Order

SEQUENCES, INDICES = 10**12, 1024
STEP = 10**6


def indices_seconds() -> float:
    """Return CPU seconds from nothing to the first indices; to be called first in a process."""
    start = time.process_time()
    found = Order(SEQUENCES, (0, 0), "global").run(0, INDICES)
    spent = time.process_time() - start
    assert len(set(found.tolist())) == INDICES and int(found.max()) < SEQUENCES
    return spent


def indices_bytes() -> int:
    """Return the memory that the first indices of another order take at most, what is kept of them included."""
    tracemalloc.start()
    Order(SEQUENCES, (1, 0), "global").run(0, INDICES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def mixed(data: Data) -> Mapping[str, Source]:
    """Return two sources with weights that change: the build twice."""
    first = Source(path=data.build, weight={0: 0.7, ROWS * STEP // 2: 0.4})
    return {"first": first, "second": Source(path=data.build, weight=0.3)}


def state_at(path: Path | Mapping[str, Source], step: int) -> dict[str, int]:
    """Return the state of a loader that came to a step."""
    loader = TokenLoader(TokenDataset.open(path, sequence_length=LENGTH), ROWS, prefetch=0)
    loader.seek(step * ROWS)
    return loader.state_dict()


def start_seconds(path: Path | Mapping[str, Source], state: Mapping[str, int] | None) -> float:
    """Return CPU seconds of opening, loading the state if there is one, and the first batch."""
    start = time.process_time()
    loader = TokenLoader(TokenDataset.open(path, sequence_length=LENGTH), ROWS, prefetch=0)
    if state is not None:
        loader.load_state_dict(state)
    next(loader)
    return time.process_time() - start


def resume(path: Path | Mapping[str, Source], rounds: int) -> float:
    """Return what resuming at STEP costs over a cold start: the median over rounds of both."""
    state = state_at(path, STEP)
    start_seconds(path, None), start_seconds(path, state)
    return median(start_seconds(path, state) / start_seconds(path, None) for _ in range(rounds))


def main() -> None:
    """Measure and print."""
    seconds = indices_seconds()
    data, rounds = Data(Path(sys.argv[1])), int(sys.argv[2])
    found = {
        "indices_seconds": seconds,
        "indices_bytes": indices_bytes(),
        "resume": resume(data.build, rounds),
        "resume_mixed": resume(mixed(data), rounds),
        "state_bytes": len(json.dumps(state_at(mixed(data), STEP))),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
