"""What the ids of any tokenizer spell: by the bytes of its tokens, or by the decoder of the Hugging Face library.

Reads ids and a vocabulary, or the library's tokenizer; gives text. Tokens of another kind than byte-level ones are read as their
files write them: `▁` is a space, `<0x0A>` a byte, `##` goes on a word.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np

from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text
from gristmill.tokenizer.opening import Held
from gristmill.tokenizer.token_names import single_byte, unspell
from gristmill.tokenizer.vocabulary import Vocabulary


class Speller(Protocol):
    """Ids to text. `sizes`, `starts`: int64 [ids], the bytes of each token and where they begin in `data`, uint8."""

    sizes: Offsets
    starts: Offsets
    data: Text

    def decode(self, ids: Ids, offsets: Offsets) -> tuple[Text, Offsets]:
        """Return the bytes of documents of ids, uint8, and where each begins, int64 [documents + 1].

        Args:
            ids: [tokens].
            offsets: int64 [documents + 1], from 0 to the number of ids.
        """


class Table:
    """The bytes of all tokens, flat, so that ids are decoded without a loop. No special token comes out of text."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = vocabulary.of_text()
        self.sizes = np.array([len(token) for token in tokens], np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.data = np.frombuffer(b"".join(tokens) + b"\0", np.uint8)  # a last token without bytes begins somewhere, too

    def decode(self, ids: Ids, offsets: Offsets) -> tuple[Text, Offsets]:
        """See `Speller.decode`."""
        sizes = self.sizes[ids]
        ends = np.append(0, np.cumsum(sizes))
        within = np.arange(ends[-1]) - np.repeat(ends[:-1], sizes)
        return self.data[np.repeat(self.starts[ids], sizes) + within], ends[offsets]


class LibraryTable(Table):
    """The bytes of all tokens, with the library's decoder for texts."""

    def __init__(self, library: LibraryEncoder) -> None:
        super().__init__(as_vocabulary(library))
        self._library = library

    def decode(self, ids: Ids, offsets: Offsets) -> tuple[Text, Offsets]:
        """See `Speller.decode`."""
        numbers = ids.tolist()
        texts = [self._library.spell(numbers[begin:end]).encode() for begin, end in pairwise(offsets.tolist())]
        places = np.append(0, np.cumsum([len(text) for text in texts], dtype=np.int64))
        return np.frombuffer(b"".join(texts), np.uint8), places


def as_vocabulary(held: Held) -> Vocabulary:
    """Return the tokens with their bytes; of a tokenizer of the library's there are no merges and no cuts."""
    if isinstance(held, Vocabulary):
        return held
    names = [held.name(i) for i in range(held.size)]
    special = set(held.special_tokens.values())
    tokens = [(name or "").encode() if i in special else _bytes(name or "", held.byte_level) for i, name in enumerate(names)]
    if held.unknown is not None:
        tokens.append(b"")
    return Vocabulary(tuple(tokens), special_tokens=dict(held.special_tokens))


def _bytes(name: str, byte_level: bool) -> bytes:
    if byte_level and (found := unspell(name)) is not None:
        return found
    return single_byte(name) or name.removeprefix("##").replace("▁", " ").encode()
