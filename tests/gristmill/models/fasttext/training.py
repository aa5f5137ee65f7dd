"""Small fastText classifiers of random shapes, trained on random words, and texts to ask them about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = ["a", "b", "c", "é", "ß", "я", "漢", "字", "👩", "<", ">", "_"]
SPACES = [" ", "  ", "\t", "\v", "\f", "\r", "\0", " \n ", "\n"]
SPECIAL = ["</s>", "__label__", "__label__0", "__label__new", "\u00a0", "<", "x" * 70, "字" * 40, "ab" * 60]
ROWS_TO_QUANTIZE = 256


@dataclass(frozen=True)
class Shape:
    """What a model is trained with; `cutoff` and what follows: how it is quantized, where it is."""

    loss: str = "softmax"
    dim: int = 5
    labels: int = 3
    minn: int = 0
    maxn: int = 0
    ngrams: int = 1
    bucket: int = 300
    quantized: bool = False
    cutoff: int = 0
    qnorm: bool = False
    qout: bool = False
    dsub: int = 2

    def name(self) -> str:
        return "-".join(str(value) for value in vars(self).values())


def words(rng: np.random.Generator, count: int, longest: int = 9) -> list[str]:
    """Return random words, a fifth of them special."""
    plain = ["".join(rng.choice(LETTERS, rng.integers(1, longest))) for _ in range(count)]
    return [str(rng.choice(SPECIAL)) if rng.random() < 0.05 else word for word in plain]


def train(shape: Shape, seed: int, folder: Path) -> Path:
    """Train a model of this shape; return its file."""
    import fasttext_new

    rng = np.random.default_rng(seed)
    known = words(rng, 400)
    lines = [
        f"__label__{int(rng.integers(shape.labels)) if line >= shape.labels else line} " + " ".join(rng.choice(known, 12))
        for line in range(120)
    ]
    source = folder / f"training-{seed}.txt"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    trained: Mapping[str, Any] = {"loss": shape.loss, "dim": shape.dim, "minn": shape.minn, "maxn": shape.maxn, "minCount": 1}
    more: Mapping[str, Any] = {
        "wordNgrams": shape.ngrams,
        "bucket": shape.bucket,
        "thread": 1,
        "epoch": 3,
        "lr": 0.8,
        "verbose": 0,
    }
    model = fasttext_new.train_supervised(str(source), **trained, **more)
    if shape.quantized:
        model.quantize(
            str(source),
            cutoff=shape.cutoff,
            qnorm=shape.qnorm,
            qout=shape.qout,
            dsub=shape.dsub,
            verbose=0,
            retrain=False,
            thread=1,
        )
    path = folder / f"{seed}.{'ftz' if shape.quantized else 'bin'}"
    model.save_model(str(path))
    return path


def texts(seed: int, count: int = 40) -> list[str]:
    """Return random texts: known words, unknown ones, special ones, white space of all kinds, and none at all."""
    rng, known = np.random.default_rng(seed), words(np.random.default_rng(seed), 400)
    found = ["", " ", "\n", "</s>", "</s> a b", "a </s> b c", "__label__0", "__label__", "字" * 3000, "é" * 65]
    for _ in range(count):
        parts = [*rng.choice(known, rng.integers(0, 20)), *words(rng, int(rng.integers(0, 8)), 30)]
        rng.shuffle(parts)
        found.append("".join(f"{part}{rng.choice(SPACES)}" for part in parts))
    return found
