"""Text to token ids, with one tokenizer for the whole build.

Reads `text` and the tokenizer's file; adds `input_ids`, whose field metadata tells later stages and the sink what the ids
are. From the buffers of the one column to those of the other: no Python object for a document or a token.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.errors import InputError
from pipeline.stage import Map, Transform
from stages.tokenizer.encoding.library import LibraryEncoder, warn_slow
from stages.tokenizer.foreign import check_plain_names, find_file, load, plain_name
from stages.tokenizer.patterns import Pattern, find_pattern
from stages.tokenizer.vocabulary import Inference, UnsupportedTokenizer, Vocabulary

if TYPE_CHECKING:
    from stages.tokenizer.encoding.names import Names
    from stages.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets, Text

INPUT_IDS = "input_ids"
EMPTY, NAMED = "empty", "special_token_in_text"


@dataclass(frozen=True, kw_only=True)
class Encode(Map):
    """Add `input_ids`: list<uint16>, or list<uint32> where the vocabulary has more than 65,536 tokens.

    `tokenizer`: a `tokenizer.json`, the folder that holds one (or a `gristmill-tokenizer.json`), or a ranks file of tiktoken,
    which needs two things more: `pattern`, a name (gpt2, llama3, o200k, ...) or a regular expression, and `special_tokens`,
    pairs of name and id. A `tokenizer.json` that is no plain byte-level BPE (another model, a normalizer, added tokens that
    are not special) is encoded by the Hugging Face library, more slowly; the log says why.
    `inference`: how a piece becomes tokens: by `merges`, the `longest_prefix` at each place, or the `least_tokens`; null: as
    the tokenizer says.
    `bos`, `eos`: the special token, or several, put before and after each document, or null. What separates documents is `eos`.
    `special_tokens_in_text`: the name of a special token inside a text is encoded as `text`, becomes that `token`, or makes
    the stage `refuse` the document (`special_token_in_text`).

    A document without text is dropped (`empty`). The field of `input_ids` carries `vocab_size`, `tokenizer_sha256` (of the
    file) and, where there is one, `bos_id` (the first of `bos`) and `eos_id` (the last of `eos`), as text, in every table.
    """

    tokenizer: str
    bos: str | tuple[str, ...] | None = None
    eos: str | tuple[str, ...] | None = "<|endoftext|>"
    inference: Inference | None = None
    special_tokens_in_text: Literal["text", "token", "refuse"] = "text"
    pattern: str | None = None
    special_tokens: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        """Check what needs no file."""
        self._cuts()
        if len(dict(self.special_tokens)) < len(self.special_tokens):
            raise ValueError(f"special_tokens names one twice: {self.special_tokens}")

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the type of `input_ids`."""
        return {INPUT_IDS: id_type(self._held().size)}

    def files(self) -> tuple[str, ...]:
        """Return the tokenizer's file."""
        return (str(find_file(self.tokenizer)),)

    def attachments(self) -> Mapping[str, str]:
        """Return the tokenizer's file: `tokenizer.json`, `gristmill-tokenizer.json`, or `tokenizer.tiktoken` for ranks."""
        file = find_file(self.tokenizer)
        return {plain_name(file): str(file)}

    def check(self) -> None:
        """Raise InputError unless the tokenizer can be read, encodes any text and has the special tokens."""
        held = self._held()
        for key, given in (("bos", self.bos), ("eos", self.eos)):
            for name in _names(given):
                if name not in held.special_tokens:
                    raise InputError(
                        f"{key} {name!r} is no special token of {self.tokenizer!r}; it has "
                        f"{', '.join(held.special_tokens) or 'none'}; name one of these, or null to put nothing there"
                    )
        if isinstance(held, Vocabulary):
            check_complete(held, self.tokenizer)

    def vocabulary(self) -> Vocabulary:
        """Return the tokens that the ids stand for, and how they are made; read once a process.

        Raises:
            InputError: see `foreign.load`.
        """
        held = self._held()
        if isinstance(held, LibraryEncoder):
            raise InputError(held.reason)
        return held

    def spell(self) -> Callable[[Sequence[int]], str]:
        """Return f(ids) -> the text they stand for, to be shown: what is no UTF-8 is replaced."""
        held = self._held()
        if isinstance(held, LibraryEncoder):
            return held.spell
        return lambda ids: b"".join(held.tokens[i] for i in ids).decode(errors="replace")

    def open(self) -> Transform:
        """See `Map.open`."""
        self.check()
        held = self._held()
        encoder, names = self._encoder(held)
        special = held.special_tokens
        prefix, suffix = (np.array([special[name] for name in _names(given)], np.uint32) for given in (self.bos, self.eos))
        facts = {"vocab_size": held.size, "tokenizer_sha256": _sha256(find_file(self.tokenizer))}
        facts |= {"bos_id": prefix[0]} if len(prefix) else {}
        facts |= {"eos_id": suffix[-1]} if len(suffix) else {}
        field = pa.field(INPUT_IDS, id_type(held.size), metadata={k: str(v) for k, v in facts.items()})
        refuse = self.special_tokens_in_text == "refuse"

        def encode(docs: pa.Table) -> pa.Table:
            made = [_encode(encoder, names, refuse, *flat(chunk)) for chunk in docs["text"].chunks]
            columns = [_lists(surround(ids, places, prefix, suffix), field.type) for ids, places, _ in made]
            drops = [_reasons(places, refused) for _, places, refused in made]
            table = docs.drop_columns([name for name in (INPUT_IDS, schema.DROP) if name in docs.column_names])
            table = table.append_column(field, pa.chunked_array(columns, field.type))
            return table.append_column(schema.DROP, pa.chunked_array(drops, pa.string()))

        return encode

    def _encoder(self, held: Vocabulary | LibraryEncoder) -> tuple[FlatEncoder, Names | None]:
        """Return the encoder, and what finds names of special tokens where it does not do so itself."""
        from stages.tokenizer.encoding.choose import choose_encoder
        from stages.tokenizer.encoding.names import Names
        from stages.tokenizer.encoding.probe import LibraryFails

        if isinstance(held, LibraryEncoder):
            warn_slow(held.reason)
        wanted = ("refuse",) if isinstance(held, LibraryEncoder) else ("refuse", "token")
        names = Names(held.special_tokens) if self.special_tokens_in_text in wanted and held.special_tokens else None
        if isinstance(held, LibraryEncoder):
            return held, names
        try:
            return choose_encoder(held), names
        except LibraryFails as error:
            raise InputError(f"tokenizer {self.tokenizer!r}: {error}") from error

    def _held(self) -> Vocabulary | LibraryEncoder:
        """Return the tokenizer as it is to be used; read once a process."""
        file = find_file(self.tokenizer)
        status = file.stat()
        stamp = (status.st_size, status.st_mtime_ns)
        as_tokens = self.special_tokens_in_text == "token"
        held = _loaded(str(file), stamp, self._cuts(), self.special_tokens, as_tokens)
        if self.inference is None:
            return held
        if isinstance(held, LibraryEncoder):
            raise InputError(f"inference {self.inference!r} cannot be had: {held.reason}; leave inference out")
        return replace(held, inference=self.inference)

    def _cuts(self) -> tuple[Pattern, ...]:
        return () if self.pattern is None else (find_pattern(self.pattern, "pattern"),)


def check_complete(vocabulary: Vocabulary, where: str) -> None:
    """Raise InputError unless any text can be encoded, with the tokens there are; `where` is the tokenizer's name."""
    missing = np.flatnonzero(vocabulary.byte_ids() < 0).tolist()
    if missing:
        raise InputError(f"tokenizer {where!r} has no token for {len(missing)} of 256 bytes, such as 0x{missing[0]:02x}")
    if vocabulary.inference == "merges" and not len(vocabulary.merges) and max(map(len, vocabulary.ordinary())) > 1:
        raise InputError(
            f"tokenizer {where!r} has tokens but no merges to make them by; set inference to longest_prefix or least_tokens"
        )


def flat(texts: pa.Array) -> tuple[Text, Offsets]:
    """Return the bytes of an array of strings, uint8, without copying, and where each begins, int64 [texts + 1]."""
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), places


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


def _encode(
    encoder: FlatEncoder, names: Names | None, refuse: bool, text: Text, offsets: Offsets
) -> tuple[Ids, Offsets, npt.NDArray[np.bool_]]:
    """Return the ids of documents, where each begins, and which are refused; these have no ids."""
    from stages.tokenizer.encoding.names import encode_with

    refused = np.zeros(len(offsets) - 1, bool)
    if names is None:
        return *encoder.encode(text, offsets), refused
    found = names.find(text, offsets)
    if not refuse:
        return *encode_with(encoder, found, text, offsets), refused
    refused[np.searchsorted(offsets, found.begins, side="right") - 1] = True
    ids, places = encoder.encode(text, offsets)
    sizes = np.diff(places)
    kept = ids[np.repeat(~refused, sizes)]
    return kept, np.append(0, np.cumsum(np.where(refused, 0, sizes))), refused


def _lists(made: tuple[Ids, Offsets], kind: pa.DataType) -> pa.Array:
    """Return documents as one list array over one flat buffer."""
    ids, places = made
    assert places[-1] < 2**31, "a table holds at most 2**31 tokens"
    values = pa.array(ids.astype(kind.value_type.to_pandas_dtype(), copy=False), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(places.astype(np.int32)), values, type=kind)


def _reasons(places: Offsets, refused: npt.NDArray[np.bool_]) -> pa.Array:
    """Return why each document is dropped; null keeps it."""
    kinds = np.where(refused, 1, np.where(np.diff(places) > 0, 2, 0))
    return pa.array([EMPTY, NAMED, None], pa.string()).take(pa.array(kinds))


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else given


@functools.lru_cache(maxsize=2)
def _loaded(
    file: str, stamp: tuple[int, int], cuts: tuple[Pattern, ...], special: tuple[tuple[str, int], ...], as_tokens: bool
) -> Vocabulary | LibraryEncoder:
    try:
        found = load(file, cuts, dict(special))
        if as_tokens:
            check_plain_names(Path(file), file)
        return found
    except UnsupportedTokenizer as reason:
        return LibraryEncoder(file, str(reason), names_as_tokens=as_tokens)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
