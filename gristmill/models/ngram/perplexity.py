"""How surprising a text is to an n-gram model: its perplexity, as a classifier of texts with one label.

Reads an n-gram model that `store.py` wrote and the tokenizer whose ids it was counted on; gives exp of the mean loss a token.
That is 10^(−log10 p / tokens), CCNet's number (Wenzek et al. 2020, "CCNet: Extracting High Quality Monolingual Datasets from Web
Crawl Data") with tokens in place of its pieces and the document in place of its lines: CCNet sums the losses of a document's
lines, each read from a start to an end, and divides by the pieces and ends. Here there are no ends, and a line is read after
those before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.arguments import no_nulls, whole
from gristmill.errors import InputError
from gristmill.models.ngram.file import NgramFile, OpenedNgram
from gristmill.models.protocols import Classified

if TYPE_CHECKING:
    from gristmill.tokenizer.tokenizer import Tokenizer

LABEL = "perplexity"


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """The perplexity of a text under an n-gram model: low for texts like those that the model was counted on.

    exp of the mean of −ln p over a text's tokens, each after those before it; null for a text without tokens. It depends on the
    tokenizer: compare only numbers of one model.

    `model`: path of an n-gram model over the tokenizer's ids. `tokenizer`: its file or folder, as `encode` takes it. `max_chars`:
    characters of a text that it reads, from the beginning; null: all.
    """

    model: str
    tokenizer: str
    max_chars: int | None = None

    def __post_init__(self) -> None:
        """Check what needs no file."""
        for name in ("model", "tokenizer"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: give its path")
        if self.max_chars is not None and self.max_chars < 1:
            raise ValueError(f"max_chars is {self.max_chars}; give at least 1, or leave it out for whole documents")

    def files(self) -> tuple[str, ...]:
        """Return the model and the tokenizer's file. Raises InputError where one is not there."""
        from gristmill.tokenizer.tokenizer_file import find_file

        return (*NgramFile(ngram_file=self.model).files(), str(find_file(self.tokenizer)))

    def libraries(self) -> tuple[str, ...]:
        """Return what reads the tokenizer."""
        return ("tokenizers",)

    def open(self) -> OpenedPerplexity:
        """Load both. Raises InputError where one cannot be read, or the model counts another number of ids."""
        from gristmill.tokenizer.tokenizer import Tokenizer

        opened, tokenizer = NgramFile(ngram_file=self.model).open(), Tokenizer.open(self.tokenizer)
        if opened.vocab_size != tokenizer.vocab_size:
            raise InputError(
                f"model {self.model!r}: knows {opened.vocab_size} ids, the tokenizer {self.tokenizer!r} has "
                f"{tokenizer.vocab_size}; give the tokenizer whose ids it was counted on"
            )
        return OpenedPerplexity(opened, tokenizer, self.max_chars)


class OpenedPerplexity:
    """A loaded model with its tokenizer: a `TextClassifier` of one label, whose score is the perplexity."""

    labels = (LABEL,)

    def __init__(self, model: OpenedNgram, tokenizer: Tokenizer, max_chars: int | None = None) -> None:
        self._model, self._tokenizer, self._max_chars = model, tokenizer, max_chars

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the perplexity of each text; see `TextClassifier.classify`.

        Raises:
            ValueError: also where some part of a text becomes no token.
        """
        no_nulls("texts", texts)
        whole("most", most, 1)
        if self._max_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self._max_chars)
        try:
            ids, bounds = self._tokenizer.encode(texts)
        except InputError as error:  # of one text, which a build quarantines: no mistake of the model's files
            raise ValueError(str(error)) from error
        lengths = np.diff(bounds)
        some = lengths > 0
        scores = np.full((len(lengths), 1), np.nan, np.float32)
        losses = self._model.score(ids, bounds).nll.astype(np.float64)
        if some.any():
            scores[some, 0] = np.exp(np.add.reduceat(losses, bounds[:-1][some]) / lengths[some])
        return Classified(np.where(some, 0, -1).astype(np.int32)[:, None], scores)
