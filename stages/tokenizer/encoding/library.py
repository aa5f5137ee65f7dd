"""Encoding by the Hugging Face library itself: what our own loops cannot do, exact and slower.

Reads a `tokenizer.json` of any kind and flat texts; gives flat ids.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ENDINGS, InputError
from stages.tokenizer.encoding.windows import Ids, Offsets, Text

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class LibraryEncoder:
    """The library's own tokenizer of a `tokenizer.json` of any kind.

    `reason`: why it is needed. `size`: the number of ids that can come out. `special_tokens`: name → id.
    """

    def __init__(self, file: str | Path, reason: str = "", *, names_as_tokens: bool = False) -> None:
        """Read the file.

        Args:
            file: a `tokenizer.json`; its truncation and padding are left out.
            reason: for messages.
            names_as_tokens: whether the names of special tokens in texts become these, or are text like any other.

        Raises:
            InputError: the library cannot read it, or what it gives is random.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except ENDINGS:
            raise
        except BaseException as error:  # the library raises nothing narrower, and panics
            about = f"{reason}; and the library" if reason else f"tokenizer {str(file)!r}: the library"
            raise InputError(f"{about} says that it cannot be read: {error}") from error
        if getattr(self._tokenizer.model, "dropout", None):
            raise InputError(
                f"tokenizer {str(file)!r}: key model.dropout is {self._tokenizer.model.dropout}, which makes ids random; set it "
                "to null"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = not names_as_tokens
        self.reason = reason
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        added = sorted(self._tokenizer.get_added_tokens_decoder().items())
        self.special_tokens = {token.content: i for i, token in added if token.special}

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`; an empty text has no ids, whatever the library would put before it."""
        return encode_each(self._tokenizer, text, offsets)

    def spell(self, ids: Sequence[int]) -> str:
        """Return the text that the library's decoder makes of ids, to be shown."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def encode_each(tokenizer: Tokenizer, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
    """Return what the library makes of each text, see `FlatEncoder.encode`."""
    ids, ends = [np.zeros(0, np.uint32)], np.zeros(len(offsets), np.int64)
    for i, (begin, end) in enumerate(pairwise(offsets.tolist()), 1):
        found: list[int] = []
        if begin < end:
            # A batch of one: this call alone skips offsets, and more texts at once would use every core of the machine.
            document = text[begin:end].tobytes().decode()
            found = tokenizer.encode_batch_fast([document], add_special_tokens=False)[0].ids
        ids.append(np.array(found, np.uint32))
        ends[i] = ends[i - 1] + len(found)
    return np.concatenate(ids), ends


@functools.lru_cache(maxsize=64)
def warn_slow(reason: str) -> None:
    """Say on the log that texts are encoded by the library, and why; once in a process."""
    logging.getLogger(__name__).warning("%s; the Hugging Face library encodes it, exactly but more slowly", reason)
