"""SuperBPE (Liu et al. 2025, arXiv 2503.13423): BPE inside words first, then across them.

Reads texts, gives one ordinary BPE vocabulary: all merges in rank order, cut as in stage 2. Any engine that loads a
`tokenizer.json` can use it.

Stage 2 goes on from the merges of stage 1: each text is cut into the pieces of stage 2, the merges of stage 1 are applied on
these (not on the pieces of stage 1: runs of spaces would get other ids), and further merges are learned from the ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.bpe import merging, train_words
from gristmill.tokenizer.files import load_base
from gristmill.tokenizer.patterns import PATTERNS, find_pattern
from gristmill.tokenizer.progress import Progress, silent, under
from gristmill.tokenizer.scheme import ALPHABET, Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Corpus, normalized
from gristmill.tokenizer.training.merges import learn
from gristmill.tokenizer.training.rules import NO_QUOTA, Quota, Rules
from gristmill.tokenizer.training.stream import encode_stream, group_sizes
from gristmill.tokenizer.vocabulary import Vocabulary

SHARES = (0.35, 0.5, 0.65, 0.75, 0.85, 0.92)
"""Of the vocabulary, tried as the end of stage 1 when `transition` is auto."""
TRIED_BYTES = 24_000_000
HELD_EVERY = 4  # one document in so many is held out
TURNS = 3  # of fitting the quotas


@dataclass(frozen=True, kw_only=True)
class SuperBpe(Scheme):
    """BPE in two stages.

    `transition`: tokens in the vocabulary when stage 1 ends, or their share of `vocab_size` when it is below 1, or `auto`:
        the share of some that gives the most bytes per token on texts that it was not tried on.
    `patterns`: how each stage cuts text: as in the `paper`, or as in the authors' `repo` since November 2025.
    `max_words`: no token of stage 2 has more words, counted between white space of any kind (spaces, tabs, line ends); null for
        no limit, which turns whole sentences of boilerplate into tokens. `forbid_colon`: none has a colon before white space.
        Both as in the paper's tokenizers, but for tabs and line ends, which these do not look at.
    `max_loss`: no group of documents (such as a language) may end with more than this share of tokens above what plain BPE
        of the same size gives it, below 0: each must gain so much; null lets the groups with the most text take what the
        others have. After parity-aware BPE (Foroutan et al. 2025, arXiv 2508.04796): merges serve the group that is worst off
        until this holds on documents held out, as superwords of few texts fit these better than others. `against`: the
        pattern of that plain BPE.
    `base`: a tokenizer.json, or the folder of one, whose merges stand for stage 1; `vocab_size` counts its tokens too, its
        special tokens stay and no others can be named.
    """

    transition: int | float | Literal["auto"] = 0.8
    patterns: Literal["paper", "repo"] = "paper"
    max_words: int | None = 4
    forbid_colon: bool = True
    max_loss: float | None = None
    against: str = "llama3"
    base: str | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        least = ALPHABET + len(self.special_tokens)
        if self.base is None and self.transition != "auto" and not least <= self.stage1_size <= self.vocab_size:
            raise ValueError(
                f"transition must be 'auto', a share below 1 or a vocabulary size, so that stage 1 ends with {least} to "
                f"{self.vocab_size} (vocab_size) tokens; found {self.transition!r}, which is {self.stage1_size} tokens"
            )
        Rules(max_words=self.max_words)
        find_pattern(self.against, "against")
        if self.max_loss is not None and not -1 < self.max_loss < 1:
            raise ValueError(f"max_loss must be null or a share between -1 and 1, found {self.max_loss}")
        if self.base is not None and self.max_loss is not None:
            raise ValueError("max_loss is nothing to a base: superwords on top of its tokens never cost a language any")

    @property
    def start(self) -> str | None:
        """See `Scheme.start`."""
        return self.base

    @property
    def stage1_size(self) -> int:
        """Return the size of the vocabulary when stage 1 ends."""
        if self.transition == "auto":
            return self.vocab_size
        return round(self.transition * self.vocab_size) if isinstance(self.transition, float) else self.transition

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        if self.base is not None:
            found = self._of_base(self.base)
            return self._across(normalized(corpus, found.normalizer), found, NO_QUOTA, under("stage 2", progress))
        size = self.vocab_size if self.transition == "auto" else self.stage1_size
        words, _ = train_words(self, [PATTERNS[f"superbpe_{self.patterns}"]], size, corpus, under("stage 1", progress))
        plain = None
        if self.max_loss is not None:
            plain, _ = train_words(
                self, [find_pattern(self.against, "against")], self.vocab_size, corpus, under("plain", progress)
            )
            note("plain", plain)
        if self.transition == "auto":
            size = self._best(corpus, words, plain, progress, note)
        start = self._cut_back(words, size)
        quota = NO_QUOTA if plain is None else self._fitted(corpus, plain, start, progress)
        return self._across(corpus, start, quota, under("stage 2", progress))

    def _cut_back(self, words: Vocabulary, size: int) -> Vocabulary:
        """Return the vocabulary as it was with fewer tokens, with the cuts of stage 2."""
        kept = words.merges[words.merges[:, 2] < size]
        tokens = words.tokens[: min(size, len(words.tokens))]
        return replace(words, tokens=tokens, merges=kept, cuts=(PATTERNS[f"superbpe_{self.patterns}_stage2"],))

    def _of_base(self, base: str) -> Vocabulary:
        """Return the base with the cuts of stage 2."""
        found = load_base(base, self.eos_token)
        if self.vocab_size <= found.size:
            raise InputError(
                f"vocab_size must be above the {found.size} tokens of base {base!r}, to which superwords are added; "
                f"found {self.vocab_size}"
            )
        return replace(found, cuts=(PATTERNS[f"superbpe_{self.patterns}_stage2"],), ignore_merges=False)

    def _across(self, corpus: Corpus, start: Vocabulary, quota: Quota, progress: Progress) -> Vocabulary:
        """Return the vocabulary with the merges of stage 2."""
        learned = learn(
            encode_stream(corpus, start, progress),
            start.ordinary(),
            self.vocab_size - start.size,
            min_frequency=self.min_frequency,
            rules=Rules(max_words=self.max_words, forbid_colon=self.forbid_colon, never=start.names()),
            quota=quota,
            progress=partial(merging, progress),
        )
        return start.joined(learned.merges)

    def _best(self, corpus: Corpus, words: Vocabulary, plain: Vocabulary | None, progress: Progress, note: Note) -> int:
        """Return the transition that leaves the fewest tokens of texts it was not tried on."""
        tried, held = corpus.split(TRIED_BYTES, HELD_EVERY)
        if not tried.batches or not held.batches:
            raise InputError(
                f"transition 'auto' is chosen on documents held out, but the {corpus.bytes:,} bytes of text are too few "
                "documents for that; train on more, or give a share such as 0.8"
            )
        quota = NO_QUOTA if plain is None else self._quota(tried, plain, under("plain", progress))
        left = dict[int, int]()
        for size in sorted({max(round(share * self.vocab_size), len(self.first_tokens())) for share in SHARES}):
            name = under(f"transition {size}", progress)
            some = self._across(tried, self._cut_back(words, size), quota, name)
            left[size] = len(encode_stream(held, some, name).ids)
        chosen = min(left, key=lambda size: (left[size], size))
        sizes = {"held_out_documents": sum(map(len, held.batches)), "held_out_bytes": held.bytes}
        note("transition", {"chosen": chosen, "tried": {str(size): {"held_out_tokens": left[size]} for size in left}, **sizes})
        return chosen

    def _quota(self, corpus: Corpus, plain: Vocabulary, progress: Progress) -> Quota:
        """Return the tokens that each group may have: those of plain BPE and the loss that is allowed, one at least."""
        assert self.max_loss is not None
        return Quota(np.maximum(group_sizes(encode_stream(corpus, plain, progress)) * (1 + self.max_loss), 1))

    def _fitted(self, corpus: Corpus, plain: Vocabulary, start: Vocabulary, progress: Progress) -> Quota:
        """Return the quota, lowered where superwords learned on some documents do not hold it on others."""
        whole = self._quota(corpus, plain, under("plain", progress))
        tried, held = corpus.split(TRIED_BYTES, HELD_EVERY)
        if not tried.batches or not held.batches:
            return whole
        inside, outside = (self._quota(part, plain, under("plain", progress)) for part in (tried, held))
        margins = np.ones(len(corpus.groups))
        for turn in range(TURNS):
            name = under(f"quota {turn + 1}", progress)
            some = self._across(tried, start, Quota(inside.targets * margins), name)
            over = group_sizes(encode_stream(held, some, name)) / outside.targets
            if (over <= 1).all():
                break
            margins /= np.maximum(over, 1)
        return Quota(whole.targets * margins)
