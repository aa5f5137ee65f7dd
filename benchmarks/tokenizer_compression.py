"""Bytes per token on texts that no tokenizer has seen: SuperBPE with and without quotas, beside plain BPE of the same size.

Reads crawled pages (see `_texts`; `--warc` for more than the examples). All vocabularies are learned on the same nine tenths of
the documents and measured on the last tenth; near duplicates are taken out before. A language is shown when its part of that
tenth has `LEAST_BYTES`; the loss of the worst one is what is compared.

    python -m benchmarks.tokenizer_compression [--quick] [--warc PATH ...] [--size 32000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import _table
from benchmarks._texts import Texts, read_texts
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.encoding.choose import choose_encoder
from gristmill.tokenizer.scheme import Scheme
from gristmill.tokenizer.training.corpus import Corpus, make_corpus
from gristmill.tokenizer.vocabulary import Vocabulary

LEAST_BYTES = 10_000
QUICK_SIZE, SIZE = 8_000, 32_000
GAIN, FAIR_GAIN, LEAST_GAIN = 1.15, 1.12, 0.99
PLAIN, FREE, FAIR = "bpe (llama3 pattern)", "superbpe (paper, 0.8)", "superbpe (paper, 0.8, max_loss -0.02)"


def schemes(size: int) -> dict[str, Scheme]:
    """Return what is compared, plain BPE first."""
    made = {
        PLAIN: ("bpe", {}),
        "bpe (paper's pattern)": ("bpe", {"pattern": "superbpe_paper"}),
        "superbpe (repo, 0.8)": ("superbpe", {"patterns": "repo"}),
        "superbpe (paper, 0.65)": ("superbpe", {"transition": 0.65}),
        FREE: ("superbpe", {}),
        FAIR: ("superbpe", {"max_loss": -0.02}),
    }
    return {name: SCHEMES[scheme](vocab_size=size, **parameters) for name, (scheme, parameters) in made.items()}  # type: ignore[arg-type]


def tokens(vocabulary: Vocabulary, texts: Corpus) -> np.ndarray:
    """Return the tokens of each group, int64 [groups]."""
    encoder = choose_encoder(vocabulary)
    found = np.zeros(len(texts.groups), np.int64)
    for batch in texts.batches:
        found[batch.group] += len(encoder.encode(batch.text, batch.offsets)[0])
    return found


def group_bytes(texts: Corpus) -> np.ndarray:
    """Return the bytes of each group, int64 [groups]."""
    found = np.zeros(len(texts.groups), np.int64)
    for batch in texts.batches:
        found[batch.group] += len(batch.text)
    return found


def corpora(texts: Texts) -> tuple[Corpus, Corpus]:
    """Return what is trained on, and what is held out."""
    training, held = texts.split()
    return make_corpus(training.texts, training.languages), make_corpus(held.texts, held.languages)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and the line of ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenizer_compression", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SIZE} tokens; within a minute")
    parser.add_argument("--warc", nargs="+", type=Path, default=[], metavar="PATH", help=".warc.gz files")
    parser.add_argument("--size", type=int, help="tokens in each vocabulary")
    arguments = parser.parse_args(argv)
    size: int = arguments.size or (QUICK_SIZE if arguments.quick else SIZE)
    training, held = corpora(read_texts(arguments.warc))
    sizes = group_bytes(held)
    shown = sizes >= LEAST_BYTES
    parts = f"trained on {training.bytes / 1e6:.1f} MB, measured on {held.bytes / 1e6:.2f} MB held out"
    print(f"{size:,} tokens; {parts}, {shown.sum()} languages")
    found: dict[str, np.ndarray] = {}
    rows = []
    for name, scheme in schemes(size).items():
        begun = time.process_time()
        vocabulary = scheme.train(training)
        spent = time.process_time() - begun
        found[name] = left = tokens(vocabulary, held)
        loss = np.where(shown, left / found[PLAIN], 0)
        worst = int(loss.argmax())
        gain = found[PLAIN].sum() / left.sum()
        rows.append(
            [
                name,
                f"{held.bytes / left.sum():.3f}",
                f"{gain - 1:+.1%}",
                f"{held.groups[worst]} {loss[worst] - 1:+.1%}",
                f"{spent:.1f}",
            ]
        )
    print(_table.table(["", "bytes per token", "gain", "worst language: more tokens", "training CPU-s"], rows))
    print()
    names = list(found)
    order = [i for i in np.argsort(-sizes) if shown[i]]
    cells = [[held.groups[i], f"{sizes[i] / 1e3:,.0f}", *(f"{sizes[i] / found[name][i]:.3f}" for name in names)] for i in order]
    print(_table.table(["held-out kB; bytes per token", "", *(name.replace("superbpe", "s.") for name in names)], cells))
    plain, free, fair = (found[name] for name in (PLAIN, FREE, FAIR))
    print(
        _table.closing(
            {
                "superbpe": (plain.sum() / free.sum(), GAIN),
                "superbpe_fair": (plain.sum() / fair.sum(), FAIR_GAIN),
                "superbpe_fair_worst_language": ((plain / fair)[shown].min(), LEAST_GAIN),
            }
        )
    )


if __name__ == "__main__":
    main()
