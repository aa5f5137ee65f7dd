"""Runs of whole words: what merges across pieces are learned from (BoundlessBPE).

Reads the batches of a corpus and a vocabulary of merges inside pieces; gives a stream of one id a piece. As a run that occurs
again is kept once with its count, and text between runs not at all, memory is bounded by 4 bytes a word (Schmidt et al. 2026,
arXiv 2604.05192, found that runs can be counted like words).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.progress import Progress
from gristmill.tokenizer.training.corpus import Batch, Corpus
from gristmill.tokenizer.training.stream import Stream
from gristmill.tokenizer.training.words import Words, add
from gristmill.tokenizer.vocabulary import Vocabulary

_NONE = Words(np.zeros(0, np.uint8), np.zeros(1, np.int64), np.zeros(0, np.int64))


def run_stream(corpus: Corpus, vocabulary: Vocabulary, joinable: np.ndarray, progress: Progress) -> Stream:
    """Return the runs of two or more neighbouring pieces that are one joinable token each.

    Args:
        corpus: the texts; a run ends with its document.
        vocabulary: merges inside pieces, and cuts.
        joinable: bool [ids].
        progress: called with the bytes read.
    """
    total, done = corpus.bytes, 0
    held: list[Words] = []
    progress("find runs of words", 0, total, "bytes")
    work = partial(run_finder, vocabulary, joinable)
    for batch, runs in zip(corpus.batches, corpus.run(work, corpus.batches), strict=True):
        held.append(runs)
        # Sums of equal size, as in a merge sort: no run is gone through more than log2(batches) times.
        while len(held) > 1 and len(held[-1]) * 2 > len(held[-2]):
            held[-2:] = [add(held[-2:])]
        done += len(batch.text)
        progress("find runs of words", done, total, "bytes")
    found = add([_NONE, *held])
    ends = found.offsets[1:] // 4
    return Stream(found.text.view(np.int32), ends, found.counts, np.array([0, len(ends)], np.int64))


def run_finder(vocabulary: Vocabulary, joinable: np.ndarray) -> Callable[[Batch], Words]:
    """Return f(batch) -> its runs, as bytes of int32 ids, with how often each occurs."""
    from gristmill.tokenizer.encoding.encoder import Encoder

    cut = open_cutter(vocabulary.cuts)
    inside = Encoder(replace(vocabulary, cuts=()))

    def find(batch: Batch) -> Words:
        begins = np.append(0, cut(batch.text, batch.offsets))
        ids, offsets = inside.encode(batch.text, begins)
        firsts = ids[offsets[:-1]].astype(np.int32)
        fits = (np.diff(offsets) == 1) & joinable[firsts]
        return add([_NONE, _runs(firsts, fits, np.isin(begins[:-1], batch.offsets))])

    return find


def _runs(ids: np.ndarray, fits: np.ndarray, opens: np.ndarray) -> Words:
    """Return each run of `fits` of two or more, once for each time it occurs.

    Args:
        ids: int32 [pieces].
        fits: bool [pieces].
        opens: bool [pieces], the first piece of each document.
    """
    before = np.append(False, fits[:-1]) & ~opens  # goes on a run, if it fits
    behind = np.append((fits & before)[1:], False)  # the next one does
    kept = fits & (before | behind)
    text = np.ascontiguousarray(ids[kept]).view(np.uint8)
    starts = np.flatnonzero((fits & behind & ~before)[kept])
    offsets = np.append(starts, kept.sum()).astype(np.int64) * 4
    return Words(text, offsets, np.ones(len(starts), np.int64))
