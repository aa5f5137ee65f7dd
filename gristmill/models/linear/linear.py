"""A linear classifier over hashed n-grams of words, as a model of texts.

Reads a model's file, which `train-classifier` wrote; gives labels and probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.arguments import no_nulls, whole
from gristmill.columns import flat_texts
from gristmill.columns import whole as one_array
from gristmill.errors import InputError
from gristmill.models.linear.characters import characters
from gristmill.models.linear.file import Model, load
from gristmill.models.protocols import Classified, Singles

FILE = "model.bin"
HASHES = 4096  # words hashed before their weights are looked up: 32 kB


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear classifier over hashed n-grams of words, many times as fast as fastText.

    `path`: the folder that `python -m jobs train-classifier` wrote, or the `model.bin` in it. What the model reads of a text, and
    in which form, lies in its file.
    """

    path: str

    def files(self) -> tuple[str, ...]:
        """Return the path of the model; raises InputError when it is not there."""
        path = Path(self.path)
        file = path / FILE if path.is_dir() else path
        if not file.is_file():
            raise InputError(
                f"model: {str(file)!r} is not a file; give the folder that `python -m jobs train-classifier` wrote, or its {FILE}"
            )
        return (str(file),)

    def libraries(self) -> tuple[str, ...]:
        """Return none: all that decides is in the file and here."""
        return ()

    def open(self) -> OpenedLinear:
        """Load the model. Raises InputError when the file is not a linear model."""
        return OpenedLinear(load(Path(self.files()[0])))


class OpenedLinear:
    """A loaded linear classifier: a `TextClassifier`."""

    def __init__(self, model: Model) -> None:
        self.model, self.labels = model, model.labels

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`. A text without a word has none."""
        most = min(whole("most", most, 1), len(self.labels))
        scores = self.probabilities(texts)
        labels = np.argsort(-scores, axis=1, kind="stable")[:, :most].astype(np.int32)
        scores = np.take_along_axis(scores, labels, axis=1)
        return Classified(np.where(np.isnan(scores), np.int32(-1), labels), scores)

    def probabilities(self, texts: pa.StringArray | pa.ChunkedArray) -> Singles:
        """Return the probability of each label, float32 [texts, labels], NaN for a text without a word.

        Raises:
            ValueError: a null among the texts.
        """
        from gristmill.models.linear import kernels

        no_nulls("texts", texts)
        data, bounds = flat_texts(one_array(texts))
        features, outputs = self.model.features, self.model.weights.shape[1]
        scores = np.zeros((len(bounds) - 1, len(self.labels)), np.float32)
        kernels.score(
            data, bounds[:-1], ends_of(data, bounds, features.max_chars), characters(features.words, features.lowercase),
            features.ngrams, 64 - features.bits, self.model.weights, self.model.unit, self.model.biases,
            np.zeros(HASHES, np.uint64), np.zeros((0, 2), np.uint64), np.zeros(outputs, np.int64), np.zeros(outputs), scores,
        )  # fmt: skip
        return scores


def ends_of(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], most: int | None) -> npt.NDArray[np.int64]:
    """Return where what is read of each text ends, int64 [texts]: after `most` characters, or at its end."""
    from gristmill.models.linear import kernels

    if most is None:
        return bounds[1:]
    ends = np.zeros(len(bounds) - 1, np.int64)
    kernels.cut(data, bounds, most, ends)
    return ends
