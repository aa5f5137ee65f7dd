"""Byte-level byte-pair encoding (Sennrich et al. 2016; on bytes: Radford et al. 2019), by the stock trainer of `tokenizers`.

Reads texts, gives a tokenizer whose ids are: special tokens, the 256 bytes, then one token a merge in rank order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.tokenizer.patterns import find_pattern, pre_tokenizer
from stages.tokenizer.scheme import Progress, Scheme, read, silent

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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

    def train(self, texts: Iterable[str], progress: Progress = silent) -> Tokenizer:
        """See `Scheme.train`."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizer(find_pattern(self.pattern, "pattern"))
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(self.special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(read(texts, "count words", progress), trainer)
        return tokenizer
