"""`dedup_minhash` making its signatures, beside datatrove's signature stage and a plain numpy transcription.

Reads the texts of `examples/crawl` (main content by resiliparse). Prints MB of UTF-8 text per CPU-second of one thread,
what compiling costs, and one JSON line of ratios. datatrove runs as it comes (14 x 8, 5-grams, 64 bits, spaCy's words) and
once more with `str.split` for its words, which shows what is left without spaCy.

    python -m benchmarks.dedup_signatures [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import _table
from benchmarks._turns import calls, take_turns

CRAWL = Path(__file__).parents[1] / "examples" / "crawl"

# The prototype's figures over datatrove's in one run: 247 / 0.69 and 247 / 3.1; the third is the loops' worth over numpy.
GOALS = {"datatrove": 300.0, "datatrove_split": 60.0, "numpy": 20.0}
WHOLE, QUICK = 100_000_000, 800_000  # bytes of text that all sides have, at most
TURNS, QUICK_TURNS = 5, 3


def crawl_texts() -> list[str]:
    """Return the distinct main texts of the example crawl."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    texts: dict[str, None] = {}
    for path in sorted(CRAWL.glob("*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                page = record.reader.read().decode("utf-8", "replace")
                texts[extract_plain_text(page, main_content=True)] = None
    return [text for text in texts if text]


def sample(texts: Sequence[str], size: int) -> list[str]:
    """Return texts from all over the list of about `size` bytes together (all of them if they are less)."""
    step = max(1, sum(len(text) for text in texts) // size)
    return list(texts[::step])


def megabytes(texts: Sequence[str]) -> float:
    """Return the size in UTF-8, in 10^6 bytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


def ours(texts: Sequence[str]) -> Callable[[], object]:
    """Return the stage's work on one table: signatures, band keys and the rows for the exchange."""
    from stages.dedup.minhash import DedupMinhash

    emit = DedupMinhash().open()
    docs = pa.table({"id": [str(i) for i in range(len(texts))], "text": list(texts)})
    return lambda: emit(docs)


def datatrove(texts: Sequence[str], *, split: bool) -> Callable[[], object]:
    """Return datatrove's stage 1 on the same documents, into a folder that goes afterwards."""
    from datatrove.data import Document
    from datatrove.io import get_datafolder
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.logging import logger

    logger.remove()

    class Split:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    step = MinhashDedupSignature(tempfile.gettempdir(), MinhashConfig())
    if split:
        step.word_tokenizer = Split()
    step.get_shingles("its tokenizer is loaded here, not in the time measured")

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            step.output_folder = get_datafolder(folder)
            step.run(iter(Document(text=text, id=str(i)) for i, text in enumerate(texts)))

    return work


def transcription(texts: Sequence[str]) -> Callable[[], object]:
    """Return MinHash as one writes it first: Python sets of word 5-grams, blake2b, numpy for the 112 lanes of 32 bits."""
    word = re.compile(r"\w+")
    drawn = np.random.default_rng(0).integers(0, 2**32, (2, 112), dtype=np.uint32)

    def work() -> None:
        for text in texts:
            words = word.findall(text.lower())
            shingles = {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
            digests = b"".join(hashlib.blake2b(shingle.encode(), digest_size=4).digest() for shingle in shingles)
            hashes = np.frombuffer(digests, np.uint32)
            (hashes[:, None] * (drawn[0] | np.uint32(1)) + drawn[1]).min(axis=0)

    return work


def compiling() -> tuple[float, float]:
    """Return the CPU seconds of loading the compiled loops with an empty cache, and with a full one."""
    code = "import numba, time; t = time.process_time(); import gristmill.minhash.kernels; print(time.process_time() - t)"
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-c", code]
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        cold, cached = (float(subprocess.run(run, env=environment, check=True, capture_output=True).stdout) for _ in range(2))
    return cold, cached


def main() -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedup_signatures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a sample of the texts; within a minute")
    quick = parser.parse_args().quick
    state = _table.MachineRows()
    every = crawl_texts()
    texts = sample(every, QUICK if quick else WHOLE)
    size = megabytes(texts)
    print(f"{len(texts)} of {len(every)} distinct texts, {size:.1f} MB")
    sides = {
        "dedup_minhash": ours(texts),
        "datatrove": datatrove(texts, split=False),
        "datatrove_split": datatrove(texts, split=True),
        "numpy": transcription(texts),
    }
    sides["dedup_minhash"]()  # loads its compiled loops
    found = take_turns(calls(sides), QUICK_TURNS if quick else TURNS)
    ratios = {name: found.over(name, "dedup_minhash") for name in GOALS}
    rows = [["dedup_minhash", f"{size / found.median('dedup_minhash'):.1f}", "", ""]]
    rows += [
        [name, f"{size / found.median(name):.2f}", _table.ranged(ratios[name]), _table.number(goal)]
        for name, goal in GOALS.items()
    ]
    print(_table.table(["", "MB/CPU-s", "ours / it", "goal"], rows))
    cold, cached = compiling()
    print(f"compiled loops: {cold:.1f} CPU-s with an empty cache, {cached:.2f} from the cache (numba's import apart)")
    print(state)
    print(_table.closing({name: (ratios[name], goal) for name, goal in GOALS.items()}))


if __name__ == "__main__":
    main()
