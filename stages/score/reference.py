"""The parameters of reference models: what kind, how large, and on which documents they are counted.

Frozen dataclasses that a config fills; `stages/score/ngram.py` is the model behind `Ngram`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MOST_SLOTS = 2**28  # packed beside the number of a table entry in 64 bits
MOST_ORDER = 8

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curated:
    """The documents that the reference model is counted on: those whose number in `column` is `at_least` this."""

    column: str = "language_score"
    at_least: float = 0.9


@dataclass(frozen=True, kw_only=True)
class Ngram:
    """Interpolated n-gram models, see `stages.score.ngram`.

    `order`: tokens in the longest n-gram. `slots`: entries of the hashed tables of each length (a power of two), 48 bytes each
    for the two models; n-grams that share a slot are counted together. `discount`: taken from each count and given to the
    shorter context, between 0 and 1.
    """

    order: int = 3
    slots: int = 2**20
    discount: float = 0.75
    curated: Curated = field(default_factory=Curated)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.order <= MOST_ORDER:
            raise ValueError(f"order must be from 1 to {MOST_ORDER}, found {self.order}")
        if not 2 <= self.slots <= MOST_SLOTS or self.slots & (self.slots - 1):
            raise ValueError(f"slots must be a power of two from 2 to 2**28 ({MOST_SLOTS}), found {self.slots}")
        if not 0 < self.discount < 1:
            raise ValueError(f"discount must be between 0 and 1, found {self.discount}")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The kind of model that gives the losses."""

    ngram: Ngram = field(default_factory=Ngram)
