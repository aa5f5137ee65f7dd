"""BoundlessBPE (Schmidt et al. 2025, arXiv 2504.00178): merges inside pieces, and of two whole pieces across the cut.

Reads texts, gives a vocabulary with two kinds of merges. Once a piece has become one token, it may be joined with the next
piece, if that is one token too and both are words; what comes out may be joined again. At each step the most frequent pair of
either kind is merged, so no stage has to be chosen. A `tokenizer.json` cannot say this: `encoding/whole.py` is the encoder.

The two kinds are learned one after the other and put in order by their counts, which gives the same merges (Schmidt et al.
2026, arXiv 2604.05192): while a piece is not one token yet, each pair in it occurs as often as the piece at least, and so at
least as often as the piece with a neighbour. Of equal counts merges inside pieces come first, then the smallest ids, where
those made inside pieces are smaller than those made across.

Ours differs from the paper's in that no token is deleted again (its PickyBPE step, tau = 0.9), that overlapping pairs all
count, as everywhere here, and in the default of what a word is, see `joins`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from gristmill.tokenizer.bpe import merging
from gristmill.tokenizer.patterns import find_pattern
from gristmill.tokenizer.progress import Progress, silent, under
from gristmill.tokenizer.scheme import Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.training.rules import Rules
from gristmill.tokenizer.training.words import count_words, word_stream
from gristmill.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from gristmill.tokenizer.training.merges import Learned

SEAM = b"\xff"
"""Put into each piece while merges across are learned: no text has this byte, so two pieces never make what is one piece."""


@dataclass(frozen=True, kw_only=True)
class Boundless(Scheme):
    """Merges inside pieces and of whole pieces.

    `pattern`: gpt2, llama3, o200k, superbpe_paper, superbpe_repo, or a regular expression.
    `joins`: what may be joined across a cut: `words`, of letters with their marks, spaces, underscores and apostrophes, with
        one letter at least (the paper's rule; that of its second version also asks for a character before the letter), or
        whatever has a letter (`letters`, the authors' code since 2026).
    `max_words`: a token across cuts has at most so many words; null, as in the paper, for no limit.
    """

    pattern: str = "o200k"
    joins: Literal["words", "letters"] = "words"
    max_words: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges and the pattern."""
        super().__post_init__()
        find_pattern(self.pattern, "pattern")
        if self.max_words is not None and self.max_words < 2:
            raise ValueError(f"max_words must be at least 2, or null for no limit; found {self.max_words}")

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        first = self.first_tokens()
        plain = Vocabulary(first, cuts=(find_pattern(self.pattern, "pattern"),), special_tokens=self.special_ids())
        inside = self._inside(corpus, plain, under("inside pieces", progress))
        across = self._across(corpus, plain.joined(inside.merges), under("across pieces", progress))
        return interleave(plain, inside, across, self.vocab_size)

    def _inside(self, corpus: Corpus, plain: Vocabulary, progress: Progress) -> Learned:
        """Learn merges inside pieces, as many as there would be without any other."""
        from gristmill.tokenizer.training.merges import learn

        return learn(
            word_stream(count_words(corpus, plain.cuts, progress), plain.byte_ids()),
            plain.ordinary(),
            self.vocab_size - len(plain.tokens),
            min_frequency=self.min_frequency,
            rules=Rules(never=plain.names()),
            progress=partial(merging, progress),
        )

    def _across(self, corpus: Corpus, words: Vocabulary, progress: Progress) -> Learned:
        """Learn merges of whole pieces that are tokens of `words`, as many as there would be without any other."""
        from gristmill.tokenizer.training.boundless import run_stream
        from gristmill.tokenizer.training.merges import learn

        special = set(words.special_tokens.values())
        joinable = can_join(words.tokens, self.joins)
        joinable[list(special)] = False
        return learn(
            run_stream(corpus, words, joinable, progress),
            [seamed(token) if joins else b"" for token, joins in zip(words.tokens, joinable, strict=True)],
            self.vocab_size - len(self.first_tokens()),
            min_frequency=self.min_frequency,
            rules=Rules(max_words=self.max_words),
            progress=partial(merging, progress),
        )


def can_join(tokens: Sequence[bytes], joins: Literal["words", "letters"]) -> np.ndarray:
    """Return which tokens may be joined across a cut, bool [tokens]; see `Boundless`."""
    from gristmill.tokenizer.cutting.classes import members

    letters, others = members(r"\p{L}"), members(r"[\p{L}\p{M} _'’]")
    found = np.zeros(len(tokens), np.bool_)
    for i, token in enumerate(tokens):
        try:
            points = np.frombuffer(token.decode().encode("utf-32-le"), np.uint32)
        except UnicodeDecodeError:  # a part of a character
            continue
        found[i] = letters[points].any() and (joins == "letters" or others[points].all())
    return found


def seamed(token: bytes) -> bytes:
    """Return a token with the seam behind its last byte that is no space, where it makes no further word of it."""
    end = len(token.rstrip(b" "))
    return token[:end] + SEAM + token[end:]


def interleave(plain: Vocabulary, inside: Learned, across: Learned, size: int) -> Vocabulary:
    """Return the vocabulary of both kinds of merges in the order of their counts, cut off when it has `size` tokens.

    Args:
        plain: the tokens that both begin with.
        inside: merges inside pieces.
        across: merges of whole pieces; its ids are those of `inside`, then its own.
        size: of the vocabulary.
    """
    final = np.full(len(across.tokens), -1, np.int64)
    final[: len(plain.tokens)] = np.arange(len(plain.tokens))
    tokens, merges, whole = list(plain.tokens), list[tuple[int, ...]](), list[bool]()
    i = j = 0
    while len(tokens) < size and (i < len(inside.merges) or j < len(across.merges)):
        crosses = i == len(inside.merges) or (j < len(across.merges) and across.counts[j] > inside.counts[i])
        left, right, made = (across.merges[j] if crosses else inside.merges[i]).tolist()
        i, j = i + (not crosses), j + crosses
        if final[made] < 0:
            final[made] = len(tokens)
            tokens.append(across.tokens[made].replace(SEAM, b"") if crosses else inside.tokens[made])
        assert final[left] >= 0 and final[right] >= 0, "a piece is one token before it is joined with another"
        merges.append((int(final[left]), int(final[right]), int(final[made])))
        whole.append(crosses)
    ranked = np.array(merges, np.int32).reshape(-1, 3)
    return replace(plain, tokens=tuple(tokens), merges=ranked, whole=np.array(whole, np.bool_))
