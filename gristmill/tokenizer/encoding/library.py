"""Encoding by the Hugging Face library itself: what our own loops cannot do, exact and slower.

Reads a `tokenizer.json` of any kind and flat texts; gives flat ids.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gristmill.errors import InputError
from gristmill.json_values import JsonObject
from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text
from gristmill.tokenizer.json_parts import File
from gristmill.tokenizer.library_calls import library_call
from gristmill.tokenizer.tokenizer_file import TokenizerFile

_UNKNOWN = "<no token>"

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class LibraryEncoder:
    """The library's own tokenizer of a `tokenizer.json` of any kind.

    `reason`: why it is needed. `size`: the number of ids that can come out. `special_tokens`: name → id. `post_processor`: as in
    the file. `byte_level`: its tokens are written in the letters of byte-level files.
    `unknown`: the id that stands for characters which no token spells, where the file has none for these and the library would
    leave them out without a word (BPE) or raise (the other models); above all others, None where there is none such.
    """

    def __init__(
        self, file: TokenizerFile, reason: str = "", *, names_as_tokens: bool = False, tell_unknown: bool = True
    ) -> None:
        """Read the file.

        Args:
            file: a `tokenizer.json`; its truncation and padding are left out.
            reason: for messages.
            names_as_tokens: whether the names of special tokens in texts become these, or are text like any other.
            tell_unknown: whether there is to be an id `unknown` also where the library would leave characters out.

        Raises:
            InputError: the library cannot read it, or what it gives is random.
        """
        from tokenizers import Tokenizer

        about = f"{reason}; and the library" if reason else f"tokenizer {file.where!r}: the library"
        with library_call(lambda error: InputError(f"{about} says that it cannot be read: {error}")):
            data = file.data.decode()
            self._tokenizer = Tokenizer.from_str(data)
        if getattr(self._tokenizer.model, "dropout", None):
            raise InputError(
                f"tokenizer {file.where!r}: key model.dropout is {self._tokenizer.model.dropout}, which makes ids random; set it "
                "to null"
            )
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = not names_as_tokens
        self.reason = reason
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        added = sorted(self._tokenizer.get_added_tokens_decoder().items())
        self.special_tokens = {token.content: i for i, token in added if token.special}
        self.unknown: int | None = None
        self._numbers: Ids | None = None
        content = json.loads(data)
        self.post_processor: JsonObject | None = content.get("post_processor")
        parts = json.dumps([content.get("pre_tokenizer"), content.get("decoder")])
        self.byte_level = '"ByteLevel"' in parts
        twin = _with_unknown(content, silent=tell_unknown)
        if twin is not None:
            self._with_unknown(Tokenizer.from_str(twin))

    def _with_unknown(self, twin: Tokenizer) -> None:
        """Encode by a tokenizer that has one token more, and number what it gives as the file does."""
        self.unknown = self.size
        known = self._tokenizer.get_vocab(with_added_tokens=True)
        theirs = twin.get_vocab(with_added_tokens=True)
        self._numbers = np.zeros(max(theirs.values()) + 1, np.uint32)
        for name, i in theirs.items():
            self._numbers[i] = known.get(name, self.unknown)
        twin.no_truncation()
        twin.no_padding()
        twin.encode_special_tokens = self._tokenizer.encode_special_tokens
        self._twin = twin

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`; an empty text has no ids, whatever the library would put before it."""
        if self._numbers is None:
            return encode_each(self._tokenizer, text, offsets)
        ids, places = encode_each(self._twin, text, offsets)
        return self._numbers[ids], places

    def unspelled(self, text: str) -> list[str]:
        """Return the characters of a text that no token stands for, in their order."""
        if self._numbers is None:
            return []
        found = self._twin.encode(text, add_special_tokens=False)
        spans = zip(self._numbers[found.ids].tolist(), found.offsets, strict=True)
        return [text[begin:end] for i, (begin, end) in spans if i == self.unknown]

    def spans(self, text: str) -> tuple[Ids, Offsets]:
        """Return the ids of one text, and where each token ends in its bytes, int64 [tokens + 1], from 0."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        ends = np.array([0, *(len(text[:end].encode()) for _, end in found.offsets)], np.int64)
        return np.array(found.ids, np.uint32), np.maximum.accumulate(ends)

    def name(self, i: int) -> str | None:
        """Return what the file calls an id; None for one that nothing has."""
        return self._tokenizer.id_to_token(i)

    def spell(self, ids: Sequence[int]) -> str:
        """Return the text that the library's decoder makes of ids, to be shown."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _with_unknown(data: File, *, silent: bool) -> str | None:
    """Return the file with a token for what no token of it spells; None where it has one.

    `silent`: also where the library leaves such characters out, as BPE does, rather than raise (WordLevel, WordPiece, Unigram).
    """
    model = data["model"]
    kind = model.get("type", "BPE" if "merges" in model else None)
    pieces = model["vocab"]
    if isinstance(pieces, list):
        if model.get("unk_id") is not None:
            return None
        model["unk_id"] = len(pieces)
        least = min((piece[1] for piece in pieces), default=0.0)
        pieces.append((_new_name({piece[0] for piece in pieces}), least))
        return json.dumps(data)
    has_one = model.get("unk_token") in pieces or (model.get("unk_token") is None and not silent)
    if has_one or kind not in ("BPE", "WordLevel", "WordPiece"):
        return None
    name = _new_name(set(pieces))
    pieces[name] = max(pieces.values(), default=-1) + 1
    model["unk_token"] = name
    return json.dumps(data)


def _new_name(known: set[str]) -> str:
    """Return a name that no token has."""
    name = _UNKNOWN
    while name in known:
        name += "_"
    return name


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
