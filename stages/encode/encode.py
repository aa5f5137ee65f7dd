"""Text to token ids, with one tokenizer for the whole build.

Reads `text` and the tokenizer's file; adds `input_ids`, whose field metadata tells later stages and the sink what the ids
are. From the buffers of the one column to those of the other: no Python object for a document or a token.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_texts, whole
from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS
from gristmill.tokenizer.files import plain_name
from gristmill.tokenizer.framing import Frame, left_out, say_left_out
from gristmill.tokenizer.patterns import find_pattern
from gristmill.tokenizer.tokenizer import Tokenizer
from gristmill.tokenizer.tokenizer_file import TokenizerFile, find_file
from gristmill.tokenizer.vocabulary import Inference
from pipeline import schema
from pipeline.finding import Finding, Limit
from pipeline.stage import Map, Transform

if TYPE_CHECKING:
    from gristmill.tokenizer.encoding.names import Names
    from gristmill.tokenizer.encoding.windows import Ids, Offsets, Text

EMPTY, NAMED = "empty", "special_token_in_text"  # drops


@dataclass(frozen=True, kw_only=True)
class Encode(Map):
    """Add `input_ids`: list<uint16>, or list<uint32> where the vocabulary has more than 65,536 tokens.

    `tokenizer`: a `tokenizer.json`, the folder that holds one (or a `gristmill-tokenizer.json`), or a ranks file of tiktoken,
    which needs two things more: `pattern`, a name (gpt2, llama3, o200k, ...) or a regular expression, and `special_tokens`,
    pairs of name and id. A `tokenizer.json` that is no byte-level BPE, or has parts that compiled loops do not know, is encoded
    by the Hugging Face library, more slowly; the log says why. Ids are those of the library, in any case.
    `inference`: how a piece becomes tokens: by `merges`, the `longest_prefix` at each place, or the `least_tokens`; null: as
    the tokenizer says.
    `bos`, `eos`: the special token, or several, put before and after each document, or null. What separates documents is `eos`.
    `special_tokens_in_text`: the name of a special token inside a text is encoded as `text`, becomes that `token`, or makes
    the stage `refuse` the document (`special_token_in_text`).

    A document without text is dropped (`empty`). One with a character that the vocabulary cannot spell, and that the library
    would leave out without a word, is quarantined (`unspelled`); one that becomes no token at all, too (`no_tokens`).

    The field of `input_ids` carries `vocab_size`, `tokenizer_sha256` (of the file) and, where there is one, `bos_id` (the first
    of `bos`) and `eos_id` (the last of `eos`), as text, in every table; and `left_out`, a JSON list, where the file's
    `post_processor` prescribes special tokens around a text that `bos` and `eos` do not name.
    """

    version: ClassVar[int] = 2

    tokenizer: str
    bos: str | tuple[str, ...] | None = None
    eos: str | tuple[str, ...] | None = "<|endoftext|>"
    inference: Inference | None = None
    special_tokens_in_text: Literal["text", "token", "refuse"] = "text"
    pattern: str | None = None
    special_tokens: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Check what needs no file."""
        if self.pattern is not None:
            find_pattern(self.pattern, "pattern")
        if len(dict(self.special_tokens)) < len(self.special_tokens):
            raise ValueError(f"special_tokens names one twice: {self.special_tokens}")

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the type of `input_ids`."""
        return {INPUT_IDS: id_type(self.tokens().vocab_size)}

    def libraries(self) -> tuple[str, ...]:
        """Return what reads the tokenizer: patterns and normalizers are as it has them."""
        return ("tokenizers",)

    def files(self) -> tuple[str, ...]:
        """Return the tokenizer's file."""
        return (str(find_file(self.tokenizer)),)

    def attachments(self) -> Mapping[str, str]:
        """Return the tokenizer's file: `tokenizer.json`, `gristmill-tokenizer.json`, or `tokenizer.tiktoken` for ranks."""
        file = find_file(self.tokenizer)
        return {plain_name(file): str(file)}

    def check(self) -> None:
        """Raise InputError unless the tokenizer can be read, encodes any text and has the special tokens.

        What the tokenizer would put around texts and this stage does not is said on the log, here alone: a stage is opened by
        many processes.
        """
        say_left_out(self.tokenizer, self._left_out(self._checked()))

    def _left_out(self, tokenizer: Tokenizer) -> Frame:
        return left_out(tokenizer.post_processor, _names(self.bos), _names(self.eos))

    def _checked(self) -> Tokenizer:
        """Return the tokenizer; raises as `check`."""
        tokenizer = self.tokens()
        for key, given in (("bos", self.bos), ("eos", self.eos)):
            for name in _names(given):
                if name not in tokenizer.special_tokens:
                    raise InputError(
                        f"{key} {name!r} is no special token of {self.tokenizer!r}; it has "
                        f"{', '.join(tokenizer.special_tokens) or 'none'}; name one of these, or null to put nothing there"
                    )
        tokenizer.check()
        return tokenizer

    def tokens(self) -> Tokenizer:
        """Return the tokenizer: what the ids stand for, and how they are made; read once a process.

        Raises:
            InputError: see `Tokenizer.open`.
        """
        file = find_file(self.tokenizer)
        status = file.stat()
        options = {
            "pattern": self.pattern,
            "special_tokens": self.special_tokens,
            "inference": self.inference,
            "special_tokens_in_text": "token" if self.special_tokens_in_text == "token" else "text",
        }
        return _opened(str(file), (status.st_size, status.st_mtime_ns), tuple(options.items()))

    def open(self) -> Transform:
        """See `Map.open`."""
        tokenizer = self._checked()
        tokenizer.prepare()
        names = self._names(tokenizer)
        special = tokenizer.special_tokens
        prefix, suffix = (np.array([special[name] for name in _names(given)], np.uint32) for given in (self.bos, self.eos))
        facts = {"vocab_size": tokenizer.vocab_size, "tokenizer_sha256": tokenizer.file.sha256}
        facts |= {"bos_id": prefix[0]} if len(prefix) else {}
        facts |= {"eos_id": suffix[-1]} if len(suffix) else {}
        missing = self._left_out(tokenizer)
        facts |= {"left_out": json.dumps([*missing.before, *missing.after])} if any(missing) else {}
        field = pa.field(INPUT_IDS, id_type(tokenizer.vocab_size), metadata={k: str(v) for k, v in facts.items()})

        def encode(docs: pa.Table) -> pa.Table:
            made = [_encode(tokenizer, names, *flat_texts(chunk)) for chunk in docs["text"].chunks]
            lists = [_lists(surround(one.ids, one.places, prefix, suffix), field.type) for one in made]
            return append(
                docs,
                {
                    field: pa.chunked_array(lists, field.type),
                    pa.field(schema.DROP, pa.string()): pa.chunked_array([one.drops for one in made], pa.string()),
                    pa.field(schema.ERROR, pa.string()): pa.chunked_array([one.errors for one in made], pa.string()),
                },
            )

        return encode

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return how many tokens a text became and the bytes of each, or the name in it that is refused; see `Stage.explain`."""
        text, offsets = flat_texts(whole(before["text"]))
        tokens, size = len(after[INPUT_IDS][0]), len(text)
        found = [Finding("text_bytes", size), Finding("tokens", tokens, decisive=after[schema.DROP][0].as_py() == EMPTY)]
        if tokens:
            found.append(Finding("bytes_per_token", size / tokens))
        names = self._names(self.tokens())
        if names is not None and len((places := names.find(text, offsets)).begins):
            name = text[places.begins[0] : places.ends[0]].tobytes().decode()
            refused = Limit("special_tokens_in_text", self.special_tokens_in_text, "not allowed by", broken=True)
            found = [Finding("special_token", name, (refused,), decisive=True), Finding("text_bytes", size)]
        return found

    def _names(self, tokenizer: Tokenizer) -> Names | None:
        """Return what finds names of special tokens where these are refused."""
        from gristmill.tokenizer.encoding.names import Names

        special = tokenizer.special_tokens if self.special_tokens_in_text == "refuse" else {}
        return Names(special) if special else None


def surround(ids: Ids, places: Offsets, prefix: Ids, suffix: Ids) -> tuple[Ids, Offsets]:
    """Return the ids with `prefix` before and `suffix` after each document that has any.

    Args:
        ids: uint32 [tokens].
        places: int64 [documents + 1], where each document begins.
        prefix: uint32.
        suffix: uint32.
    """
    if not len(prefix) + len(suffix):
        return ids, places
    sizes = np.diff(places)
    full = sizes > 0
    ends = np.append(0, np.cumsum(sizes + full * (len(prefix) + len(suffix))))
    out = np.empty(ends[-1], np.uint32)
    own = np.ones(ends[-1], bool)
    for at, ids_around in ((ends[:-1], prefix), (ends[1:] - len(suffix), suffix)):
        for number, i in enumerate(ids_around):
            own[at[full] + number] = False
            out[at[full] + number] = i
    out[own] = ids
    return out, ends


def id_type(vocab_size: int) -> pa.DataType:
    """Return the type of `input_ids` for a vocabulary of this size."""
    return pa.list_(pa.uint16() if vocab_size <= 2**16 else pa.uint32())


class _Made(NamedTuple):
    """Ids of documents, flat, and where each begins; why one is dropped or an error, null keeps it. These have no ids."""

    ids: Ids
    places: Offsets
    drops: pa.Array
    errors: pa.Array


def _encode(tokenizer: Tokenizer, names: Names | None, text: Text, offsets: Offsets) -> _Made:
    """Return what becomes of documents; `names` finds what is refused."""
    refused = np.zeros(len(offsets) - 1, bool)
    if names is not None:
        refused[np.searchsorted(offsets, names.find(text, offsets).begins, side="right") - 1] = True
    ids, places, errors = tokenizer.encode_flat(text, offsets)
    gone = refused.copy()
    gone[list(errors)] = True
    if gone.any():
        sizes = np.diff(places)
        ids = ids[np.repeat(~gone, sizes)]
        places = np.append(0, np.cumsum(np.where(gone, 0, sizes)))
    kinds = np.where(refused, 1, np.where((np.diff(places) > 0) | gone, 2, 0))
    said = pa.array([errors.get(i) for i in range(len(gone))] if errors else [None] * len(gone), pa.string())
    return _Made(ids, places, pa.array([EMPTY, NAMED, None], pa.string()).take(pa.array(kinds)), said)


def _lists(made: tuple[Ids, Offsets], kind: pa.DataType) -> pa.Array:
    """Return documents as one list array over one flat buffer."""
    ids, places = made
    return as_lists(ids.astype(kind.value_type.to_pandas_dtype(), copy=False), places, kind)


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else given


@functools.lru_cache(maxsize=2)
def _opened(path: str, stamp: tuple[int, int], options: tuple[tuple[str, Any], ...]) -> Tokenizer:
    return Tokenizer(TokenizerFile.read(path), **dict(options))
