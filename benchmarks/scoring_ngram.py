"""Scoring with an n-gram model: tokens per CPU second of ours beside KenLM's Python binding, which reads the same model.

Reads ids made of the words of crawled pages (see `_texts`; `--warc` for more than the examples). Both sides score the same
held-out documents on one thread in this process, with the same n-grams: KenLM through an ARPA file of ours; the greatest
difference of a token is printed too. KenLM is read through `full_scores`, which gives a score for each token; the texts are
given to it as strings, made beforehand. Training is beside lmplz where `--lmplz` names its program; else that ratio is null.

    python -m benchmarks.scoring_ngram [--quick] [--order N] [--warc PATH ...] [--lmplz PROGRAM]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import _table
from benchmarks._texts import ROOT, Texts, read_texts
from stages.score import kneser_ney_store
from stages.score.kneser_ney import FALLBACK, Counts, Model, count, estimate

GOAL, RATE_GOAL, TRAIN_GOAL = 5.0, 5e6, 1.0
QUICK_TOKENS, TOKENS = 300_000, 3_000_000
ROUNDS = 5

Arrays = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]


def number_words(texts: Texts, limit: int, numbers: dict[bytes, int]) -> Arrays:
    """Return about `limit` words of the texts as ids, and the documents' bounds."""
    ids, bounds = list[int](), [0]
    for text in texts.texts:
        if len(ids) >= limit:
            break
        ids.extend(numbers.setdefault(word, len(numbers)) for word in text.split())
        bounds.append(len(ids))
    return np.array(ids, np.uint32), np.array(bounds, np.int64)


def sentences(documents: Arrays) -> list[str]:
    """Return each document as a line of ids."""
    ids, bounds = documents
    return [" ".join(map(str, ids[bounds[i] : bounds[i + 1]])) for i in range(len(bounds) - 1)]


def cpu(run: Callable[[], object], rounds: int = 1) -> float:
    """Return the CPU seconds of the fastest round."""
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def lmplz_cpu(program: Path, lines: Sequence[str], order: int, folder: Path) -> float:
    """Return the CPU seconds of lmplz on these lines."""
    text = folder / "text"
    text.write_text("".join(f"{line}\n" for line in lines))
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(program), "-o", str(order), "-S", "1G", "-T", str(folder), "--discount_fallback"]
    with text.open() as given, (folder / "lmplz.arpa").open("w") as out:
        subprocess.run(command, stdin=given, stdout=out, stderr=subprocess.DEVNULL, check=True)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


def beside_kenlm(model: Model, held: Arrays, losses: npt.NDArray[np.float32], folder: Path) -> tuple[float, float] | None:
    """Return KenLM's CPU seconds for the held-out documents and the greatest difference of a loss; None where it is missing."""
    if importlib.util.find_spec("kenlm") is None:
        print("kenlm is not installed: no peer")
        return None
    kenlm = importlib.import_module("kenlm")
    kneser_ney_store.write_arpa(model, folder / "model.arpa")
    peer, lines = kenlm.Model(str(folder / "model.arpa")), sentences(held)
    scores: list[float] = []

    def run() -> None:
        scores.clear()
        for line in lines:
            scores.extend([each[0] for each in peer.full_scores(line, bos=True, eos=False)])

    taken = cpu(run, 2)
    return taken, float(np.abs(losses + np.array(scores) * math.log(10)).max())


def compare(texts: Texts, limit: int, order: int, lmplz: Path | None, folder: Path) -> dict[str, tuple[float | None, float]]:
    """Print the sides beside each other and return their ratios."""
    numbers: dict[bytes, int] = {}
    rest, other = texts.split()
    seen, held = number_words(rest, limit, numbers), number_words(other, limit, numbers)
    made: list[tuple[Counts, Model]] = []

    def train() -> None:
        counts = count(*seen, order=order, vocab_size=len(numbers))
        made[:] = [(counts, estimate(counts, fallback=FALLBACK))]

    train()  # compiles
    trained = cpu(train)
    model = made[0][1]
    grams = sum(len(level.words) for level in model.levels)
    size = kneser_ney_store.save(model, folder / "model.arrow")
    score = model.open()
    losses = score(*held)
    taken = cpu(lambda: score(*held), ROUNDS)
    peer = beside_kenlm(model, held, losses, folder)
    peer_trained = lmplz_cpu(lmplz, sentences(seen), order, folder) if lmplz else None
    tokens = len(held[0])
    print(f"order {order}, {len(seen[0]):,} tokens of {len(numbers):,} ids, {grams:,} n-grams of {size / grams:.1f} bytes")
    rates = [["gristmill", f"{tokens / taken:,.0f}", f"{len(seen[0]) / trained:,.0f}"]]
    theirs = "-" if peer is None else f"{tokens / peer[0]:,.0f}"
    rates.append(["KenLM", theirs, "-" if peer_trained is None else f"{len(seen[0]) / peer_trained:,.0f}"])
    print(_table.table(["tokens per CPU second", "scoring", "training"], rates))
    if peer is not None:
        print(f"greatest difference of a token's loss: {peer[1]:.1e} nats")
    return {
        "kenlm_full_scores": (None if peer is None else peer[0] / taken, GOAL),
        "tokens_per_second_of_5m": (tokens / taken / RATE_GOAL, 1.0),
        "lmplz_training": (None if peer_trained is None else peer_trained / trained, TRAIN_GOAL),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and the line of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_ngram", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TOKENS:,} tokens; within a minute")
    parser.add_argument("--order", type=int, default=3, help="tokens of the longest n-gram; 3")
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    parser.add_argument("--lmplz", type=Path, metavar="PROGRAM", help="KenLM's estimator")
    arguments = parser.parse_args(argv)
    limit = QUICK_TOKENS if arguments.quick else TOKENS
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as held:
        ratios = compare(read_texts(arguments.warc), limit, arguments.order, arguments.lmplz, Path(held))
    print(_table.closing(ratios))


if __name__ == "__main__":
    main()
