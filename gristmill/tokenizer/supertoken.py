"""Supertokens (TokenAdapt, Sharthak et al. 2025, arXiv 2505.09738): BPE in chunks of random length, which know no words.

Reads texts, gives an ordinary BPE vocabulary. To learn merges, each text is cut into chunks of some characters, wherever that
is; a token may so hold a space, several words, or the end of one and the beginning of the next. To encode, a text is one piece
(the authors' code), or those of a split pattern.

Ours differs from the authors' code (Tinycompany-AI/SuperTokenizer) in that the chunks of a document come from its bytes and a
seed, so that they are the same in any order of documents; in that texts are taken as they are (there NFC is applied, and the
seventh of equal characters in a row removed for training); and in that no token is longer than a chunk, where they have 30
characters at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gristmill.tokenizer.bpe import merging
from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.patterns import find_pattern
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.scheme import Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Batch, Corpus
from gristmill.tokenizer.training.rules import Rules
from gristmill.tokenizer.training.stream import Stream
from gristmill.tokenizer.vocabulary import Vocabulary

CHUNKS = (
    (4, 5, 0.044),
    (6, 7, 0.091),
    (8, 9, 0.146),
    (10, 11, 0.171),
    (12, 13, 0.185),
    (14, 15, 0.171),
    (16, 17, 0.146),
    (18, 19, 0.091),
    (20, 21, 0.044),
    (22, 23, 0.011),
)
"""The authors' published weights of lengths; they are near a normal distribution and need not sum to 1."""


@dataclass(frozen=True, kw_only=True)
class SuperToken(Scheme):
    """BPE in chunks of random length.

    `chunks`: shortest length in characters, longest, and how likely a chunk has one of these lengths; the weights of all
        entries are taken relative to their sum.
    `pattern`: a pattern by whose pieces texts are cut as well, to learn and to encode; null, as the authors have it, for none.
    `seed`: of the lengths.
    """

    chunks: tuple[tuple[int, int, float], ...] = CHUNKS
    pattern: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the chunks, the seed and the pattern."""
        super().__post_init__()
        if self.pattern is not None:
            find_pattern(self.pattern, "pattern")
        for least, most, weight in self.chunks:
            if not (1 <= least <= most <= 2**20 and 0 <= weight < float("inf")):
                raise ValueError(
                    "chunks must hold a shortest length of at least 1, a longest of that or more, and a weight of at least 0; "
                    f"found {[least, most, weight]}"
                )
        if not any(weight > 0 for _, _, weight in self.chunks):
            raise ValueError(f"chunks must hold a weight above 0, found {[list(each) for each in self.chunks]}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be from 0 to 2^64 - 1, found {self.seed}")

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        from gristmill.tokenizer.training.merges import learn

        cuts = () if self.pattern is None else (find_pattern(self.pattern, "pattern"),)
        plain = Vocabulary(self.first_tokens(), cuts=cuts, special_tokens=self.special_ids())
        learned = learn(
            self._stream(corpus, plain, progress),
            plain.ordinary(),
            self.vocab_size - len(plain.tokens),
            min_frequency=self.min_frequency,
            rules=Rules(never=plain.names()),
            progress=partial(merging, progress),
        )
        return plain.joined(learned.merges)

    def _stream(self, corpus: Corpus, plain: Vocabulary, progress: Progress) -> Stream:
        """Return the chunks as bytes: few occur twice, so they are not counted first."""
        total, slots = corpus.bytes, 0
        ends: list[np.ndarray] = []
        progress("cut into chunks", 0, total, "bytes")
        for batch, found in zip(corpus.batches, corpus.run(partial(chunker, self), corpus.batches), strict=True):
            ends.append(found + slots)
            slots += len(batch.text)
            progress("cut into chunks", slots, total, "bytes")
        ids = np.empty(slots, np.int32)
        np.take(plain.byte_ids(), np.concatenate([batch.text for batch in corpus.batches]), out=ids)
        every = np.concatenate(ends)
        return Stream(ids, every, None, np.array([0, len(every)], np.int64))


def chunker(scheme: SuperToken) -> Callable[[Batch], np.ndarray]:
    """Return f(batch) -> the end of each chunk, int64 [chunks], positions in its text."""
    cut = None if scheme.pattern is None else open_cutter((find_pattern(scheme.pattern, "pattern"),))
    key = scheme.seed.to_bytes(8, "little")
    lengths = np.concatenate([np.arange(least, most + 1) for least, most, _ in scheme.chunks])
    weights = np.concatenate([np.full(most + 1 - least, weight / (most + 1 - least)) for least, most, weight in scheme.chunks])
    # Thresholds of 32-bit numbers: drawing then takes no floating point.
    limits = np.round(np.cumsum(weights)[:-1] / weights.sum() * 2**32).astype(np.uint64)
    shortest = int(lengths[weights > 0].min())

    def ends_of(text: np.ndarray) -> np.ndarray:
        starts = np.flatnonzero(text & 0xC0 != 0x80)  # of characters
        state = int.from_bytes(hashlib.blake2b(text.tobytes(), digest_size=16, key=key).digest(), "little")
        drawn = np.random.PCG64(state).random_raw(len(starts) // shortest + 1) >> np.uint64(32)
        counts = np.cumsum(lengths[np.searchsorted(limits, drawn, "right")])
        return np.append(starts[counts[counts < len(starts)]], len(text))

    def ends(batch: Batch) -> np.ndarray:
        begins = batch.offsets[:-1].tolist()
        stops = batch.offsets[1:].tolist()
        found = [ends_of(batch.text[begin:stop]) + begin for begin, stop in zip(begins, stops, strict=True)]
        together = np.concatenate(found)
        return together if cut is None else np.union1d(together, cut(batch.text, batch.offsets))

    return ends
