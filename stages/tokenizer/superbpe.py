"""SuperBPE (Liu et al. 2025, arXiv 2503.13423): BPE inside words first, then across them.

Reads texts, gives one ordinary BPE tokenizer: all merges in rank order, the pre-tokenizer of stage 2. Any engine that
loads a `tokenizer.json` can use it.

Stage 2 continues from the merges of stage 1, which the stock trainer cannot do. So each text is cut into the pieces of
stage 2, the merges of stage 1 are applied on these (not on the pieces of stage 1: runs of spaces would get other ids), and
each id becomes one Unicode scalar, in the order of ids, as equal counts are decided by it. The stock trainer on those
"letters" then learns the merges of stage 2, which are mapped back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.tokenizer.bpe import Bpe
from stages.tokenizer.patterns import PATTERNS, pre_tokenizer
from stages.tokenizer.scheme import ALPHABET, Progress, Scheme, read, silent

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

FIRST_SCALAR = 0x10000  # the first above the surrogates and everything the library treats apart
END_OF_PIECE = "\n"
BATCH = 32  # documents encoded at once

Merge = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class SuperBpe(Scheme):
    """BPE in two stages.

    `transition`: tokens in the vocabulary when stage 1 ends, or their share of `vocab_size` when it is below 1.
    `patterns`: how each stage cuts text: as in the `paper`, or as in the authors' `repo` since November 2025.
    `max_pieces`: a token of stage 2 joins at most so many tokens of stage 1; null for no limit, which turns whole sentences
    of boilerplate into tokens. The paper limits words instead (4), which the stock trainer cannot do.
    """

    transition: int | float = 0.8
    patterns: Literal["paper", "repo"] = "paper"
    max_pieces: int | None = 8

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        least = ALPHABET + len(self.special_tokens)
        if not (least <= self.stage1_size <= self.vocab_size):
            raise ValueError(
                f"transition must be a share below 1 or a vocabulary size, so that stage 1 ends with {least} to "
                f"{self.vocab_size} (vocab_size) tokens; found {self.transition}, which is {self.stage1_size} tokens"
            )
        if self.max_pieces is not None and self.max_pieces < 2:
            raise ValueError(f"max_pieces must be at least 2, found {self.max_pieces}")

    @property
    def stage1_size(self) -> int:
        """Return the size of the vocabulary when stage 1 ends."""
        return round(self.transition * self.vocab_size) if isinstance(self.transition, float) else self.transition

    def train(self, texts: Iterable[str], progress: Progress = silent) -> Tokenizer:
        """See `Scheme.train`."""
        stage1 = self._bpe().train(texts, lambda what, done: progress(f"stage 1: {what}", done))
        stage1.pre_tokenizer = pre_tokenizer(PATTERNS[f"superbpe_{self.patterns}_stage2"])
        stage1.encode_special_tokens = True  # the name of a special token in a text is text
        specials = len(self.special_tokens)
        names = sorted(stage1.get_vocab(), key=stage1.get_vocab().__getitem__)[specials:]
        merges = _continue(stage1, specials, texts, self, lambda what, done: progress(f"stage 2: {what}", done))
        return _assemble(stage1, names, [(_spell(left, names), _spell(right, names)) for left, right in merges], self)

    def _bpe(self) -> Bpe:
        return Bpe(
            vocab_size=self.stage1_size,
            special_tokens=self.special_tokens,
            min_frequency=self.min_frequency,
            pattern=f"superbpe_{self.patterns}",
        )


def scalars(ids: np.ndarray, pieces: np.ndarray) -> str:
    """Return one text with a scalar for each id and `END_OF_PIECE` after each piece.

    Args:
        ids: int64 [tokens], counted from the first token that is not special.
        pieces: int64 [tokens], ascending; tokens of one piece have the same number.
    """
    cuts = np.flatnonzero(np.diff(pieces)) + 1
    return np.insert(ids + FIRST_SCALAR, cuts, ord(END_OF_PIECE)).astype("<u4").tobytes().decode("utf-32-le")


def _pieces(stage1: Tokenizer, specials: int, texts: Iterable[str], progress: Progress) -> Iterator[str]:
    """Yield each text in scalars."""
    stream = read(texts, "count superwords", progress)
    while batch := list(islice(stream, BATCH)):
        encodings: list[Encoding] = stage1.encode_batch(batch, add_special_tokens=False)
        for encoding in encodings:
            yield scalars(np.array(encoding.ids) - specials, np.array(encoding.word_ids))


def _continue(stage1: Tokenizer, specials: int, texts: Iterable[str], scheme: SuperBpe, progress: Progress) -> list[Merge]:
    """Return the merges of stage 2 in rank order, in scalars."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    size = stage1.get_vocab_size() - specials
    trainer = trainers.BpeTrainer(
        vocab_size=scheme.vocab_size - specials,
        min_frequency=scheme.min_frequency,
        initial_alphabet=[chr(FIRST_SCALAR + i) for i in range(size)],
        # The trainer joins what is shorter than this, not what is as long.
        max_token_length=None if scheme.max_pieces is None else scheme.max_pieces + 1,
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(END_OF_PIECE)
    tokenizer.train_from_iterator(_pieces(stage1, specials, texts, progress), trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _spell(word: str, names: list[str]) -> str:
    """Return the token that these scalars stand for."""
    return "".join(names[ord(scalar) - FIRST_SCALAR] for scalar in word)


def _assemble(stage1: Tokenizer, names: list[str], merges: list[Merge], scheme: SuperBpe) -> Tokenizer:
    """Return the tokenizer with the merges of both stages."""
    from tokenizers import Tokenizer, decoders, models

    tokens = [*scheme.special_tokens, *names, *(left + right for left, right in merges)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Within a piece a string has one segmentation, so two merges cannot spell the same token.
    assert len(vocabulary) == len(tokens)
    first = [(left, right) for left, right in json.loads(stage1.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=first + merges))
    tokenizer.pre_tokenizer = stage1.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(scheme.special_tokens))
    return tokenizer
