"""Ids in one flat array: what the trainer learns merges from.

Reads the batches of a corpus and a vocabulary; each text is cut and encoded where the batches are worked on, and the ids
of all are laid one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.progress import Progress
from gristmill.tokenizer.training.corpus import Batch, Corpus
from gristmill.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Stream:
    """Pieces of ids, one after the other.

    `ids`: int32 [slots], changed in place by training. `ends`: int64 [pieces], where each piece ends; no merge crosses it.
    `weights`: int64 [pieces], how often a piece occurs; None for once each. `groups`: int64 [groups + 1], the number of the
    first piece of each group.
    """

    ids: np.ndarray
    ends: np.ndarray
    weights: np.ndarray | None
    groups: np.ndarray


def encode_stream(corpus: Corpus, vocabulary: Vocabulary, progress: Progress) -> Stream:
    """Return the corpus in ids of this vocabulary, cut where the vocabulary cuts.

    Args:
        corpus: the texts.
        vocabulary: merges and cuts.
        progress: called with the bytes read.
    """
    total, done = corpus.bytes, 0
    ids: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    pieces = np.zeros(len(corpus.groups), np.int64)
    slots = 0
    progress("encode", 0, total, "bytes")
    for batch, (some, cut) in zip(corpus.batches, corpus.run(partial(encoder, vocabulary), corpus.batches), strict=True):
        ids.append(some)
        ends.append(cut + slots)
        slots += len(some)
        pieces[batch.group] += len(cut)
        done += len(batch.text)
        progress("encode", done, total, "bytes")
    return Stream(np.concatenate(ids), np.concatenate(ends), None, np.concatenate([np.zeros(1, np.int64), np.cumsum(pieces)]))


def group_sizes(stream: Stream) -> np.ndarray:
    """Return the ids of each group, int64 [groups]; weights are not counted."""
    starts = np.concatenate([np.zeros(1, np.int64), stream.ends])[stream.groups]
    return np.diff(starts)


def encoder(vocabulary: Vocabulary) -> Callable[[Batch], tuple[np.ndarray, np.ndarray]]:
    """Return f(batch) -> ids, int32 [slots], and the end of each piece in them, int64 [pieces]."""
    from gristmill.tokenizer.encoding.encoder import Encoder

    cut = open_cutter(vocabulary.cuts)
    inside = Encoder(replace(vocabulary, cuts=()))

    def encode(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate([np.zeros(1, np.int64), cut(batch.text, batch.offsets)])
        ids, ends = inside.encode(batch.text, offsets)
        return ids.astype(np.int32), ends[1:]

    return encode
