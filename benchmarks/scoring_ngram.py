"""Scoring with an n-gram model: tokens per CPU second of ours beside KenLM's Python binding, which reads the same model.

Reads ids made of the words of crawled pages (see `_texts`; `--warc` for more than the examples). Both sides score the same
held-out documents on one thread in this process, with the same n-grams: KenLM through an ARPA file of ours; the greatest
difference of a token is printed too. KenLM's binding has two ways to a score for each token, `full_scores` of a text and
`BaseScore` of one word after the other; both are timed, with texts, bytes and words made beforehand, and the ratio is to the
fastest. Its `score` is printed too: it adds up a text in one call and gives no scores of tokens. Rounds of all take turns, so
that what else the machine does falls on all. Training is beside lmplz where `--lmplz` names its program; else that ratio is
null.

Measured on a core of an AMD EPYC 7003 (Zen 3) that other work kept busy, beside the fastest way of KenLM 0.3 in the same run:

    order 3,   387,107 n-grams (--quick): 14.5 M tokens/s, 7.2x        order 3, 3,363,021 n-grams (another crawl): 17.2 M, 9.3x
    order 3,   983,172 n-grams (examples): 13.8 M, 5.4x; training 2.2x lmplz       order 5, 2,450,279: 14.4 M, 6.2x; training 1.4x

`score`, without scores of tokens, is 3.9 to 5.2 times slower than ours with them. Losses differ by 2e-6 nats at most.

    python -m benchmarks.scoring_ngram [--quick] [--order N] [--warc PATH ...] [--lmplz PROGRAM]
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import resource
import subprocess
import tempfile
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import _datatrove, _table
from benchmarks._texts import ROOT, Texts, read_texts
from benchmarks._turns import Ratio, Turns, calls, ratio, take_turns
from gristmill.models.ngram import store
from gristmill.models.ngram.kneser_ney import FALLBACK, Counts, Model, count, estimate

GOAL, RATE_GOAL, TRAIN_GOAL = 5.0, 5e6, 1.0
QUICK_TOKENS, TOKENS = 300_000, 3_000_000
TURNS = 5

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


class Peer:
    """KenLM with the n-grams of a model, and the ways of its binding to score documents."""

    def __init__(self, model: Model, held: Arrays, folder: Path) -> None:
        kenlm = importlib.import_module("kenlm")
        store.write_arpa(model, folder / "model.arpa")
        self.model, self.state = kenlm.Model(str(folder / "model.arpa")), kenlm.State
        self.lines = sentences(held)
        self.encoded = [line.encode() for line in self.lines]
        self.words = [line.split() for line in self.lines]

    def ways(self) -> dict[str, Callable[[], list[float]]]:
        """Return by name what gives the score of each token, log10."""
        return {"full_scores": self.full_scores, "full_scores of bytes": self.of_bytes, "BaseScore": self.base_score}

    def full_scores(self) -> list[float]:
        """Return what comes from texts."""
        scores: list[float] = []
        for line in self.lines:
            scores.extend([each[0] for each in self.model.full_scores(line, bos=True, eos=False)])
        return scores

    def of_bytes(self) -> list[float]:
        """Return the same from bytes, which spares the binding an encoding, without a loop in Python."""
        scores: list[float] = []
        first = itemgetter(0)
        for line in self.encoded:
            scores.extend(map(first, self.model.full_scores(line, True, False)))
        return scores

    def base_score(self) -> list[float]:
        """Return the same word for word, which makes no tuples."""
        scores: list[float] = []
        put, score, state, after = scores.append, self.model.BaseScore, self.state(), self.state()
        for words in self.words:
            self.model.BeginSentenceWrite(state)
            for word in words:
                put(score(state, word, after))
                state, after = after, state
        return scores

    def sums(self) -> list[float]:
        """Return one score a document."""
        return [self.model.score(line, True, False) for line in self.encoded]


def compare(texts: Texts, limit: int, order: int, lmplz: Path | None, folder: Path) -> _table.Rows:
    """Print the sides beside each other and return their ratios."""
    numbers: dict[bytes, int] = {}
    rest, other = texts.split()
    seen, held = number_words(rest, limit, numbers), number_words(other, limit, numbers)
    made: list[tuple[Counts, Model]] = []

    def train() -> None:
        counts = count(*seen, order=order, vocab_size=len(numbers))
        made[:] = [(counts, estimate(counts, fallback=FALLBACK))]

    train()  # compiles
    trained = take_turns(calls({"gristmill": train}), 1).median("gristmill")
    model = made[0][1]
    grams = sum(len(level.words) for level in model.levels)
    size = store.save(model, folder / "model.arrow")
    score = model.open()
    losses = score(*held)
    _datatrove.find_peers()
    peer = Peer(model, held, folder) if importlib.util.find_spec("kenlm") else None
    ways = peer.ways() if peer else {}
    runs: dict[str, Callable[[], object]] = {"gristmill": lambda: score(*held), **ways, **({"score": peer.sums} if peer else {})}
    taken = take_turns(calls(runs), TURNS)
    peer_trained = lmplz_cpu(lmplz, sentences(seen), order, folder) if lmplz else None
    tokens, ours = len(held[0]), taken.median("gristmill")
    print(f"order {order}, {len(seen[0]):,} tokens of {len(numbers):,} ids, {grams:,} n-grams of {size / grams:.1f} bytes")
    rates = [["gristmill", f"{tokens / ours:,.0f}", "1.0", f"{len(seen[0]) / trained:,.0f}"]]
    for name in list(runs)[1:]:
        seconds, times = taken.median(name), taken.over(name, "gristmill")
        label = f"KenLM {name}" + (" (no scores of tokens)" if name == "score" else "")
        rates.append([label, f"{tokens / seconds:,.0f}", _table.ranged(times), "-"])
    if peer_trained is not None:
        rates.append(["lmplz", "-", "-", f"{len(seen[0]) / peer_trained:,.0f}"])
    print(_table.table(["tokens per CPU second", "scoring", "x less than ours", "training"], rates))
    if peer is None:
        print("kenlm is not installed: no peer; `make bench` builds it")
    for name, way in ways.items():
        print(f"{name}: greatest difference of a token's loss {np.abs(losses + np.array(way()) * math.log(10)).max():.1e} nats")
    return {
        "kenlm_fastest": (_fastest(taken, ways), GOAL),
        "tokens_per_second_of_5m": (tokens / ours / RATE_GOAL, 1.0),
        "lmplz_training": (None if peer_trained is None else peer_trained / trained, TRAIN_GOAL),
    }


def _fastest(taken: Turns, ways: Collection[str]) -> Ratio | None:
    """Return the seconds of the fastest way of each turn over ours."""
    if not ways:
        return None
    fastest = [min(each) for each in zip(*(taken.seconds[name] for name in ways), strict=True)]
    return ratio([theirs / ours for theirs, ours in zip(fastest, taken.seconds["gristmill"], strict=True)])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and the line of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_ngram", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TOKENS:,} tokens; within a minute")
    parser.add_argument("--order", type=int, default=3, help="tokens of the longest n-gram; 3")
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    parser.add_argument("--lmplz", type=Path, metavar="PROGRAM", help="KenLM's estimator")
    arguments = parser.parse_args(argv)
    limit, state = QUICK_TOKENS if arguments.quick else TOKENS, _table.MachineRows()
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as held:
        ratios = compare(read_texts(arguments.warc), limit, arguments.order, arguments.lmplz, Path(held))
    print(state)
    print(_table.closing(ratios))


if __name__ == "__main__":
    main()
