"""fastText classifiers run by the package fasttext-new, for `language`, whose processes need no compiled loops then.

Reads a model's file (.bin, .ftz); gives labels and scores: those of `gristmill/models/fasttext/`, to the bit. The latter is 1.4
to 2.5 times as fast on lid.176, and takes a second of CPU to load, six more to be compiled once.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.arguments import no_nulls, whole
from gristmill.errors import InputError
from gristmill.models.protocols import Classified

PREFIX = "__label__"


class _Engine(Protocol):
    """What is asked of fasttext_new, which has no types."""

    labels: list[str]

    def predict_batch(self, lines: list[str], k: int, threads: int) -> tuple[list[list[str]], list[npt.NDArray[np.float32]]]: ...


def load(path: str, max_chars: int | None = None) -> OpenedFastText:
    """Return a model that reads so many characters of a text. Raises InputError when the file is not a fastText model."""
    import fasttext_new

    try:
        return OpenedFastText(fasttext_new.load_model(path), max_chars)
    except ValueError as error:
        raise InputError(f"model: {path!r} is not a fastText model: {error}") from error


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
