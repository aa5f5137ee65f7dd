"""What a stage needs of a model: classifiers of texts, and models that score tokens.

A model has two halves. Its *parameters* are a frozen dataclass that a config fills: cheap to make, to compare and to send to
another process; they name the files and libraries that decide what the model says. `open()` loads it, once a process, and returns
what answers:

    parameters (FastText, CausalLm, ...) --open()--> TextClassifier or TokenScorer --classify() or score()--> flat arrays

An opened model is pure: equal texts give equal bits, whatever stands beside them in a call, in whichever process. So a stage may
hand over a table as it comes, and the model divides it into batches of the size that suits it. No module of `gristmill.models`
imports a heavy library before `open()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.json_values import Plain

Integers = npt.NDArray[np.integer[Any]]
Singles = npt.NDArray[np.float32]


class Parameters(Protocol):
    """What the parameters of every model name that decides the output; a stage repeats it to the machine, for its fingerprint."""

    def files(self) -> tuple[str, ...]:
        """Return the model's files. Raises InputError where they are not there."""
        ...

    def libraries(self) -> tuple[str, ...]:
        """Return the distributions that run it, by the names that pip knows; see `pipeline.stage.Stage.libraries`."""
        ...


# ---- texts ----


@dataclass(frozen=True)
class Classified:
    """What a classifier says of texts.

    Attributes:
        labels: int32 [texts, most], numbers of labels in `TextClassifier.labels`, the best first; -1 where it gave fewer.
        scores: float32 [texts, most], of these labels; NaN beside -1.
    """

    labels: npt.NDArray[np.int32]
    scores: Singles

    def by_label(self, count: int) -> Singles:
        """Return the score of every label, float32 [texts, count], NaN for those that are not among the best.

        Example:
            `classifier.classify(texts, most=len(classifier.labels)).by_label(len(classifier.labels))[:, 0]` is how each text
            scores under the first label.
        """
        out = np.full((len(self.labels), count), np.nan, np.float32)
        rows, ranks = np.nonzero(self.labels >= 0)
        out[rows, self.labels[rows, ranks]] = self.scores[rows, ranks]
        return out


class TextClassifier(Protocol):
    """An opened classifier of texts: language, topic, quality, safety.

    A classifier of one number (a regression of quality) has one label.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that it knows; different ones, in the model's own order."""
        ...

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text and their scores.

        Args:
            texts: without nulls. How much of each is read (`max_chars`) and in which form is a parameter of the model.
            most: labels a text, from 1 to all.

        Raises:
            ValueError: a null among the texts (an empty text is one like any other), or `most` is below 1.
        """
        ...


class TextModel(Parameters, Protocol):
    """Parameters of a classifier of texts."""

    def open(self) -> TextClassifier:
        """Load the model. Raises InputError where it cannot be read."""
        ...


# ---- tokens ----


@dataclass(frozen=True)
class Signals:
    """What a model says of tokens that lie one document after the other.

    Values belong to a token as the target: predicted from those before it in its document.

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
    """Whatever scores tokens."""

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        """Return the signals of these documents.

        Args:
            ids: unsigned [tokens], of the model's own vocabulary.
            bounds: int64 [documents + 1]; document d is ids[bounds[d]:bounds[d + 1]].
        """
        ...


class TokenScorer(Scorer, Protocol):
    """An opened model that scores tokens, and what it is."""

    @property
    def kind(self) -> str:
        """The kind of model, for the metadata of columns: causal_lm, ngram_file."""
        ...

    @property
    def facts(self) -> Mapping[str, Plain]:
        """What the metadata of columns says of the model: JSON. `first_token_id`, `eos_id`: ids that it has, or null."""
        ...

    @property
    def vocab_size(self) -> int:
        """Ids that it knows lie below this."""
        ...

    @property
    def of_build(self) -> bool:
        """Whether its ids are those of the build that it was counted on, so that it comes without a tokenizer."""
        ...

    @property
    def tokenizer(self) -> str | None:
        """Text of the tokenizer.json that its ids are of, or None where it has none."""
        ...


class TokenModel(Parameters, Protocol):
    """Parameters of a model that scores tokens."""

    @property
    def entropy(self) -> bool:
        """Whether it gives entropies."""
        ...

    def open(self) -> TokenScorer:
        """Load the model. Raises InputError where it cannot be read."""
        ...
