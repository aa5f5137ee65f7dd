"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: Radford et al. 2019).

Reads texts, gives a vocabulary whose ids are: special tokens, the 256 bytes, then one token a merge in rank order. The
merges are those of the trainer in the Hugging Face library; ours takes counts that add up and cannot overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from gristmill.tokenizer.patterns import Pattern, find_pattern
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.scheme import Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.training.merges import learn
from gristmill.tokenizer.training.rules import NO_RULES, Rules
from gristmill.tokenizer.training.words import count_words, word_stream
from gristmill.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Bpe(Scheme):
    """Plain BPE inside the pieces of one split pattern.

    `pattern`: gpt2, llama3, o200k, superbpe_paper, superbpe_repo, or a regular expression.
    """

    pattern: str = "llama3"

    def __post_init__(self) -> None:
        """Check the ranges and the pattern."""
        super().__post_init__()
        find_pattern(self.pattern, "pattern")

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        return train_words(self, [find_pattern(self.pattern, "pattern")], self.vocab_size, corpus, progress)[0]


def train_words(
    scheme: Scheme, cuts: Sequence[Pattern], size: int, corpus: Corpus, progress: Progress, rules: Rules = NO_RULES
) -> tuple[Vocabulary, np.ndarray]:
    """Learn merges inside pieces.

    Args:
        scheme: its special tokens and least frequency are taken.
        cuts: where a text is cut into pieces.
        size: of the vocabulary.
        corpus: the texts.
        progress: called with the bytes read and the merges learned.
        rules: what a joined token must obey.

    Returns:
        The vocabulary, and int64 [merges + 1, groups]: the tokens of each group after so many merges.
    """
    first = scheme.first_tokens()
    plain = Vocabulary(tokens=first, cuts=tuple(cuts), special_tokens=scheme.special_ids())
    stream = word_stream(count_words(corpus, cuts, progress), plain.byte_ids())
    learned = learn(
        stream,
        plain.ordinary(),
        size - len(first),
        min_frequency=scheme.min_frequency,
        rules=replace(rules, never=plain.names()),
        progress=partial(merging, progress),
    )
    return plain.joined(learned.merges), learned.group_tokens


def merging(progress: Progress, done: int, total: int) -> None:
    """Report merges."""
    progress("merge", done, total, "merges")
