"""Losses of a model's tokens moved to our tokens: speed beside numpy and beside offsets in Python; how many are exact.

Reads crawled pages (see `_texts`; `--warc` for more than the examples). Ours are trained on all of them, as a build's tokenizer
is: plain, and with superwords. The models' are trained on half, plain byte-level BPE and SentencePiece's kind with byte fallback;
`--reference` adds those of real models. Losses are random, one thread works, and what comes out of the compiled loops must be
what numpy interpolates, to 1e-9 of a document.

How many tokens are exact depends on the vocabularies, which are small here: ours have words as wholes, and then ends where
theirs do, the larger it is.

Peers: `np.interp` on the cumulative losses of each document, and `np.isin` for what is exact; and a loop over the `offsets`
that the Hugging Face library gives, in characters. Those of tokens that end inside a character overlap, so that its losses
differ where characters have more than one byte; the second table says for how many of our tokens.

    python -m benchmarks.scoring_alignment [--quick] [--warc PATH ...] [--reference TOKENIZER.JSON ...]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from benchmarks import _table
from benchmarks._texts import read_texts
from benchmarks._turns import Ratio, Turns, calls, take_turns
from gristmill.models.align import Tokens, align
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.token_bytes import lengths_of, make_token_bytes, parse_token_bytes, spells, text_of
from gristmill.tokenizer.training.corpus import make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer

QUICK_BYTES, BYTES = 1_500_000, 6_000_000
OURS, THEIRS = 32_000, 8_000
TURNS = 3
EXACT_GOAL, NUMPY_GOAL, OFFSETS_GOAL = 0.9, 4.0, 50.0

Floats = npt.NDArray[np.float64]
Offsets = list[list[tuple[int, int]]]


@dataclass(frozen=True)
class Side:
    """The tokens of all documents under one tokenizer, by bytes, and by the library's offsets."""

    tokens: Tokens
    offsets: Offsets
    prefix: int


def first(texts: Sequence[bytes], limit: int) -> list[bytes]:
    """Return texts of about `limit` bytes."""
    ends = np.cumsum([len(text) for text in texts])
    return list(texts[: int(np.searchsorted(ends, limit)) + 1])


def fallback_bpe(texts: Sequence[bytes]) -> Tokenizer:
    """Return a BPE as SentencePiece makes them: ▁ for spaces and before the text, rare characters as bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=THEIRS, limit_alphabet=1000, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator((line for text in texts for line in text.decode().splitlines()), trainer)
    data = json.loads(tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    return Tokenizer.from_str(json.dumps(data))


def our_side(vocabulary: Vocabulary, texts: Sequence[bytes]) -> Side:
    """Return our tokens."""
    ids, bounds, offsets = _encode(to_tokenizer(vocabulary), texts)
    table = make_token_bytes(vocabulary.ordinary())
    assert text_of(ids, bounds, table)[0].tobytes() == b"".join(texts)
    return Side(Tokens(lengths_of(ids, table), bounds), offsets, 0)


def their_side(tokenizer: Tokenizer, texts: Sequence[bytes]) -> Side:
    """Return a model's tokens."""
    ids, bounds, offsets = _encode(tokenizer, texts)
    table = parse_token_bytes(tokenizer.to_str(), "theirs")
    places = np.cumsum([0, *map(len, texts)])
    assert spells(ids, bounds, table, np.frombuffer(b"".join(texts), np.uint8), places).all()
    return Side(Tokens(lengths_of(ids, table), bounds), offsets, table.prefix)


def _encode(tokenizer: Tokenizer, texts: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Offsets]:
    found = tokenizer.encode_batch([text.decode() for text in texts], add_special_tokens=False)
    ids = np.array([i for each in found for i in each.ids], np.int64)
    return ids, np.cumsum([0, *(len(each) for each in found)]), [each.offsets for each in found]


def with_numpy(ours: Side, theirs: Side, values: npt.NDArray[np.float32]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return what `align` does, one document at a time."""
    moved, exact = np.empty(len(ours.tokens.lengths)), np.empty(len(ours.tokens.lengths), np.bool_)
    spans = zip(pairwise(ours.tokens.bounds.tolist()), pairwise(theirs.tokens.bounds.tolist()), strict=True)
    for (a, b), (c, d) in spans:
        ends = np.concatenate([[0], np.cumsum(ours.tokens.lengths[a:b])])
        others = np.concatenate([[0], np.cumsum(theirs.tokens.lengths[c:d])])
        others = np.maximum(others - (others[-1] - ends[-1]), 0)
        losses = np.concatenate([[0], np.cumsum(values[c:d], dtype=np.float64)])
        moved[a:b] = np.diff(np.interp(ends, others, losses))
        known = np.isin(ends, others)
        exact[a:b] = known[:-1] & known[1:]
    return moved, exact


def with_offsets(ours: Side, theirs: Side, values: list[float]) -> list[float]:
    """Return losses by overlaps of characters, as one writes it over `offset_mapping`."""
    moved = []
    at = 0
    for mine, others in zip(ours.offsets, theirs.offsets, strict=True):
        j = 0
        for begin, end in mine:
            total = 0.0
            while j < len(others) and others[j][1] <= begin:
                j += 1
            k = j
            while k < len(others) and others[k][0] < end:
                left, right = others[k]
                shared = min(end, right) - max(begin, left)
                if shared > 0:
                    total += values[at + k] * shared / (right - left)
                k += 1
            moved.append(total)
        at += len(others)
    return moved


@dataclass(frozen=True)
class Compared:
    """A pair of tokenizers: ours over numpy and over offsets, the share of exact tokens, and 1 where sums are kept."""

    numpy: Ratio
    offsets: Ratio
    share: float
    kept: float


def compare(name: str, ours: Side, theirs: Side, rows: tuple[list[list[str]], list[list[str]]]) -> Compared:
    """Add a pair's rows to the tables; return its figures."""
    values = np.random.default_rng(0).exponential(3, len(theirs.tokens.lengths)).astype(np.float32)
    found = align(ours.tokens, theirs.tokens, values, prefix=theirs.prefix)
    moved, exact = with_numpy(ours, theirs, values)
    by_offsets = np.array(with_offsets(ours, theirs, values.tolist()))
    totals = np.add.reduceat(values.astype(np.float64), theirs.tokens.bounds[:-1])
    kept = np.abs(np.add.reduceat(found.values, ours.tokens.bounds[:-1]) - totals) <= 1e-9 * totals
    room = np.repeat(totals, np.diff(ours.tokens.bounds)) * 1e-9
    good = (
        kept.all() and not found.reasons.any() and (exact == found.exact).all() and (np.abs(moved - found.values) <= room).all()
    )
    wrong = float((np.abs(by_offsets - found.values) > 1e-3).mean())
    lost = float(abs(by_offsets.sum() - totals.sum()) / totals.sum())
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: align(ours.tokens, theirs.tokens, values, prefix=theirs.prefix),
        "numpy": lambda: with_numpy(ours, theirs, values),
        "offsets": lambda: with_offsets(ours, theirs, values.tolist()),
    }
    turns = take_turns(calls(sides), TURNS)
    ratios = _over(turns, "numpy"), _over(turns, "offsets")
    tokens = len(ours.tokens.lengths)
    share = float(found.exact.mean())
    rates = [f"{tokens / turns.median(each) / 1e6:.3g}" for each in sides]
    rows[0].append([name, *rates, *map(_table.ranged, ratios)])
    size = int(ours.tokens.lengths.sum())
    rows[1].append(
        [
            name,
            f"{size / tokens:.2f}",
            f"{size / len(theirs.tokens.lengths):.2f}",
            f"{share:.1%}",
            f"{found.values[found.exact].sum() / found.values.sum():.1%}",
            "yes" if good else "NO",
            f"{wrong:.2%}",
            f"{lost:.1e}",
        ]
    )
    return Compared(*ratios, share, float(good))


def _over(turns: Turns, side: str) -> Ratio:
    found = turns.over(side, "ours")
    assert found is not None
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_alignment", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_BYTES / 1e6} MB of text; within a minute")
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    parser.add_argument("--reference", nargs="+", type=Path, default=[], metavar="PATH", help="a model's tokenizer.json")
    arguments = parser.parse_args(argv)
    state = _table.MachineRows()
    crawl = read_texts(arguments.warc).texts
    texts = first(crawl, QUICK_BYTES if arguments.quick else BYTES)
    corpus, half = make_corpus(crawl), crawl[1::2]
    ours = {name: our_side(SCHEMES[name](vocab_size=OURS).train(corpus), texts) for name in ("bpe", "superbpe")}
    plain = SCHEMES["bpe"](vocab_size=THEIRS).train(make_corpus(half))
    theirs = {"bpe": their_side(to_tokenizer(plain), texts), "byte fallback": their_side(fallback_bpe(half), texts)}
    for path in arguments.reference:
        theirs[path.parent.name or path.stem] = their_side(Tokenizer.from_file(str(path)), texts)
    rows: tuple[list[list[str]], list[list[str]]] = ([], [])
    pairs = {(mine, other): compare(f"{other} -> {mine}", ours[mine], theirs[other], rows) for mine in ours for other in theirs}
    print(f"{sum(map(len, texts)) / 1e6:.1f} MB of text, {len(texts):,} documents; {OURS:,} tokens of ours, {THEIRS:,} of theirs")
    print(_table.table(["M tokens per CPU-s", "gristmill", "numpy", "offsets", "x numpy", "x offsets"], rows[0]))
    print()
    head = ["", "bytes/token", "theirs", "exact", "of the loss", "kept, = numpy", "offsets differ", "and lose"]
    print(_table.table(head, rows[1]))
    closing: dict[str, tuple[Ratio | float | None, float]] = {
        "numpy": (min((pair.numpy for pair in pairs.values()), key=lambda each: each.median), NUMPY_GOAL),
        "offsets_in_python": (min((pair.offsets for pair in pairs.values()), key=lambda each: each.median), OFFSETS_GOAL),
        "conserved": (min(pair.kept for pair in pairs.values()), 1.0),
    }
    for (mine, other), pair in pairs.items():
        closing[f"exact_{other}_to_{mine}".replace(" ", "_")] = (pair.share, EXACT_GOAL)
    print(state)
    print(_table.closing(closing))


if __name__ == "__main__":
    main()
