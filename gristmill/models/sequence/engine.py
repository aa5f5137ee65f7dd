"""An opened classifier of sequences: texts to tokens, tokens to logits, logits to scores.

Reads texts; gives `Classified`. A text that the model gives no number for (NaN, infinity) raises, so that a build
quarantines that one document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from gristmill.arguments import no_nulls, whole
from gristmill.json_values import Plain
from gristmill.models.protocols import Classified, Singles
from gristmill.models.sequence.body import Body, make_body
from gristmill.models.sequence.loading import Loaded
from gristmill.models.sequence.tokens import Cutter

Scores = Literal["logits", "sigmoid", "softmax"]
Int64 = npt.NDArray[np.int64]


class OpenedSequence:
    """A loaded classifier of sequences: a `TextClassifier`.

    Args:
        loaded: the model.
        max_tokens: of a text that it reads, those that its tokenizer puts around included.
        pack: tokens of a row, at least `max_tokens`.
        scores: what becomes of logits.

    Attributes:
        labels: as the model's config names them.
        body: how it is run; its `why` says why not packed, if so.
    """

    def __init__(self, loaded: Loaded, max_tokens: int, pack: int, scores: Scores) -> None:
        self.labels = loaded.labels
        self._scores, self._sha256 = scores, loaded.sha256
        self._cutter = Cutter(loaded.tokenizer, max_tokens)
        self._device = next(loaded.model.parameters()).device
        self.body: Body = make_body(loaded.model, self._device, pack, max_tokens)

    @property
    def facts(self) -> Mapping[str, Plain]:
        """What it is and how it is run, for people: JSON."""
        run = f"a document at a time or padded: {self.body.why}" if self.body.why else "packed"
        return {"sha256": self._sha256, "scores": self._scores, "device": self._device.type, "attention": run}

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`.

        A text has no scores where its tokenizer makes no token of it: an empty one, where nothing stands around texts.

        Raises:
            ValueError: also where the model gives no finite number for a text; says for which.
        """
        no_nulls("texts", texts)
        most = min(whole("most", most, 1), len(self.labels))
        logits = self._logits(*self._cutter.encode(texts.to_pylist()))
        scores = _scores(logits, self._scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        best = np.take_along_axis(scores, order, 1)
        return Classified(np.where(np.isnan(best), -1, order).astype(np.int32), best)

    def _logits(self, ids: Int64, bounds: Int64) -> Singles:
        """Return float32 [texts, labels], NaN for texts without tokens."""
        out = np.full((len(bounds) - 1, len(self.labels)), np.nan, np.float32)
        some = np.flatnonzero(np.diff(bounds))
        for documents, found in self.body.run(ids, bounds[np.r_[some, len(bounds) - 1]]):
            out[some[documents]] = found.float().cpu().numpy()
        odd = np.flatnonzero(~np.isfinite(out[some]).all(axis=1))
        if len(odd):
            long = int(np.diff(bounds)[some[odd[0]]])
            raise ValueError(
                f"the model gave no finite number for {len(odd)} of {len(some)} texts, the first of {long} tokens; use float32"
            )
        return out


def _scores(logits: Singles, scores: Scores) -> Singles:
    """Return what becomes of logits [texts, labels]: float32, computed in float64."""
    values = logits.astype(np.float64)
    if scores == "sigmoid":
        values = 1 / (1 + np.exp(-values))
    elif scores == "softmax":
        powers = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
        values = powers / powers.sum(axis=1, keepdims=True)
    return values.astype(np.float32)


def scores_of(loaded: Loaded) -> Scores:
    """Return what a model's logits are turned to where nothing else is said: as its config's `problem_type` says.

    A regression's and that of a single label are numbers already; several labels that exclude each other have probabilities that
    sum to 1 (softmax), those that do not (`multi_label_classification`) each its own.
    """
    if loaded.problem == "multi_label_classification":
        return "sigmoid"
    return "logits" if loaded.problem == "regression" or len(loaded.labels) == 1 else "softmax"


def largest_pack(device: torch.device) -> int:
    """Return the tokens of a row where nothing is said: what a CPU's caches hold, or what fills a GPU."""
    return 2048 if device.type == "cpu" else 32_768
