"""A fastText classifier (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification") as a model of texts.

Reads a model's file (.bin, .ftz); gives labels and probabilities. Newlines end what fastText reads, so they become spaces, as
datatrove gives texts to it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.arguments import no_nulls, whole
from gristmill.errors import InputError
from gristmill.models.protocols import Classified

PREFIX = "__label__"


@dataclass(frozen=True, kw_only=True)
class FastText:
    """A fastText classifier in a file.

    `path`: of the model. `max_chars`: characters of a text that it reads, from the beginning; null: all.
    """

    path: str
    max_chars: int | None = None

    def __post_init__(self) -> None:
        """Check what needs no file."""
        check_max_chars(self.max_chars)

    def files(self) -> tuple[str, ...]:
        """Return the path of the model; raises InputError when it is not there."""
        if not os.path.isfile(self.path):
            raise InputError(f"model: {self.path!r} is not a file; give the path of a fastText model (.bin or .ftz)")
        return (self.path,)

    def libraries(self) -> tuple[str, ...]:
        """Return the engine."""
        return ("fasttext-new",)

    def open(self) -> OpenedFastText:
        """Load the model. Raises InputError when the file is not a fastText model."""
        import fasttext_new

        (path,) = self.files()
        try:
            return OpenedFastText(fasttext_new.load_model(path), self.max_chars)
        except ValueError as error:
            raise InputError(f"model: {path!r} is not a fastText model: {error}") from error


def check_max_chars(max_chars: int | None) -> None:
    """Raise ValueError for a number of characters that cannot be."""
    if max_chars is not None and max_chars < 1:
        raise ValueError(f"max_chars is {max_chars}; give at least 1, or leave it out for whole documents")


class _Engine(Protocol):
    """What is asked of fasttext_new, which has no types."""

    labels: list[str]

    def predict_batch(self, lines: list[str], k: int, threads: int) -> tuple[list[list[str]], list[npt.NDArray[np.float32]]]: ...


class OpenedFastText:
    """A loaded fastText classifier: a `TextClassifier`; labels are without the prefix `__label__`."""

    def __init__(self, model: _Engine, max_chars: int | None = None) -> None:
        self._model, self._max_chars = model, max_chars
        self._numbers = {label: number for number, label in enumerate(model.labels)}
        self.labels = tuple(label.removeprefix(PREFIX) for label in model.labels)

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`."""
        no_nulls("texts", texts)
        if self._max_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self._max_chars)
        return self.classify_lines(pc.replace_substring(texts, "\n", " ").to_pylist(), most)

    def classify_lines(self, lines: list[str], most: int = 1) -> Classified:
        """Return the best labels of texts that are one line each already. Raises ValueError where `most` is below 1."""
        most = whole("most", most, 1)
        # One thread: the machine already runs one worker a core.
        names, scores = self._model.predict_batch(lines, k=most, threads=1)
        given = np.arange(most) < np.array([len(row) for row in names], np.int64)[:, None]
        found = Classified(np.full(given.shape, -1, np.int32), np.full(given.shape, np.nan, np.float32))
        found.labels[given] = [self._numbers[name] for row in names for name in row]
        found.scores[given] = np.concatenate([np.zeros(0, np.float32), *scores])
        return found
