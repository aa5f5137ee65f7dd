"""What a tokenizer scheme is: parameters that train texts into one ordinary `tokenizer.json`.

Reads nothing and writes nothing; the texts come from the caller and the tokenizer goes back to it. The known schemes are
listed in `stages.tokenizer.SCHEMES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ALPHABET = 256  # byte-level: every byte is a token, so nothing is ever unknown
MOST_TOKENS = 1_000_000  # stage 2 of superbpe names each token by one scalar above U+FFFF; there are 1,048,576
MOST_BYTES = 2**31 - 1  # the stock trainer counts pairs in 32 bits; a count cannot exceed the bytes read

Progress = Callable[[str, int], None]
"""Called with what is being done and how many documents have been read for it."""


def silent(what: str, documents: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Parameters that every scheme has.

    `vocab_size`: tokens in all, with the special tokens and the 256 bytes; a small corpus may give fewer.
    `special_tokens`: get the first ids, in this order; they are never made from text.
    `min_frequency`: a merge must occur this often in the training text.
    """

    vocab_size: int
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    min_frequency: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        least = ALPHABET + len(self.special_tokens)
        if not least <= self.vocab_size <= MOST_TOKENS:
            raise ValueError(
                f"vocab_size must be from {least} ({ALPHABET} bytes and {len(self.special_tokens)} special tokens) "
                f"to {MOST_TOKENS:_}, found {self.vocab_size}"
            )
        if len(set(self.special_tokens)) < len(self.special_tokens) or not all(self.special_tokens):
            raise ValueError(f"special_tokens must be different and not empty, found {list(self.special_tokens)}")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, found {self.min_frequency}")

    def train(self, texts: Iterable[str], progress: Progress = silent) -> Tokenizer:
        """Return a byte-level BPE tokenizer; the same texts in any order give the same one.

        Args:
            texts: documents; read as often as the scheme needs, so no one-time iterator.
            progress: called now and then, from this thread.

        Raises:
            ValueError: no text at all, more bytes than `MOST_BYTES`, or a one-time iterator.
        """
        raise NotImplementedError


def read(texts: Iterable[str], what: str, progress: Progress) -> Iterator[str]:
    """Yield the non-empty texts, reporting progress; raises ValueError as `Scheme.train` says."""
    if iter(texts) is texts:
        raise ValueError("texts can be read only once; pass a list, or an object that starts again at each iteration")
    total = 0
    for count, text in enumerate(texts):
        if count % 64 == 0:
            progress(what, count)
        total += len(text.encode())
        if total > MOST_BYTES:
            raise ValueError(f"texts hold more than {MOST_BYTES:_} bytes, which overflows the trainer's pair counts; sample less")
        if text:
            yield text
    if total == 0:
        raise ValueError("texts are empty: there is nothing to train on")
