"""What a reference model says of tokens: the loss of each and how uncertain the model was; and the columns that keep it.

A model is frozen parameters with `open()`, which loads it once a process and returns a `Scorer`. Values belong to a token as the
target: predicted from those before it in its document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Signals:
    """What a model says of tokens that lie one document after the other.

    Attributes:
        nll: float32 [tokens], −ln p of each, in nats; NaN where nothing predicts it (a document's first token, unless the model
            puts one before it) and for all tokens of a document in `errors`.
        entropy: float32 [tokens], of the distribution that the token was drawn from, in nats, NaN as there; None for models
            that cannot tell it at a reasonable price.
        errors: number of a document → why it has no values, for people; such a document is quarantined.
    """

    nll: Singles
    entropy: Singles | None = None
    errors: Mapping[int, str] = field(default_factory=dict)


class Scorer(Protocol):
    """An opened model. Pure: equal documents give equal bits, whatever stands beside them in a call."""

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        """Return the signals of these documents.

        Args:
            ids: unsigned [tokens], of the model's own vocabulary.
            bounds: int64 [documents + 1]; document d is ids[bounds[d]:bounds[d + 1]].
        """
        ...


def loss_column(model: str) -> str:
    """Return the column of a model's losses: list<float16>, in nats."""
    return f"ref_loss.{model}"


def entropy_column(model: str) -> str:
    """Return the column of a model's entropies: list<float16>, in nats."""
    return f"entropy.{model}"


def exact_column(model: str) -> str:
    """Return the column that says where a token's loss is its model's own, not interpolated: list<bool>."""
    return f"exact.{model}"


def score_column(policy: str) -> str:
    """Return the column of what a policy ranks tokens by: list<float16>."""
    return f"score.{policy}"


def selected_column(policy: str) -> str:
    """Return the column that says which tokens a policy trains on: list<bool>."""
    return f"selected.{policy}"


def weight_column(policy: str) -> str:
    """Return the column of the weights that a soft policy gives tokens in the loss: list<float16>, from 0 to 1."""
    return f"weight.{policy}"
