"""Text to the ids of any byte-level BPE vocabulary, exactly those of the Hugging Face library.

Reads flat texts and a Vocabulary; gives flat ids. Compiled loops do it wherever they know the vocabulary's split pattern and
merges, else the library itself.
"""

from __future__ import annotations

import numpy as np

from gristmill.tokenizer.cutting.cutter import batch_ends, make_cutter
from gristmill.tokenizer.cutting.regex import UnsupportedPattern
from gristmill.tokenizer.encoding.barriers import UnsupportedMerges
from gristmill.tokenizer.encoding.kernels import SLACK, encode_pieces
from gristmill.tokenizer.encoding.library import encode_each
from gristmill.tokenizer.encoding.memory import SHORT_BYTES
from gristmill.tokenizer.encoding.probe import check_encoder
from gristmill.tokenizer.encoding.tables import make_context
from gristmill.tokenizer.encoding.utf8 import check_utf8
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from gristmill.tokenizer.intrinsics import address_of
from gristmill.tokenizer.vocabulary import Vocabulary, to_tokenizer


class Encoder:
    """Encoder of a standard vocabulary. It holds a memory of 18 MiB that changes with the texts, but never what they become."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Make the tables, 0.5 to 2 s.

        Raises:
            UnsupportedMerges, UnsupportedPattern: the compiled loops do not know this.
        """
        self._cutter = make_cutter(vocabulary.cuts) if vocabulary.cuts else None
        self._context = make_context(vocabulary)
        self._learn_tokens(vocabulary)

    def _learn_tokens(self, vocabulary: Vocabulary) -> None:
        """Encode each token, so that the memory knows them when the first text comes; the most frequent last."""
        tokens = [vocabulary.tokens[i] for i in vocabulary.merges[::-1, 2].tolist()]
        tokens = [token for token in tokens if len(token) <= SHORT_BYTES]
        ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
        self._encode_pieces(np.frombuffer(b"".join(tokens) + bytes(8), np.uint8), ends)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`.

        Raises:
            ValueError: a document is not valid UTF-8; says at which byte.
        """
        check_utf8(text, offsets)
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        ends = offsets[1:].copy() if self._cutter is None else batch_ends(self._cutter, text, offsets)
        of_document = np.searchsorted(ends, offsets, side="right")
        ids = self._encode_pieces(text, ends)
        return ids, np.append(0, ends)[of_document]

    def _encode_pieces(self, text: Text, ends: Offsets) -> Ids:
        """Return the ids of pieces that end at `ends`, and write there how many ids end with each."""
        ids = np.empty(len(text) + SLACK, np.uint32)
        begin, pieces = np.uint64(0), np.uint64(len(ends))
        count = encode_pieces(self._context.address, address_of(text), begin, address_of(ends), pieces, address_of(ids))
        return ids[:count].copy()


class HfEncoder:
    """The Hugging Face library behind the same interface, for vocabularies that the compiled loops do not know.

    `reason`: why it is used.
    """

    def __init__(self, vocabulary: Vocabulary, reason: str) -> None:
        self._tokenizer = to_tokenizer(vocabulary)
        self.reason = reason

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `Encoder.encode`."""
        check_utf8(text, offsets)
        return encode_each(self._tokenizer, text, offsets)


def open_encoder(vocabulary: Vocabulary) -> Encoder | HfEncoder:
    """Return the fastest encoder that gives the library's ids; it has been compared with it on some dozens of texts.

    Raises:
        EncoderMismatch: some text got other ids.
        ValueError: the vocabulary is not a standard one.
    """
    try:
        encoder = Encoder(vocabulary)
    except (UnsupportedMerges, UnsupportedPattern) as error:
        return HfEncoder(vocabulary, str(error))
    check_encoder(encoder, vocabulary)
    return encoder
