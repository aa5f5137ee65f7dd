"""Scaffold-BPE (Lian et al. 2024, arXiv 2404.17808): tokens that are little but parts of longer ones leave the vocabulary.

Reads texts, gives a vocabulary whose last ids are scaffold tokens: steps of merging, beyond `vocab_size`, that never come out.
`encoding/scaffold.py` is the encoder, as no `tokenizer.json` can take a token apart again.

A token is marked as scaffold when, after a merge that took it, it occurs less often than the pair or scaffold token that would
be next; it comes back when it is the next itself (algorithm 1 of the paper; `training/choosing.py`).

Ours differs from the paper's in that bytes are never scaffolds, so that all text can be encoded, and in that merging stops at
`min_frequency`. Special tokens keep the first ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from gristmill.tokenizer.bpe import Bpe, merging
from gristmill.tokenizer.patterns import find_pattern
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.scheme import Note, unnoted
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.training.rules import Rules
from gristmill.tokenizer.training.words import count_words, word_stream
from gristmill.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gristmill.tokenizer.training.merges import Learned


@dataclass(frozen=True, kw_only=True)
class ScaffoldBpe(Bpe):
    """BPE inside the pieces of one split pattern, without the tokens that are left over too rarely.

    `pattern`: gpt2, llama3, o200k, superbpe_paper, superbpe_repo, or a regular expression.
    """

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        from gristmill.tokenizer.training.merges import learn

        cuts = (find_pattern(self.pattern, "pattern"),)
        plain = Vocabulary(self.first_tokens(), cuts=cuts, special_tokens=self.special_ids())
        learned = learn(
            word_stream(count_words(corpus, cuts, progress), plain.byte_ids()),
            plain.ordinary(),
            self.vocab_size - len(plain.tokens),
            min_frequency=self.min_frequency,
            rules=Rules(never=plain.names()),
            scaffold=True,
            progress=partial(merging, progress),
        )
        return scaffolds_last(plain, learned)


def scaffolds_last(plain: Vocabulary, learned: Learned) -> Vocabulary:
    """Return the vocabulary of what was learned, numbered anew: scaffold tokens behind all others."""
    tokens = (*plain.tokens, *learned.tokens[len(plain.tokens) :])
    marked = np.zeros(len(tokens), np.bool_)
    marked[learned.merges[learned.scaffold, 2]] = True
    order = np.argsort(marked, kind="stable")
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order))
    return Vocabulary(
        tokens=tuple(tokens[i] for i in order.tolist()),
        merges=numbers[learned.merges],
        cuts=plain.cuts,
        special_tokens=plain.special_tokens,
        scaffolds=int(marked.sum()),
    )
