"""Stage 2 of SuperBPE: CPU and memory to learn superwords on top of a tokenizer, beside bpe-continue and the stock trainer.

Reads crawled pages (see `_texts`; `--warc` for more than the examples). Every side is a process of its own on one thread, goes
on from the same merges over the same texts without limits on words, and must learn the same merges. CPU seconds and peak memory
are those of encoding and learning, above the texts that each holds. The stock trainer is given one Unicode scalar for each token.

The second table is ours alone on more text: the same documents drawn again and again with their lines in another order, so
that pairs within lines repeat and those across lines are new.

    python -m benchmarks.tokenizer_train [--quick] [--warc PATH ...] [--grow MB ...]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _table
from benchmarks._texts import ROOT, Texts, read_texts
from benchmarks._turns import Ratio, take_turns
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.files import save
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.training.corpus import make_corpus

SIDES = ("gristmill", "bpe-continue", "scalars")
NAMES = {"gristmill": "gristmill", "bpe-continue": "bpe-continue", "scalars": "stock BpeTrainer on scalars"}
QUICK_BYTES, BYTES = 3_000_000, 40_000_000
QUICK_TURNS, TURNS = 1, 3
QUICK_SIZE, SIZE, SHARE = 8_000, 32_000, 0.625
CPU_GOAL, MEMORY_GOAL = 20.0, 5.0
GROWN_MB, CPU_BUDGET_S, MEMORY_BUDGET = 1000, 150.0, 6e9
MB = 1_000_000


def first_stage(texts: Texts, size: int, folder: Path) -> None:
    """Write the tokenizer that all go on from: merges inside words, pieces as in the paper's stage 2."""
    plain = SCHEMES["bpe"](vocab_size=round(size * SHARE), pattern="superbpe_paper")  # type: ignore[call-arg]
    vocabulary = plain.train(make_corpus(texts.texts))
    save(replace(vocabulary, cuts=(PATTERNS["superbpe_paper_stage2"],)), folder)


def write_texts(texts: Iterator[bytes] | Sequence[bytes], limit: int, folder: Path) -> int:
    """Write texts of about `limit` bytes; return how many bytes they are."""
    ends = [0]
    with (folder / "text.bin").open("wb") as out:
        for text in texts:
            if ends[-1] >= limit:
                break
            out.write(text)
            ends.append(ends[-1] + len(text))
    np.save(folder / "offsets.npy", np.array(ends, np.int64))
    return ends[-1]


def drawn_again(texts: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the documents for ever, each time in another order and with their lines in another order."""
    chance = random.Random(0)
    while True:
        for text in chance.sample(texts, len(texts)):
            lines = text.split(b"\n")
            chance.shuffle(lines)
            yield b"\n".join(lines)


def run(side: str, folder: Path, size: int) -> dict[str, Any]:
    """Return what one side answers."""
    one = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks._training", side, str(folder), str(size)]
    done = subprocess.run(command, env={**os.environ, **one}, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(texts: Texts, size: int, limit: int, turns: int, folder: Path) -> dict[str, tuple[Ratio | float | None, float]]:
    """Print the sides beside each other and return their ratios."""
    total = write_texts(texts.texts, limit, folder)
    answers: dict[str, dict[str, Any]] = {}

    def piece(side: str) -> float:
        answers[side] = run(side, folder, size)
        return float(answers[side]["cpu"])

    found = take_turns({side: partial(piece, side) for side in SIDES}, turns)
    ours = answers["gristmill"]
    rows = [
        [
            NAMES[side],
            f"{found.median(side):.2f}",
            _table.ranged(found.over(side, "gristmill")),
            f"{each['rss'] / MB:,.0f}",
            f"{each['rss'] / ours['rss']:.1f}",
            "yes" if each["merges"] == ours["merges"] else "NO",
        ]
        for side, each in answers.items()
    ]
    print(f"{total / MB:.1f} MB of text, {ours['learned']:,} merges on top of {round(size * SHARE):,} tokens")
    print(_table.table(["", "CPU-s", "ours x", "MB of memory", "ours x", "same merges"], rows))
    same = all(each["merges"] == ours["merges"] for each in answers.values())
    return {
        "bpe_continue": (found.over("bpe-continue", "gristmill"), CPU_GOAL),
        "bpe_continue_memory": (answers["bpe-continue"]["rss"] / ours["rss"], MEMORY_GOAL),
        "same_merges": (float(same), 1.0),
    }


def grow(texts: Texts, size: int, steps: Sequence[int], folder: Path) -> dict[str, tuple[float | None, float]]:
    """Print ours on more and more text, and return how far it is within its budgets for 1 GB, if that was run."""
    rows, closing = [], dict[str, tuple[float | None, float]]()
    for step in steps:
        total = write_texts(drawn_again(texts.texts), step * MB, folder)
        each = run("gristmill", folder, size)
        peak = each["rss"] + total
        rows.append([f"{total / MB:,.0f} MB", f"{each['cpu']:.1f}", f"{each['cpu'] / total * 1e8:.2f}", f"{peak / 1e9:.2f}"])
        if step == GROWN_MB:
            closing["gigabyte_in_150_s"] = (CPU_BUDGET_S / each["cpu"], 1.0)
            closing["gigabyte_in_6_gb"] = (MEMORY_BUDGET / peak, 1.0)
    print()
    print(_table.table(["", "CPU-s", "CPU-s per 100 MB", "GB of memory, texts included"], rows))
    return closing


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenizer_train", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_BYTES // MB} MB of text; within a minute")
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    parser.add_argument(
        "--grow", nargs="*", type=int, metavar="MB", help="sizes of the second table; 100 200 400 1000 unless quick"
    )
    arguments = parser.parse_args(argv)
    size, limit = (QUICK_SIZE, QUICK_BYTES) if arguments.quick else (SIZE, BYTES)
    steps = arguments.grow if arguments.grow is not None else [] if arguments.quick else [100, 200, 400, GROWN_MB]
    texts, state = read_texts(arguments.warc), _table.MachineRows()
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as held:
        folder = Path(held)
        first_stage(texts, size, folder)
        ratios = compare(texts, size, limit, QUICK_TURNS if arguments.quick else TURNS, folder)
        if steps:
            ratios |= grow(texts, size, steps, folder)
    print(state)
    print(_table.closing(ratios))


if __name__ == "__main__":
    main()
