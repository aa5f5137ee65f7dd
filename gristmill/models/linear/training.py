"""How a linear model is learned from labelled texts.

Reads texts and their labels; gives a `Model`. One thread goes through the texts in orders that a seed fixes, so the same texts
give the same bytes, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import flat_texts
from gristmill.models.linear.characters import characters
from gristmill.models.linear.file import MOST_LABELS, Features, Model, outputs_of
from gristmill.models.linear.linear import ends_of

LARGEST = 32767

Shown = Callable[[int, float], None]
"""Called after each epoch with the number of epochs done and the mean squared error of the predictions made in it."""


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How the weights are found.

    Args:
        epochs: how often each text is seen.
        rate: of AdaGrad's steps (Duchi et al. 2011).
        decay: how strongly weights are drawn to 0 (L2).
        seed: of the order of texts.
    """

    epochs: int = 5
    rate: float = 0.05
    decay: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; give at least 1")
        if not self.rate > 0:
            raise ValueError(f"rate is {self.rate}; it must be above 0")
        if not self.decay >= 0:
            raise ValueError(f"decay is {self.decay}; it must be at least 0")


def learn(
    texts: pa.StringArray,
    targets: npt.NDArray[np.int32],
    labels: tuple[str, ...],
    features: Features,
    how: Learning,
    shown: Shown = lambda epochs, error: None,
) -> Model:
    """Return a model that tells the labels of texts.

    Args:
        texts: without nulls.
        targets: [texts], the number of each one's label.
        labels: different ones in ascending order, 2 at least.
        features: what of a text is counted.
        how: the weights are found.
        shown: see `Shown`.

    Raises:
        ValueError: fewer than two labels or too many of them, or one that no text has.
    """
    from gristmill.models.linear import kernels

    missing = sorted(set(range(len(labels))) - set(targets.tolist()))
    if not 2 <= len(labels) <= MOST_LABELS or missing:
        few = f"no text has {labels[missing[0]]!r}" if missing else f"{len(labels)} given; there can be 2 to {MOST_LABELS}"
        raise ValueError(f"labels: {few}")
    data, bounds = flat_texts(texts)
    ends = ends_of(data, bounds, features.max_chars)
    outputs, longest = outputs_of(labels), int(np.max(ends - bounds[:-1], initial=0))
    weights, squares = (np.full((1 << features.bits, outputs), value, np.float32) for value in (0.0, 1e-8))
    biases, bias_squares = np.zeros(outputs), np.full(outputs, 1e-8)
    hashes, rows = np.zeros(longest + 2, np.uint64), np.zeros((longest + 2) * features.ngrams, np.uint32)
    for epoch in range(how.epochs):
        error = kernels.train(
            data, bounds[:-1], ends, targets, _order(len(texts), how.seed, epoch),
            characters(features.words, features.lowercase), features.ngrams, 64 - features.bits, how.rate, how.decay,
            weights, squares, biases, bias_squares, hashes, np.zeros((0, 2), np.uint64), rows, np.zeros(outputs),
        )  # fmt: skip
        shown(epoch + 1, error / (len(texts) * outputs))
    unit = float(np.abs(weights).max()) / LARGEST or 1.0
    return Model(features, labels, unit, np.rint(weights / np.float64(unit)).astype(np.int16), biases)


def _order(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the order of texts in an epoch."""
    return np.argsort(mixed(count, seed, epoch), kind="stable")


def mixed(count: int, seed: int, part: int) -> npt.NDArray[np.uint64]:
    """Return numbers without order, uint64 [count]: SplitMix64 (Steele et al. 2014), so that no release of numpy changes them."""
    base = np.uint64((seed * 0x9E3779B97F4A7C15 + part * 0xD1B54A32D192ED03) % 2**64)
    value = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + base
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
