"""What a tokenizer scheme is: parameters that learn a vocabulary from a corpus.

Reads nothing and writes nothing; the texts come from the caller and the vocabulary goes back to it. The known schemes are
listed in `gristmill.tokenizer.SCHEMES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.token_names import alphabet
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.vocabulary import Vocabulary

ALPHABET = 256  # byte-level: every byte is a token, so nothing is ever unknown
MOST_TOKENS = 2**24  # more than any model has rows for

Note = Callable[[str, object], None]
"""Called with the name of something that training found out or decided, and with that."""

END_TOKEN = "<|endoftext|>"
"""What ends a document where nothing else is said: the default of `encode` too."""


def unnoted(name: str, what: object) -> None:
    """Note nothing."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """Parameters that every scheme has.

    `vocab_size`: tokens in all, with the special tokens and the 256 bytes; a small corpus may give fewer.
    `special_tokens`: get the first ids, in this order; they are never made from text.
    `eos_token`: the special token that ends a document, as `tokenizer_config.json` names it; null: the one that the base names,
        else `<|endoftext|>` where there is such, else none.
    `min_frequency`: a merge must occur this often in the training text.
    """

    vocab_size: int
    special_tokens: tuple[str, ...] = (END_TOKEN,)
    eos_token: str | None = None
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
        if self.eos_token is not None and self.start is None and self.eos_token not in self.special_tokens:
            raise ValueError(f"eos_token {self.eos_token!r} is none of special_tokens, {list(self.special_tokens)}")
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, found {self.min_frequency}")

    @property
    def start(self) -> str | None:
        """Return the tokenizer that this one is made on top of: a file or folder."""
        return None

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """Return a byte-level vocabulary; the same texts in any order and any batches give the same one.

        Args:
            corpus: the texts; its groups matter to schemes that care for languages.
            progress: called now and then, from this thread.
            note: called with what was tried and decided: `transition` (what `auto` tried on texts held out, and chose),
                `plain` (the vocabulary that a quota compares with).

        Raises:
            InputError: a file that a parameter names cannot be used.
        """
        raise NotImplementedError

    def first_tokens(self) -> tuple[bytes, ...]:
        """Return the tokens that need no training: special ones, then the bytes in the order of the Hugging Face trainer."""
        return (*(name.encode() for name in self.special_tokens), *alphabet())

    def special_ids(self) -> dict[str, int]:
        """Return the id of each special token."""
        return {name: i for i, name in enumerate(self.special_tokens)}
