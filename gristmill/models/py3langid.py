"""The language of texts by py3langid: naive Bayes over byte n-grams, 97 languages (Lui and Baldwin 2012, "langid.py").

Reads the model that the package carries. It knows other things than fastText's models do, words of capitals for one, so it is a
second opinion. Its sums are BLAS's, whose last bits depend on the machine: scores are rounded to thousandths.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from gristmill.arguments import no_nulls, whole
from gristmill.errors import InputError
from gristmill.models.language_text import beginning
from gristmill.models.protocols import Classified

PACKAGE = "py3langid"
LIBRARIES = (PACKAGE, "numpy", "python")  # Python puts texts in capitals into lower case, numpy adds up


class _Engine(Protocol):
    """What is asked of py3langid, which has no types."""

    labels: list[str]

    def rank(self, text: str) -> list[tuple[str, float]]: ...


class OpenedPy3LangId:
    """The loaded model: a `TextClassifier`. A text without a letter has no label."""

    def __init__(self, engine: _Engine, max_chars: int | None) -> None:
        self._engine, self._max_chars = engine, max_chars
        self.labels = tuple(engine.labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`."""
        no_nulls("texts", texts)
        most = min(whole("most", most, 1), len(self.labels))
        found = Classified(np.full((len(texts), most), -1, np.int32), np.full((len(texts), most), np.nan, np.float32))
        for row, text in enumerate(texts.to_pylist()):
            asked = beginning(text, self._max_chars)
            if not any(letter.isalpha() for letter in asked):
                continue
            ranked = self._engine.rank(asked)[:most]
            found.labels[row] = [self._numbers[label] for label, _ in ranked]
            found.scores[row] = [round(score, 3) for _, score in ranked]
        return found


def open_py3langid(max_chars: int | None) -> OpenedPy3LangId:
    """Load the package's model; `max_chars` as in `LanguageId`. Raises InputError where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise InputError(f"model: {PACKAGE} is not installed; pip install {PACKAGE}") from error
    return OpenedPy3LangId(LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True), max_chars)
