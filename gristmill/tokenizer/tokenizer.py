"""A tokenizer in training and serving code: the ids of a build, from any file that `encode` takes.

Reads the tokenizer's file; texts in, flat ids out, and ids in, text out. What is heavy is imported late: numba when something is
encoded, tokenizers then too, or already for a file that has a pattern without a name here or that only the library can encode.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.arguments import one_of
from gristmill.columns import flat_texts
from gristmill.errors import InputError
from gristmill.extras import needs
from gristmill.json_values import JsonObject
from gristmill.tokenizer.encoding.library import LibraryEncoder
from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets, Text
from gristmill.tokenizer.opening import Held, open_encoder, read_tokenizer
from gristmill.tokenizer.parsing import IMPOSSIBLE
from gristmill.tokenizer.patterns import find_pattern
from gristmill.tokenizer.roles import CONFIG, read_roles
from gristmill.tokenizer.tokenizer_file import TokenizerFile, find_file
from gristmill.tokenizer.vocabulary import Inference, Vocabulary

UNSPELLED, NO_TOKENS = "unspelled", "no_tokens"  # kinds of errors


class Encoded(NamedTuple):
    """What becomes of texts.

    `ids`: uint32 [tokens]. `offsets`: int64 [texts + 1], from 0; text t is ids[offsets[t]:offsets[t + 1]].
    `errors`: the number of each text of which some part became no token, and what, as `kind: detail`.
    """

    ids: Ids
    offsets: Offsets
    errors: Mapping[int, str]


class Tokenizer:
    """Texts to the ids that a build makes of them, and back.

    >>> tokenizer = Tokenizer.open("build/tokenizers/superbpe-8k")  # doctest: +SKIP
    >>> ids, offsets = tokenizer.encode(["to be", "or not"])  # doctest: +SKIP
    >>> tokenizer.decode(ids[offsets[1] : offsets[2]])  # doctest: +SKIP
    'or not'

    Any number of threads may encode with one tokenizer at once: compiled loops and the Hugging Face library run without the GIL.
    An encoder holds a memory of what it has seen (18 MiB) that one call at a time may use, so each of n threads that encode at
    once has an encoder of its own, made when it is first needed (0.5 to 2 s). The first call of a process also loads the compiled
    loops, and compiles them where that was never done. A pickle holds the file's bytes, and needs no file where it is opened.
    """

    def __init__(
        self,
        file: TokenizerFile,
        *,
        pattern: str | None = None,
        special_tokens: Sequence[tuple[str, int]] = (),
        inference: Inference | None = None,
        special_tokens_in_text: Literal["text", "token"] = "text",
        roles: Mapping[str, str] | None = None,
    ) -> None:
        """See `open`, which also checks that any text can be encoded.

        Args:
            file: of the tokenizer.
            pattern, special_tokens, inference, special_tokens_in_text: see `open`.
            roles: what a `tokenizer_config.json` says: `eos_token` → the name of a special token, and so on.
        """
        one_of("special_tokens_in_text", special_tokens_in_text, ("text", "token"))
        if inference is not None:
            one_of("inference", inference, get_args(Inference), " or None")
        self.file = file
        self._options: dict[str, Any] = {
            "pattern": pattern,
            "special_tokens": tuple(special_tokens),
            "inference": inference,
            "special_tokens_in_text": special_tokens_in_text,
            "roles": roles,
        }
        self._as_tokens = special_tokens_in_text == "token"
        cuts = () if pattern is None else (find_pattern(pattern, "pattern"),)
        with needs("tokenizer"):
            held = read_tokenizer(file, cuts, dict(special_tokens), names_as_tokens=self._as_tokens)
        if inference is not None:
            if isinstance(held, LibraryEncoder):
                raise InputError(f"inference {inference!r} cannot be had: {held.reason}; leave inference out")
            held = replace(held, inference=inference)
        self._held: Held = held
        self._roles = dict(roles or {})
        self._free: list[FlatEncoder] = []
        self._making = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        pattern: str | None = None,
        special_tokens: Sequence[tuple[str, int]] = (),
        inference: Inference | None = None,
        special_tokens_in_text: Literal["text", "token"] = "text",
    ) -> Tokenizer:
        """Open a tokenizer; the parameters are those of the stage `encode`.

        Args:
            path: a `tokenizer.json`, a `gristmill-tokenizer.json`, a folder that holds one of them, such as that of a trained
                tokenizer or `builds/ID` of a build, or a ranks file of tiktoken.
            pattern: of a ranks file: how its publisher cuts text, a name (gpt2, llama3, o200k, ...) or a regular expression.
            special_tokens: of a ranks file: pairs of name and id.
            inference: how a piece becomes tokens: `merges`, `longest_prefix` or `least_tokens`; None: as the file says.
            special_tokens_in_text: whether the name of a special token in a text is text, or becomes that `token`.

        Raises:
            InputError: no such file, or none that can be used; names the file and the key.
            ValueError: `inference` or `special_tokens_in_text` is none of these.
            ModuleNotFoundError: a package of the extra `tokenizer` is needed and not installed.
        """
        tokenizer = cls(
            TokenizerFile.read(path),
            pattern=pattern,
            special_tokens=special_tokens,
            inference=inference,
            special_tokens_in_text=special_tokens_in_text,
            roles=read_roles(find_file(path).parent / CONFIG),
        )
        tokenizer.check()
        return tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Tokenizer, **self._options), (self.file,)

    def __repr__(self) -> str:
        by = "the Hugging Face library" if isinstance(self._held, LibraryEncoder) else self._held.inference
        return f"Tokenizer({self.file.where!r}, vocab_size={self.vocab_size}, by={by!r})"

    @property
    def vocab_size(self) -> int:
        """Return the number of ids that can come out, gaps and special tokens counted: a model's embedding has this many rows."""
        return self._held.size

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Return the id of each special token by its name. `encode` puts none of them before or after a text."""
        return self._held.special_tokens

    @property
    def bos_id(self) -> int | None:
        """Return the id that begins a document, as the `tokenizer_config.json` beside the file names it; None where none does.

        Raises:
            InputError: it names something that is no special token of the tokenizer.
        """
        return self._role("bos_token")

    @property
    def eos_id(self) -> int | None:
        """Return the id that ends a document; see `bos_id`."""
        return self._role("eos_token")

    @property
    def pad_id(self) -> int | None:
        """Return the id that fills rows up; see `bos_id`."""
        return self._role("pad_token")

    @property
    def post_processor(self) -> JsonObject | None:
        """Return what a `tokenizer.json` would put around texts, as it says it; None for nothing."""
        held = self._held
        return held.frame.get("post_processor") if isinstance(held, Vocabulary) else held.post_processor

    @property
    def vocabulary(self) -> Vocabulary:
        """Return the tokens that the ids stand for, and how they are made.

        Raises:
            InputError: the tokenizer is more than a vocabulary says: the Hugging Face library encodes with it. Says why.
        """
        if isinstance(self._held, LibraryEncoder):
            raise InputError(self._held.reason)
        return self._held

    def check(self) -> None:
        """Check that any text can be encoded with the tokens there are.

        Raises:
            InputError: says what is missing.
        """
        if isinstance(self._held, Vocabulary):
            check_complete(self._held, self.file.where)

    def encode(self, texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> tuple[Ids, Offsets]:
        """Return the ids of texts, those that a build with this tokenizer has, without special tokens around them.

        Args:
            texts: strings, or an Arrow array of strings (`string`, `large_string` or `string_view`), without nulls.

        Returns:
            uint32 [tokens], whatever the dtype of the build's shards; int64 [texts + 1], where each text begins.

        Raises:
            TypeError: these are no texts.
            InputError: some part of a text becomes no token (a build quarantines such a document), or it is no valid Unicode.
        """
        with needs("tokenizer"):
            from gristmill.tokenizer.encoding.utf8 import first_damage
        made: list[Encoded] = []
        first = 0
        for text, offsets in flat(texts):
            if (bad := first_damage(text, offsets)) is not None:
                raise InputError(f"texts[{first + bad[0]}] is {bad[1]}")
            each = self.encode_flat(text, offsets)
            for i, why in each.errors.items():
                raise InputError(f"texts[{first + i}]: {why}")
            made.append(each)
            first += len(offsets) - 1
        ids = np.concatenate([np.zeros(0, np.uint32), *(each.ids for each in made)])
        sizes = [np.diff(each.offsets) for each in made]
        return ids, np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))

    def encode_flat(self, text: Text, offsets: Offsets) -> Encoded:
        """Return the ids of texts that lie one after the other, without a Python object for any of them.

        Args:
            text: uint8 [bytes], valid UTF-8.
            offsets: int64 [texts + 1], ascending; text t is text[offsets[t]:offsets[t + 1]].

        Raises:
            ValueError: a text is not valid UTF-8; says at which byte.
        """
        encoder = self._take()
        try:
            ids, places = encoder.encode(text, offsets)
            return Encoded(ids, places, _errors(encoder, text, offsets, ids, places))
        finally:
            self._free.append(encoder)

    def prepare(self) -> None:
        """Make the encoder that the first call of `encode` would make.

        Raises:
            InputError: see `check` and `open_encoder`.
        """
        self._free.append(self._take())

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer], *, skip_special_tokens: bool = False) -> str:
        """Return the text that ids stand for; bytes that are no UTF-8, such as half a character, are replaced by U+FFFD.

        Args:
            ids: [tokens].
            skip_special_tokens: leave special tokens out; else their names are in the text.

        Raises:
            TypeError: these are no ids.
            InputError: an id that the tokenizer does not have.
        """
        numbers = self._known(ids, skip_special_tokens)
        if isinstance(self._held, LibraryEncoder):
            return self._held.spell(numbers)
        return self.decode_bytes(numbers).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.integer], *, skip_special_tokens: bool = False) -> bytes:
        """Return the bytes that ids stand for; see `decode`.

        Where the Hugging Face library decodes (see `vocabulary`) these are the bytes of its text.
        """
        numbers = self._known(ids, skip_special_tokens)
        if isinstance(self._held, LibraryEncoder):
            return self._held.spell(numbers).encode()
        tokens = self._held.tokens
        return b"".join([tokens[i] for i in numbers])

    def _known(self, ids: Sequence[int] | npt.NDArray[np.integer], skip_special_tokens: bool) -> list[int]:
        given = np.asarray(ids)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise TypeError(f"ids must be whole numbers in one dimension, found {given.dtype} of shape {given.shape}")
        numbers: list[int] = given.tolist()
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.vocab_size:
            raise InputError(
                f"ids are from {min(numbers)} to {max(numbers)}, but tokenizer {self.file.where!r} has {self.vocab_size}; give "
                "those that it made"
            )
        if skip_special_tokens:
            special = set(self.special_tokens.values())
            return [i for i in numbers if i not in special]
        return numbers

    def _role(self, role: str) -> int | None:
        name = self._roles.get(role)
        if name is None:
            return None
        if name not in self.special_tokens:
            raise InputError(
                f"tokenizer {self.file.where!r}: its {CONFIG} names {name!r} as its {role}, which is no special token; it has "
                f"{', '.join(self.special_tokens) or 'none'}"
            )
        return self.special_tokens[name]

    def _take(self) -> FlatEncoder:
        """Return an encoder that no other thread uses."""
        try:
            return self._free.pop()
        except IndexError:
            self.check()
            with self._making, needs("tokenizer"):
                return open_encoder(self._held, self.file, names_as_tokens=self._as_tokens)


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


def flat(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> list[tuple[Text, Offsets]]:
    """Return the bytes of texts, uint8, and where each begins, int64 [texts + 1]; in parts where Arrow has them so.

    Raises:
        TypeError: these are no texts.
        InputError: a null, or a string with half of a surrogate pair; says which.
    """
    if isinstance(texts, pa.ChunkedArray | pa.Array):
        kinds = (pa.string(), pa.large_string(), pa.string_view())
        if texts.type not in kinds:
            raise TypeError(f"texts must be an Arrow array of strings, found one of {texts.type}")
        if texts.null_count:
            nulls = "a null" if texts.null_count == 1 else f"{texts.null_count} nulls"
            raise InputError(f"texts has {nulls}; fill in what is null or leave it out")
        chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
        return [flat_texts(part) for chunk in chunks for part in _small(chunk)]
    if isinstance(texts, str | bytes):
        raise TypeError("texts must be a sequence of strings, found one string; give [text]")
    parts: list[bytes] = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{i}] must be a string, found {type(text).__name__}")
        try:
            parts.append(text.encode())
        except UnicodeEncodeError as error:
            raise InputError(f"texts[{i}] is no valid Unicode: {error}") from error
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    return [(np.frombuffer(b"".join(parts), np.uint8), offsets)]


def _small(chunk: pa.Array) -> list[pa.Array]:
    """Return strings as arrays with offsets of 32 bits, several where one cannot hold them."""
    if chunk.type == pa.string():
        return [chunk]
    if len(chunk) < 2 or chunk.nbytes < 2**31:
        return [chunk.cast(pa.string())]
    half = len(chunk) // 2
    return _small(chunk.slice(0, half)) + _small(chunk.slice(half))


def _errors(encoder: FlatEncoder, text: Text, offsets: Offsets, ids: Ids, places: Offsets) -> dict[int, str]:
    """Return for each text what its vocabulary cannot spell: no character is lost without a word."""
    unknown = encoder.unknown if isinstance(encoder, LibraryEncoder) else None
    bad = (np.diff(places) == 0) & (np.diff(offsets) > 0)
    if unknown is not None:
        bad[np.searchsorted(places, np.flatnonzero(ids == unknown), side="right") - 1] = True
    errors = dict[int, str]()
    for i in np.flatnonzero(bad).tolist():
        document = text[offsets[i] : offsets[i + 1]].tobytes().decode()
        if isinstance(encoder, LibraryEncoder) and (missing := encoder.unspelled(document)):
            names = ", ".join(map(repr, dict.fromkeys(missing[:5])))
            parts = "part" if len(missing) == 1 else "parts"
            errors[i] = f"{UNSPELLED}: the tokenizer has no token for {len(missing)} {parts} of the text, such as {names}"
        elif document.strip():
            errors[i] = f"{NO_TOKENS}: the tokenizer makes no token of {len(document)} characters, which begin {document[:20]!r}"
    return errors
