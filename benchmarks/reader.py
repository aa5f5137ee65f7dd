"""The reader's shuffled batches, beside a bare np.memmap with a permutation and the readers of other projects.

Reads nothing; makes random documents, writes them through the `shards` sink and, for the peers, as a flat file of the same
tokens, in a temporary folder. Prints tokens per CPU-second of one process with warm files, and one JSON line of ratios.
For us a batch is tokens and loss mask, for the peers tokens alone.
A peer that cannot be imported is named and skipped: its ratio is null.

    python -m benchmarks.reader [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill import TokenDataset, TopShare
from pipeline.schema import DOCUMENT
from pipeline.stage import Stored
from stages.sink.shards import Shards

LENGTH, ROWS, VOCABULARY = 2048, 16, 50_000

# What the prototype reached over each, in one run; the others' readers are measured where they are installed.
GOALS = {"memmap": 1.9, "litdata": 2.8, "datatrove": 5.6, "datasets": 7.5, "megatron": 33.0, "grain": 42.0, "streaming": 51.0}
MODULES = {
    "litdata": "litdata",
    "datatrove": "torch",  # its dataset is torch's
    "datasets": "datasets",
    "megatron": "megatron.core",
    "grain": "grain",
    "streaming": "streaming",
}

Batches = Iterator[npt.NDArray[Any]]


def document_tables(tokens: int) -> Iterator[pa.Table]:
    """Yield documents of random ids, of lognormal lengths around 600, until there are `tokens`; with an excess a token."""
    random = np.random.default_rng(0)
    metadata = {"vocab_size": str(VOCABULARY), "tokenizer_sha256": "0" * 64, "eos_id": "0"}
    fields = {name: DOCUMENT.field(name) for name in DOCUMENT.names}
    made = 0
    while made < tokens:
        lengths = np.clip(random.lognormal(6.4, 1.0, 2000), 1, 50_000).astype(np.int64)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        ids = random.integers(0, VOCABULARY, int(lengths.sum()), dtype=np.uint16)
        excess = random.normal(size=len(ids)).astype(np.float16)
        rows = len(lengths)
        constant = {"id": "0" * 32, "url": "http://host/", "date": 10**9, "file": "crawl", "offset": 0, "length": 0}
        columns = {name: pa.array([{**constant, "media": "", "text": ""}[name]] * rows, f.type) for name, f in fields.items()}
        lists = (pa.ListArray.from_arrays(offsets, pa.array(ids)), pa.ListArray.from_arrays(offsets, pa.array(excess)))
        extra = [pa.field("input_ids", lists[0].type, metadata=metadata), pa.field("excess", lists[1].type)]
        yield pa.table([*columns.values(), *lists], schema=pa.schema([*fields.values(), *extra]))
        made += len(ids)


def build(folder: Path, tokens: int) -> Path:
    """Write the shards and their manifest into `folder`; return it."""
    sink = Shards()
    stored = []
    for part in sink.open()(document_tables(tokens), folder):
        with part.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size = part.path.stat().st_size
        stored.append(Stored(0, "", part.kind, part.number, part.path.name, sha256, size, part.rows, part.stats))
    assembly = sink.assemble(stored, {"name": "benchmark", "inputs": [], "stages": []})
    for name, content in assembly.files.items():
        (folder / name).write_bytes(content)
    return folder


def flatten(folder: Path, target: Path) -> Path:
    """Write the tokens of a build as one flat file of uint16, as GPT-2-style trainers keep them; return it."""
    with target.open("wb") as out:
        for path in sorted(folder.glob("tokens-*.arrow")):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            for number in range(reader.num_record_batches):
                out.write(reader.get_batch(number).column("input_ids").values.buffers()[1])
    return target


def ours(folder: Path, **options: Any) -> Batches:  # noqa: ANN401  what `batches` and `open` take
    """Yield token arrays of our batches; the mask is made too."""
    select = options.pop("select", None)
    dataset = TokenDataset.open(folder, sequence_length=LENGTH, verify=False, **options)
    return (batch.input_ids for batch in dataset.batches(ROWS, select=select))


def memmap(path: Path, *, as_array: bool) -> Batches:
    """Yield batches of a flat file in the order of a permutation held in memory: stacked slices, or rows of a plain array."""
    tokens: npt.NDArray[Any] = np.memmap(path, dtype=np.uint16, mode="r")
    count = len(tokens) // LENGTH
    random = np.random.default_rng(0)
    table = np.asarray(tokens)[: count * LENGTH].reshape(count, LENGTH) if as_array else None
    while True:
        order = random.permutation(count)
        for first in range(0, count - ROWS + 1, ROWS):
            places = order[first : first + ROWS]
            if table is not None:
                yield table[places]
            else:
                yield np.stack([tokens[place * LENGTH : (place + 1) * LENGTH] for place in places])


def cost(batches: Batches, count: int) -> float:
    """Return CPU seconds per token of the next `count` batches."""
    start = time.process_time()
    for batch in islice(batches, count):
        assert batch.shape == (ROWS, LENGTH)
    return (time.process_time() - start) / (count * ROWS * LENGTH)


def measure(readers: dict[str, Batches], count: int, rounds: int) -> dict[str, float]:
    """Return each reader's median CPU seconds per token, taking turns so that a noisy moment meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in readers}
    for batches in readers.values():
        cost(batches, count)  # warms files and caches
    for _ in range(rounds):
        for name, batches in readers.items():
            found[name].append(cost(batches, count))
    return {name: float(np.median(values)) for name, values in found.items()}


def first_batch(opening: Callable[[], Batches]) -> float:
    """Return seconds from nothing to the first batch."""
    start = time.perf_counter()
    next(opening())
    return time.perf_counter() - start


def skipped(name: str) -> str | None:
    """Return why a peer is not measured, or None for those that are."""
    if name not in MODULES:
        return None
    package = MODULES[name]
    if importlib.util.find_spec(package.split(".")[0]) is None:
        return f"{package} is not installed"
    return f"{package} is installed, but this benchmark does not drive it yet"


def main() -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reader", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds; within a minute")
    quick = parser.parse_args().quick
    tokens, rounds = (40_000_000, 7) if quick else (400_000_000, 25)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "build"
        os.mkdir(folder)
        build(folder, tokens)
        flat = flatten(folder, Path(place) / "flat.bin")
        opening = first_batch(lambda: ours(folder))
        readers = {
            "gristmill": ours(folder),
            "memmap": memmap(flat, as_array=False),
            "memmap_rows": memmap(flat, as_array=True),
            "gristmill int64": ours(folder, dtype="int64"),
            "gristmill + starts": ours(folder, columns=["starts"]),
            "gristmill + top 60%": ours(folder, select=TopShare(keep=0.6)),
        }
        seconds = measure(readers, 400, rounds)
    print(f"{tokens / 1e6:.0f} M tokens, batches of {ROWS} x {LENGTH}, warm files; open to first batch {opening * 1e3:.0f} ms")
    print(f"{'':22}{'Mtok/CPU-s':>11}{'ours / it':>11}{'goal':>6}")
    for name, value in seconds.items():
        aim = f"{GOALS[name]:6.1f}" if name in GOALS else ""
        print(f"{name:22}{1e-6 / value:11.0f}{value / seconds['gristmill']:11.2f}{aim}")
    rows: dict[str, dict[str, float | None]] = {}
    for name, goal in GOALS.items():
        reason = skipped(name)
        rows[name] = {"ratio": None if reason else round(seconds[name] / seconds["gristmill"], 2), "goal": goal}
        if reason:
            print(f"{name:22}{'skipped: ' + reason}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
