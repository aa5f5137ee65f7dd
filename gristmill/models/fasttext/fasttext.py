"""A fastText classifier (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification") as a model of texts.

Reads a model's file (.bin, .ftz); gives labels and their scores, those of fastText itself, from loops of our own.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.arguments import no_nulls, one_of, whole
from gristmill.columns import flat_texts
from gristmill.columns import whole as one_array
from gristmill.errors import InputError
from gristmill.models.fasttext.form import MANIFEST, MODEL, Form, Newlines, check_bytes, check_max_chars, settled
from gristmill.models.protocols import Classified

TEXTS = 1024  # at a time, so that scores of many labels take little memory


@dataclass(frozen=True, kw_only=True)
class FastText:
    """A fastText classifier in a file, and the form in which it is given texts: the one that it was trained on.

    `path`: of the model (`.bin`, `.ftz`), or of the folder that `python -m jobs train-classifier` wrote, whose manifest has the
    form; what is given beside it must be the same. `max_chars`: characters of a text that it reads, from its start; null: all.
    `newlines`: a newline ends what fastText reads, so each becomes a `space` (null: this), or `nothing`, which glues the words
    around it. `lowercase`: read the text in lower case; null: as it is. `trailing_newline`: put a newline behind the text, as
    fastText's Python package and its command line do (null: this, too); it is a word of its own to the model (`</s>`) and moves
    every score a little.

    | like | `newlines` | `lowercase` |
    |---|---|---|
    | NeMo Curator, FineWeb's language filter | `space` | `false` |
    | datatrove's FastTextClassifierFilter | `nothing` | `false` |
    | FineWeb2-HQ | `nothing` | `true` |
    """

    path: str
    max_chars: int | None = None
    newlines: Newlines | None = None
    lowercase: bool | None = None
    trailing_newline: bool | None = None

    def __post_init__(self) -> None:
        """Check what needs no file."""
        check_max_chars(self.max_chars)
        if self.newlines is not None:
            one_of("newlines", self.newlines, ("space", "nothing"))

    def form(self) -> Form:
        """Return the form of texts. Raises InputError where the manifest cannot be read or says otherwise."""
        names = ("newlines", "lowercase", "max_chars", "trailing_newline")
        return settled(self.path, {name: getattr(self, name) for name in names})

    def files(self) -> tuple[str, ...]:
        """Return the path of the model, and of the manifest where it has one; raises InputError when it is not there."""
        file = os.path.join(self.path, MODEL) if os.path.isdir(self.path) else self.path
        if not os.path.isfile(file):
            raise InputError(f"model: {file!r} is not a file; give the path of a fastText model (.bin or .ftz)")
        return (file,) if file == self.path else (file, os.path.join(self.path, MANIFEST))

    def libraries(self) -> tuple[str, ...]:
        """Return that Python puts texts into lower case; all else is our own."""
        return ("python",) if self.form().lowercase else ()

    def open(self) -> OpenedFastText:
        """Load the model.

        Raises InputError when the file is not a fastText classifier, or its manifest says another form or other bytes.
        """
        (file, *manifest), form = self.files(), self.form()
        if manifest:
            check_bytes(file, *manifest)
        return OpenedFastText(file, form)


class OpenedFastText:
    """A loaded fastText classifier: a `TextClassifier`; labels are without the prefix `__label__`.

    Of labels with equal scores the one that comes later in the model is the better one, as in fastText.
    """

    def __init__(self, path: str, form: Form) -> None:
        from gristmill.models.fasttext.engine import Engine
        from gristmill.models.fasttext.file import read

        contents = read(path)
        self.labels = contents.labels
        self._engine, self._form = Engine(contents), form
        self._lock = threading.Lock()  # of what the engine remembers

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`."""
        no_nulls("texts", texts)
        most = whole("most", most, 1)
        array = one_array(texts)
        parts = [self._classified(array.slice(start, TEXTS), most) for start in range(0, max(1, len(array)), TEXTS)]
        return Classified(np.concatenate([part.labels for part in parts]), np.concatenate([part.scores for part in parts]))

    def _classified(self, texts: pa.StringArray, most: int) -> Classified:
        data, bounds = flat_texts(self._form.apply(texts))
        with self._lock:
            scores = self._engine.scores(data, bounds, ended=self._form.trailing_newline, best_only=most == 1)
        return best_of(scores, most)


def best_of(scores: npt.NDArray[np.float32], most: int) -> Classified:
    """Return the best labels of each text, of float32 [texts, labels], NaN where there is no score."""
    count = min(most, scores.shape[1])
    backwards = np.where(np.isnan(scores), np.float32(-1), scores)[:, ::-1]
    order = backwards.argmax(axis=1)[:, None] if count == 1 else np.argsort(-backwards, axis=1, kind="stable")[:, :count]
    found = Classified(np.full((len(scores), most), -1, np.int32), np.full((len(scores), most), np.nan, np.float32))
    found.labels[:, :count] = scores.shape[1] - 1 - order
    found.scores[:, :count] = np.take_along_axis(scores, found.labels[:, :count].astype(np.int64), axis=1)
    found.labels[np.isnan(found.scores)] = -1
    return found
