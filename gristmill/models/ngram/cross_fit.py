"""Cross-fitting of n-gram models: documents in folds, and a model a fold that has not seen the documents of that fold.

Reads ids of documents and counts; gives folds, the counts to estimate each fold's model from, and the losses of documents, each
under its own fold's model. With one fold there is one model, which has seen all documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.models.ngram.kneser_ney import Counts, merge

FOLD_KEY = b"gristmill.score.fold"

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.uint32]
Losses = Callable[[Any, Any], npt.NDArray[np.float32]]  # what `Model.open` gives


def folds_of(names: Iterable[str], folds: int) -> Ints:
    """Return the fold of each document, int64, by a hash of its id: the same in every build."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=FOLD_KEY).digest() for name in names)
    return (np.frombuffer(digests, "<u8") % np.uint64(folds)).astype(np.int64)


def counts_for(folds: Sequence[Counts], fold: int) -> Counts:
    """Return the counts that documents of this fold are scored with: of all other folds, or of all where there is one only."""
    return merge([each for i, each in enumerate(folds) if i != fold] or list(folds))


def losses_of(models: Sequence[Losses], ids: Ids, bounds: Ints, folds: Ints) -> npt.NDArray[np.float16]:
    """Return the loss of each token under the model of its document's fold.

    Args:
        models: opened, one a fold.
        ids: uint32 [tokens].
        bounds: int64 [documents + 1], from 0.
        folds: int64 [documents].

    Returns:
        float16 [tokens], −ln p in nats; NaN for a document's first token, as nothing comes before it in the format.
    """
    losses, lengths = np.full(len(ids), np.nan, np.float16), np.diff(bounds)
    for fold in np.unique(folds):
        chosen = folds == fold
        here = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
        mine = np.repeat(chosen, lengths)
        losses[mine] = models[fold](ids[mine], here)
    losses[bounds[:-1][lengths > 0]] = np.nan
    return losses
