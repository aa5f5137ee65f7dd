"""The shard format, one definition for the writer and the reader; `docs/format.md` describes it for other languages.

A token shard is an uncompressed Arrow IPC file with a row a document. `input_ids` is a list column, so the values of a
record batch are one contiguous stream of tokens: tools see documents, the reader takes windows of the memory map.
Per-token scores lie in sidecar files with the same rows and the same list offsets. A corpus of texts is an Arrow IPC file
with zstd-compressed buffers.

Reads: nothing (`tokens/column.py` does). Writes: nothing itself; `exact` and `token_schema` are what the sinks write with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

VERSION = 1

# One record batch a file up to these bounds; they are part of the format's bytes, not of its meaning.
BATCH_TOKENS = 1 << 24
BATCH_ROWS = 1 << 20

TOKENS = "tokens"
SCORES = "scores"
REPEATS = "repeats"  # the kind of a file of counts, and its column: how often an epoch reads each document
DOCUMENTS = "documents"

ZST = ".zst"  # ends the name of the copy for transport of the file named before it

SCORES_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # of a model or policy, as part of file names

DOC_ID = "doc_id"
INPUT_IDS = "input_ids"
LENGTH = "tokens"  # of a document, in a file of counts

MOST_REPEATS = 255

# Keys of the metadata of a file's schema.
VERSION_KEY = "gristmill.version"
KIND_KEY = "gristmill.kind"
SCHEME_KEY = "gristmill.scheme"
TOKENIZER_KEY = "gristmill.tokenizer_sha256"
VOCABULARY_KEY = "gristmill.vocab_size"
BOS_KEY = "gristmill.bos_id"
EOS_KEY = "gristmill.eos_id"

ID_TYPES = {"uint16": pa.uint16(), "uint32": pa.uint32()}
COLUMN_TYPES = {"float16": pa.float16(), "float32": pa.float32(), "bool": pa.bool_()}  # of per-token columns in sidecars


@dataclass(frozen=True)
class Tokenizer:
    """What the shards know of their tokenizer.

    `sha256` of its file (hex), size of the vocabulary, and the ids put before and after each document, None where none was.
    `file`: the name of its file in the build's folder, None where the build does not have it. `left_out`: names of the special
    tokens that the file's `post_processor` prescribes around each text and the build does not put there.
    """

    sha256: str
    vocab_size: int
    bos_id: int | None = None
    eos_id: int | None = None
    file: str | None = None
    left_out: tuple[str, ...] = ()


def file_name(kind: str, number: int) -> str:
    """Return the name of a build's file, such as `tokens-00000.arrow` or `scores-rho1-00000.arrow`; of a copy with `.zst`."""
    return f"{kind.removesuffix(ZST)}-{number:05d}.arrow{ZST if kind.endswith(ZST) else ''}"


def token_list(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column with one `kind` a token."""
    return pa.list_(pa.field("item", kind, nullable=False))


def token_schema(ids: pa.DataType, tokenizer: Tokenizer, extra: Sequence[pa.Field] = ()) -> pa.Schema:
    """Return the schema of token shards.

    Args:
        ids: pa.uint16() or pa.uint32().
        tokenizer: what made the ids.
        extra: columns after the fixed ones, such as `language`.
    """
    fields = [
        pa.field(DOC_ID, pa.string(), nullable=False),
        pa.field(INPUT_IDS, token_list(ids), nullable=False),
        pa.field("url", pa.string()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("text_bytes", pa.int32(), nullable=False),
        pa.field("date", pa.timestamp("s", tz="UTC")),
    ]
    metadata = {
        VERSION_KEY: str(VERSION),
        KIND_KEY: TOKENS,
        TOKENIZER_KEY: tokenizer.sha256,
        VOCABULARY_KEY: str(tokenizer.vocab_size),
    }
    special = {BOS_KEY: tokenizer.bos_id, EOS_KEY: tokenizer.eos_id}
    metadata |= {key: str(value) for key, value in special.items() if value is not None}
    return pa.schema([*fields, *extra], metadata=metadata)


def column_type(kind: pa.DataType) -> str | None:
    """Return the name of the type of a per-token column (a key of COLUMN_TYPES) of type list<kind>; None if it is none."""
    listed = pa.types.is_list(kind)
    return next((name for name, value in COLUMN_TYPES.items() if listed and kind.value_type == value), None)


def score_schema(name: str, columns: Sequence[pa.Field]) -> pa.Schema:
    """Return the schema of a sidecar: the document's id, and for each column a list as long as the document's tokens.

    Args:
        name: of the model or policy that the columns come from, such as `rho1`.
        columns: fields whose type is a list of float16, float32 or bool.
    """
    lists = [pa.field(c.name, token_list(c.type.value_type), nullable=False, metadata=_sorted(c.metadata)) for c in columns]
    metadata = {VERSION_KEY: str(VERSION), KIND_KEY: SCORES, SCHEME_KEY: name}
    return pa.schema([pa.field(DOC_ID, pa.string(), nullable=False), *lists], metadata=metadata)


def repeats_schema() -> pa.Schema:
    """Return the schema of a file of counts: how often an epoch reads each document of a shard, 1 to 255, and its tokens."""
    fields = [pa.field(REPEATS, pa.uint8(), nullable=False), pa.field(LENGTH, pa.int32(), nullable=False)]
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION), KIND_KEY: REPEATS})


def document_schema(columns: Sequence[pa.Field]) -> pa.Schema:
    """Return the schema of a corpus of texts: the given columns, dictionaries decoded."""
    fields = [c.with_type(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in columns]
    return pa.schema([f.with_metadata(_sorted(f.metadata)) for f in fields], {VERSION_KEY: str(VERSION), KIND_KEY: DOCUMENTS})


def _sorted(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    return dict(sorted(metadata.items())) if metadata else None


# ---- canonical arrays: equal values have equal bytes ----


def exact(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return `array` as type `kind`, laid out so that equal values give equal bytes in an IPC file.

    Buffers start at the first value and end with the last, a validity bitmap is there only if there are nulls, and what
    lies under a null is zero. Slices and builders leave traces in all of these otherwise. Buffers are shared where they can be.

    Raises:
        ValueError: a type that this format does not hold (maps, unions, views, fixed-size lists).
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    if pa.types.is_null(kind):
        return pa.nulls(len(array))
    if pa.types.is_struct(kind):
        children = [exact(child, kind.field(i).type) for i, child in enumerate(array.flatten())]
        return pa.Array.from_buffers(kind, len(array), [bitmap], children=children)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        offsets = _offsets(array.value_lengths().fill_null(0), wide=pa.types.is_large_list(kind))
        return pa.Array.from_buffers(kind, len(array), [bitmap, offsets], children=[exact(array.flatten(), kind.value_type)])
    assert array.type == kind, f"found {array.type}, expected {kind}"
    if _is_bytes(kind):
        return _exact_bytes(array, kind, bitmap)
    if pa.types.is_boolean(kind):
        bits = np.packbits(array.fill_null(False).to_numpy(zero_copy_only=False), bitorder="little")
        return pa.Array.from_buffers(kind, len(array), [bitmap, pa.py_buffer(bits)])
    if not pa.types.is_primitive(kind):
        raise ValueError(
            f"a column of type {kind} cannot be stored; allowed are numbers, times, strings, lists and structs of these"
        )
    return _exact_numbers(array, kind, bitmap, valid)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    )


def _is_wide(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _offsets(lengths: pa.Array, *, wide: bool) -> pa.Buffer:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64 if wide else np.int32)
    np.cumsum(lengths.to_numpy(), out=offsets[1:])
    return pa.py_buffer(offsets)


def _exact_bytes(array: pa.Array, kind: pa.DataType, bitmap: pa.Buffer | None) -> pa.Array:
    empty = "" if pa.types.is_string(kind) or pa.types.is_large_string(kind) else b""
    filled = array.fill_null(pa.scalar(empty, kind)) if bitmap is not None else array
    _, places, data = filled.buffers()
    number = np.int64 if _is_wide(kind) else np.int32
    offsets = np.zeros(1, dtype=number)  # an array of no rows may have no buffers at all
    if len(filled):
        offsets = np.frombuffer(places, dtype=number)[filled.offset : filled.offset + len(filled) + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    data = pa.py_buffer(b"") if begin == end else data.slice(begin, end - begin)
    return pa.Array.from_buffers(kind, len(filled), [bitmap, pa.py_buffer(offsets - offsets[0]), data])


def _exact_numbers(array: pa.Array, kind: pa.DataType, bitmap: pa.Buffer | None, valid: npt.NDArray[np.bool_] | None) -> pa.Array:
    width = kind.bit_width // 8
    data = array.buffers()[1]
    data = pa.py_buffer(b"") if len(array) == 0 else data.slice(array.offset * width, len(array) * width)
    if valid is not None:
        rows = np.frombuffer(data, dtype=np.uint8).reshape(len(array), width).copy()
        rows[~valid] = 0
        data = pa.py_buffer(rows)
    return pa.Array.from_buffers(kind, len(array), [bitmap, data])
