"""The kinds of models that `classify` takes, and which columns of a model's scores a config asks for.

Reads what a model says of texts (`Classified`); gives columns. A new kind is a class of one field here, named in `AnyModel`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import InputError
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.linear.linear import Linear
from gristmill.models.ngram.perplexity import Perplexity
from gristmill.models.protocols import TextClassifier, TextModel
from gristmill.models.sequence.parameters import SequenceClassifier
from pipeline.resources import Resources

NOT_IN_NAMES = re.compile("[^a-z0-9]+")
SHOWN = 20  # labels in a message


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Which of a model's scores become columns: of one `label`, of several `labels`, or the `best` label and its score.

    Of a model with one label (a regression) there is nothing to say.
    """

    label: str | None = None
    labels: tuple[str, ...] = ()
    best: bool = False

    def __post_init__(self) -> None:
        """Check that one way is asked for, and that columns have different names."""
        ways = [name for name in ("label", "labels", "best") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{ways[1]} stands beside {ways[0]}; give one of label, labels and best")
        names = [suffix(label) for label in self.labels]
        for at, name in enumerate(names):
            if not name or name in names[:at]:
                same = f"as {self.labels[names.index(name)]!r} does" if name else "which has no letter or digit"
                raise ValueError(f"labels: {self.labels[at]!r} becomes the end of a column's name {name!r}, {same}; leave it out")

    def model(self) -> TextModel:
        """Return the model's parameters."""
        raise NotImplementedError

    def resources(self) -> Resources | None:
        """Return what processes of its own hold, where the model needs such; see `Stage.resources`."""
        return None

    def adds(self, name: str) -> Mapping[str, pa.DataType]:
        """Return the columns that a model of this name gives."""
        if self.labels:
            return {f"{name}_{suffix(label)}": pa.float32() for label in self.labels}
        return ({f"{name}_label": pa.string()} if self.best else {}) | {name: pa.float32()}

    def check(self, name: str, known: tuple[str, ...]) -> None:
        """Raise InputError where what is asked for does not fit the labels that the model knows."""
        some = ", ".join(known[:SHOWN]) + (f", ... ({len(known)} labels)" if len(known) > SHOWN else "")
        for label in (*self.labels, *([] if self.label is None else [self.label])):
            if label not in known:
                raise InputError(f"models: {name!r} has no label {label!r}; its labels are {some}")
        if not (self.label is not None or self.labels or self.best or len(known) == 1):
            raise InputError(f"models: {name!r} has several labels ({some}); say whose score is wanted: label, labels or best")

    def columns(self, opened: TextClassifier, texts: pa.ChunkedArray) -> list[pa.Array]:
        """Return the columns of `adds`, in its order; null where the model has no score."""
        if self.best:
            found = opened.classify(texts)
            numbers, scores = found.labels[:, 0], found.scores[:, 0]
            return [pa.array(opened.labels, pa.string()).take(pa.array(numbers, mask=numbers < 0)), _nullable(scores)]
        scores = opened.classify(texts, most=len(opened.labels)).by_label(len(opened.labels))
        wanted = self.labels or (opened.labels[0] if self.label is None else self.label,)
        return [_nullable(scores[:, opened.labels.index(label)]) for label in wanted]


@dataclass(frozen=True, kw_only=True)
class FastTextModel(Asked):
    """A fastText classifier, and which of its scores become columns."""

    fasttext: FastText

    def model(self) -> TextModel:
        """Return the model's parameters."""
        return self.fasttext


@dataclass(frozen=True, kw_only=True)
class LinearModel(Asked):
    """A linear classifier, and which of its scores become columns."""

    linear: Linear

    def model(self) -> TextModel:
        """Return the model's parameters."""
        return self.linear


@dataclass(frozen=True, kw_only=True)
class SequenceModel(Asked):
    """A classifier of sequences, and which of its scores become columns. It is opened once a GPU."""

    sequence: SequenceClassifier

    def model(self) -> TextModel:
        """Return the model's parameters."""
        return self.sequence

    def resources(self) -> Resources:
        """Return that it has processes of its own, with GPUs unless it is to run on CPUs."""
        return Resources(gpus=0.0 if self.sequence.device == "cpu" else None)


@dataclass(frozen=True, kw_only=True)
class PerplexityModel(Asked):
    """How surprising a text is to an n-gram model."""

    perplexity: Perplexity

    def model(self) -> TextModel:
        """Return the model's parameters."""
        return self.perplexity


AnyModel = FastTextModel | LinearModel | SequenceModel | PerplexityModel


def suffix(label: str) -> str:
    """Return what a label is in the name of a column: small letters and digits, and `_` for all else: eng_latn of eng_Latn."""
    return NOT_IN_NAMES.sub("_", label.lower()).strip("_")


def _nullable(scores: npt.NDArray[np.float32]) -> pa.Array:
    return pa.array(scores, pa.float32(), from_pandas=True)
