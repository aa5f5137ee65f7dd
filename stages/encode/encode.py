"""Text to token ids, with one tokenizer for the whole build.

Reads `text` and the tokenizer's file; adds `input_ids`, whose field metadata tells later stages and the sink what the ids
are. From the buffers of the one column to those of the other: no Python object for a document or a token.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_texts, whole
from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS
from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.foreign import find_file, plain_name
from gristmill.tokenizer.framing import Frame, left_out, say_left_out
from gristmill.tokenizer.opening import Held, open_encoder, read_tokenizer
from gristmill.tokenizer.parsing import IMPOSSIBLE
from gristmill.tokenizer.patterns import Pattern, find_pattern
from gristmill.tokenizer.vocabulary import Inference, Vocabulary
from pipeline import schema
from pipeline.finding import Finding, Limit
from pipeline.stage import Map, Transform

if TYPE_CHECKING:
    from gristmill.tokenizer.encoding.names import Names
    from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets, Text

EMPTY, NAMED = "empty", "special_token_in_text"  # drops
UNSPELLED, NO_TOKENS = "unspelled", "no_tokens"  # kinds of errors


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
        self._cuts()
        if len(dict(self.special_tokens)) < len(self.special_tokens):
            raise ValueError(f"special_tokens names one twice: {self.special_tokens}")

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the type of `input_ids`."""
        return {INPUT_IDS: id_type(self._held().size)}

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

    def _left_out(self, held: Held) -> Frame:
        processor = held.frame.get("post_processor") if isinstance(held, Vocabulary) else held.post_processor
        return left_out(processor, _names(self.bos), _names(self.eos))

    def _checked(self) -> Held:
        """Return the tokenizer; raises as `check`."""
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
        return held

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
        held = self._checked()
        encoder = open_encoder(held, self.tokenizer, names_as_tokens=self.special_tokens_in_text == "token")
        names = self._names(held)
        special = held.special_tokens
        prefix, suffix = (np.array([special[name] for name in _names(given)], np.uint32) for given in (self.bos, self.eos))
        facts = {"vocab_size": held.size, "tokenizer_sha256": _sha256(find_file(self.tokenizer))}
        facts |= {"bos_id": prefix[0]} if len(prefix) else {}
        facts |= {"eos_id": suffix[-1]} if len(suffix) else {}
        missing = self._left_out(held)
        facts |= {"left_out": json.dumps([*missing.before, *missing.after])} if any(missing) else {}
        field = pa.field(INPUT_IDS, id_type(held.size), metadata={k: str(v) for k, v in facts.items()})

        def encode(docs: pa.Table) -> pa.Table:
            made = [_encode(encoder, names, *flat_texts(chunk)) for chunk in docs["text"].chunks]
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
        names = self._names(self._held())
        if names is not None and len((places := names.find(text, offsets)).begins):
            name = text[places.begins[0] : places.ends[0]].tobytes().decode()
            refused = Limit("special_tokens_in_text", self.special_tokens_in_text, "not allowed by", broken=True)
            found = [Finding("special_token", name, (refused,), decisive=True), Finding("text_bytes", size)]
        return found

    def _names(self, held: Held) -> Names | None:
        """Return what finds names of special tokens where these are refused."""
        from gristmill.tokenizer.encoding.names import Names

        return Names(held.special_tokens) if self.special_tokens_in_text == "refuse" and held.special_tokens else None

    def _held(self) -> Held:
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
    missing = [byte for byte in np.flatnonzero(vocabulary.byte_ids() < 0).tolist() if byte not in IMPOSSIBLE]
    if missing:
        raise InputError(
            f"tokenizer {where!r} has no token for {len(missing)} of 256 bytes, such as 0x{missing[0]:02x}: they would be lost "
            "from texts; train it with all bytes as its first tokens"
        )
    if vocabulary.inference == "merges" and not len(vocabulary.merges) and max(map(len, vocabulary.ordinary())) > 1:
        raise InputError(
            f"tokenizer {where!r} has tokens but no merges to make them by; set inference to longest_prefix or least_tokens"
        )


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


def _encode(encoder: FlatEncoder, names: Names | None, text: Text, offsets: Offsets) -> _Made:
    """Return what becomes of documents; `names` finds what is refused."""
    refused = np.zeros(len(offsets) - 1, bool)
    if names is not None:
        refused[np.searchsorted(offsets, names.find(text, offsets).begins, side="right") - 1] = True
    ids, places = encoder.encode(text, offsets)
    errors = _errors(encoder, text, offsets, ids, places)
    gone = refused | errors.is_valid().to_numpy(zero_copy_only=False)
    if gone.any():
        sizes = np.diff(places)
        ids = ids[np.repeat(~gone, sizes)]
        places = np.append(0, np.cumsum(np.where(gone, 0, sizes)))
    kinds = np.where(refused, 1, np.where((np.diff(places) > 0) | gone, 2, 0))
    return _Made(ids, places, pa.array([EMPTY, NAMED, None], pa.string()).take(pa.array(kinds)), errors)


def _errors(encoder: FlatEncoder, text: Text, offsets: Offsets, ids: Ids, places: Offsets) -> pa.Array:
    """Return for each document what its vocabulary cannot spell, null where it can: no character is lost without a word."""
    errors: list[str | None] = [None] * (len(offsets) - 1)
    unknown = encoder.unknown if isinstance(encoder, LibraryEncoder) else None
    bad = (np.diff(places) == 0) & (np.diff(offsets) > 0)
    if unknown is not None:
        bad[np.searchsorted(places, np.flatnonzero(ids == unknown), side="right") - 1] = True
    for i in np.flatnonzero(bad).tolist():
        document = text[offsets[i] : offsets[i + 1]].tobytes().decode()
        if isinstance(encoder, LibraryEncoder) and (missing := encoder.unspelled(document)):
            shown = ", ".join(map(repr, dict.fromkeys(missing[:5])))
            errors[i] = f"{UNSPELLED}: the tokenizer has no token for {len(missing)} parts of the text, such as {shown}"
        elif document.strip():
            errors[i] = f"{NO_TOKENS}: the tokenizer makes no token of {len(document)} characters, which begin {document[:20]!r}"
    return pa.array(errors, pa.string())


def _lists(made: tuple[Ids, Offsets], kind: pa.DataType) -> pa.Array:
    """Return documents as one list array over one flat buffer."""
    ids, places = made
    return as_lists(ids.astype(kind.value_type.to_pandas_dtype(), copy=False), places, kind)


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if given is None else (given,) if isinstance(given, str) else given


@functools.lru_cache(maxsize=2)
def _loaded(
    file: str, stamp: tuple[int, int], cuts: tuple[Pattern, ...], special: tuple[tuple[str, int], ...], as_tokens: bool
) -> Held:
    return read_tokenizer(file, cuts, dict(special), names_as_tokens=as_tokens)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
