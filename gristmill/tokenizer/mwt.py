"""Multi-Word Tokenization (MWT, Gee et al. 2023, EMNLP Industry Track, arXiv 2402.09949): frequent n-grams of words as tokens.

Reads texts and a trained tokenizer, gives an ordinary BPE vocabulary: the tokens and merges of the base, then one merge for
each n-gram, which joins the n-gram without its last word with that word. The pre-tokenizer lets pieces span words.

A word is a piece of the base's own pre-tokenizer that is one token and not white space only. What its ids are is found under
the new, wider cut: there base merges may cross what was a cut. The most frequent n-grams of all lengths together are taken;
an n-gram occurs as often as the one with a word more at least, so its own beginning always is a token before it.

Ours differs from the paper's (code: LeonidasY/fast-vocabulary-transfer) in what a word is (there: runs of letters and digits,
or of punctuation, in lower case where the model has it so, of one token or several), and in encoding: merges go by their
rank, the most frequent n-gram first, where the paper replaces the longest n-grams first. A merge sees ids, not words, so it
also joins a token that is only the beginning of a longer word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.cutting.pieces import open_cutter
from gristmill.tokenizer.files import load_base
from gristmill.tokenizer.patterns import PATTERNS
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.scheme import Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Batch, Corpus, normalized
from gristmill.tokenizer.training.ngrams import Text, frequent_ngrams
from gristmill.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Mwt(Scheme):
    """N-grams of words on top of a tokenizer.

    `base`: a tokenizer.json, or the folder of one. `vocab_size` counts its tokens too; its special tokens stay, and no others
        can be named.
    `max_words`: of an n-gram; the shortest has two.
    `patterns`: how text is cut when words may be joined: as in stage 2 of SuperBPE's `paper` or its authors' `repo`.
    """

    base: str
    max_words: int = 4
    patterns: Literal["paper", "repo"] = "repo"

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.max_words < 2:
            raise ValueError(f"max_words must be at least 2, found {self.max_words}")

    @property
    def start(self) -> str:
        """See `Scheme.start`."""
        return self.base

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        base = load_base(self.base, self.eos_token)
        corpus = normalized(corpus, base.normalizer)
        if self.vocab_size <= base.size:
            raise InputError(
                f"vocab_size must be above the {base.size} tokens of base {self.base!r}, to which n-grams are added; "
                f"found {self.vocab_size}"
            )
        wide = replace(base, cuts=(PATTERNS[f"superbpe_{self.patterns}_stage2"],), ignore_merges=False)
        held = self._read(corpus, base, wide, progress)
        ngrams = frequent_ngrams(held, self.max_words, self.vocab_size - base.size, self.min_frequency, progress)
        return add_ngrams(wide, ngrams, self.vocab_size)

    def _read(self, corpus: Corpus, base: Vocabulary, wide: Vocabulary, progress: Progress) -> list[Text]:
        total, done = corpus.bytes, 0
        held: list[Text] = []
        progress("find words", 0, total, "bytes")
        for batch, words in zip(corpus.batches, corpus.run(partial(word_finder, base, wide), corpus.batches), strict=True):
            held.append(words)
            done += len(batch.text)
            progress("find words", done, total, "bytes")
        return held


def word_finder(base: Vocabulary, wide: Vocabulary) -> Callable[[Batch], Text]:
    """Return f(batch) -> its text in ids of `wide`; words are pieces of `base`, neighbours are in one piece of `wide`."""
    from gristmill.tokenizer.encoding.encoder import Encoder

    cut_words, cut = open_cutter(base.cuts), open_cutter(wide.cuts)
    inside = Encoder(replace(wide, cuts=()))
    lengths = np.array([len(token) for token in wide.tokens], np.int64)
    solid = np.array([bool(token.decode(errors="replace").strip()) for token in wide.tokens], np.bool_)

    def find(batch: Batch) -> Text:
        ids, offsets = inside.encode(batch.text, np.append(0, cut(batch.text, batch.offsets)))
        places = np.append(0, np.cumsum(lengths[ids]))
        edges = np.append(0, cut_words(batch.text, batch.offsets))
        # A token is a piece if it begins at one's edge and ends at the next.
        first = np.searchsorted(edges, places[:-1])
        following = edges[np.minimum(first + 1, len(edges) - 1)]
        word = (edges[first] == places[:-1]) & (following == places[1:]) & solid[ids]
        joins = np.append(word[:-1] & word[1:], False)
        joins[offsets[1:] - 1] = False  # the last of a piece
        return Text(ids.astype(np.int32), joins)

    return find


def add_ngrams(wide: Vocabulary, ngrams: Sequence[tuple[int, ...]], size: int) -> Vocabulary:
    """Return the vocabulary with one more merge for each n-gram, until it has `size` tokens.

    Args:
        wide: the tokens and merges of the base.
        ngrams: ids of words; the beginning of each stands before it.
        size: of the vocabulary.
    """
    tokens, made = list(wide.tokens), dict[tuple[int, ...], int]()
    merges = dict[tuple[int, int], int]()
    special = set(wide.special_tokens.values())
    known = {token: i for i, token in reversed(list(enumerate(wide.tokens))) if token and i not in special}
    for words in ngrams:
        if len(tokens) == size:
            break
        left, right = made.get(words[:-1], words[0]), words[-1]
        # Two n-grams may spell the same, where a pattern cuts one text in two ways: then they are one token.
        made[words] = merges[left, right] = known.setdefault(tokens[left] + tokens[right], len(tokens))
        if made[words] == len(tokens):
            tokens.append(tokens[left] + tokens[right])
    further = np.array([(left, right, token) for (left, right), token in merges.items()], np.int32).reshape(-1, 3)
    return wide.joined(further)
