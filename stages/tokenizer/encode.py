"""Text to token ids, with one tokenizer for the whole build.

Reads `text` and a `tokenizer.json`; adds `input_ids`, whose field metadata tells later stages and the sink what the ids
are. Also how others open a tokenizer and look at its tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.errors import InputError
from pipeline.stage import Map, Transform

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUT_IDS = "input_ids"
EMPTY = "empty"


@dataclass(frozen=True, kw_only=True)
class Encode(Map):
    """Add `input_ids`: list<uint16>, or list<uint32> where the vocabulary has more than 65,536 tokens.

    `tokenizer`: a `tokenizer.json`, or the folder that holds one. `bos`, `eos`: the special token put before and after each
    document, or null. The name of a special token inside a text is encoded as text.

    A document without text is dropped (`empty`). The field of `input_ids` carries `vocab_size`, `tokenizer_sha256` (of the
    file) and, where there is one, `bos_id` and `eos_id`, as text, in every table.
    """

    tokenizer: str
    bos: str | None = None
    eos: str | None = "<|endoftext|>"

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the type of `input_ids`."""
        return {INPUT_IDS: id_type(vocabulary_size(open_tokenizer(self.tokenizer)))}

    def files(self) -> tuple[str, ...]:
        """Return the tokenizer's file."""
        return (str(tokenizer_file(self.tokenizer)),)

    def check(self) -> None:
        """Raise InputError unless the tokenizer can be read and has the special tokens."""
        tokenizer = open_tokenizer(self.tokenizer)
        for key, token in (("bos", self.bos), ("eos", self.eos)):
            special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
            if token is not None and token not in special:
                raise InputError(
                    f"{key} {token!r} is no special token of {self.tokenizer!r}; it has {', '.join(special) or 'none'}; "
                    f"name one of these, or null to put nothing there"
                )

    def open(self) -> Transform:
        """See `Map.open`."""
        self.check()
        tokenizer = open_tokenizer(self.tokenizer)
        bos, eos = ([] if token is None else [tokenizer.token_to_id(token)] for token in (self.bos, self.eos))
        facts = {"vocab_size": vocabulary_size(tokenizer), "tokenizer_sha256": _sha256(tokenizer_file(self.tokenizer))}
        facts |= {name: token[0] for name, token in (("bos_id", bos), ("eos_id", eos)) if token}
        field = pa.field(INPUT_IDS, id_type(vocabulary_size(tokenizer)), metadata={k: str(v) for k, v in facts.items()})
        prefix, suffix = np.array(bos, np.uint32), np.array(eos, np.uint32)

        def encode(docs: pa.Table) -> pa.Table:
            ids = [encode_text(tokenizer, text.as_py()) for column in docs["text"].chunks for text in column]
            drop = pa.array([None if len(each) else EMPTY for each in ids], pa.string())
            rows = [np.concatenate([prefix, each, suffix]) if len(each) else each for each in ids]
            table = docs.drop_columns([name for name in (INPUT_IDS, schema.DROP) if name in docs.column_names])
            return table.append_column(field, lists(rows, field.type)).append_column(schema.DROP, drop)

        return encode


def encode_text(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Return the ids of one text, uint32 [tokens], without special tokens."""
    # A batch of one: this call alone skips offsets, and more texts at once would use every core of the machine.
    return np.array(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids, np.uint32)


def lists(rows: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    """Return rows of ids as one list array of this type over one flat buffer."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    assert offsets[-1] < 2**31, "a table holds at most 2**31 tokens"
    flat = np.concatenate(rows) if rows else np.zeros(0)
    values = pa.array(flat.astype(kind.value_type.to_pandas_dtype()), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)


def id_type(vocab_size: int) -> pa.DataType:
    """Return the type of `input_ids` for a vocabulary of this size."""
    return pa.list_(pa.uint16() if vocab_size <= 2**16 else pa.uint32())


def tokenizer_file(path: str) -> Path:
    """Return the `tokenizer.json` that `path` is, or holds.

    Raises:
        InputError: there is none.
    """
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(
            f"tokenizer {path!r}: {file} does not exist; give a folder with a tokenizer.json or that file, "
            "or make one: python -m jobs train-tokenizer jobs/recipes/tokenizer-superbpe-8k.yaml"
        )
    return file


def open_tokenizer(path: str) -> Tokenizer:
    """Open the tokenizer of a `tokenizer.json` or of the folder that holds one; special tokens in texts are text to it.

    Raises:
        InputError: it is not there or cannot be read.
    """
    from tokenizers import Tokenizer

    file = tokenizer_file(path)
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"tokenizer {path!r}: {file} cannot be read as a tokenizer.json: {error}") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the number of ids, special tokens and gaps between ids counted."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id stands for; those of special tokens are their names, of unused ids nothing.

    Raises:
        InputError: the tokenizer is not byte-level.
    """
    letters = _letters()
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    found = [b""] * vocabulary_size(tokenizer)
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if token in added:
            found[i] = token.encode()
            continue
        try:
            found[i] = bytes(letters[letter] for letter in token)
        except KeyError as error:
            raise InputError(f"the tokenizer is not byte-level: its token {token!r} has the letter {error}") from error
    return found


def _letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (the table of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
