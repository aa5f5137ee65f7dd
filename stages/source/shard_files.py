"""The files of a finished build, opened and checked before anything in them is used: for the `tokens` source.

Reads token shards and their sidecars (`gristmill.format`). Whatever another program, a broken disk or another version wrote is an
InputError that names the file, never an exception of Arrow.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa

from gristmill.errors import InputError
from gristmill.format import schema as fmt
from gristmill.storage.store import open_read

PIECE = 1 << 20  # bytes read at once for a checksum
_NEVER_NULL = (fmt.DOC_ID, fmt.INPUT_IDS, "file", "offset", "length", "text_bytes")
_ANY = fmt.Tokenizer(sha256="", vocab_size=0)


@contextlib.contextmanager
def shard_file(uri: str, sha256: str, kind: str, columns: Sequence[str]) -> Iterator[ShardFile]:
    """Give a file of a build while the context lasts.

    Args:
        uri: where it lies.
        sha256: what the manifest says of it.
        kind: `tokens`, `scores` or `repeats`.
        columns: lists, one value a token, that must be there.

    Raises:
        InputError: missing, no Arrow IPC file, of another kind or version, or with other columns than such a file has.
    """
    try:
        stream = open_read(uri)
    except FileNotFoundError as error:
        raise InputError(f"{uri}: missing, though the build names it; copy the build again") from error
    with stream:
        yield ShardFile(stream, uri, sha256, kind, columns)


class ShardFile:
    """One file of a build that is what its name says; see `shard_file`."""

    def __init__(self, stream: BinaryIO, uri: str, sha256: str, kind: str, columns: Sequence[str]) -> None:
        self.uri = uri
        self._stream = stream
        self._sha256 = sha256
        with self._told():
            self._reader = pa.ipc.open_file(self._stream)
            self.schema: pa.Schema = self._reader.schema
            facts = {key.decode(): value.decode() for key, value in (self.schema.metadata or {}).items()}
            names: list[str] = self.schema.names  # here, where names that are no text are reported as damage
        found, known = (facts.get(fmt.VERSION_KEY), facts.get(fmt.KIND_KEY)), (str(fmt.VERSION), kind)
        if found != known:
            raise InputError(f"{uri}: format version and kind are {found}, not {known}: no file of such a build; copy it again")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{uri}: has {names.count(twice)} columns called {twice!r}; copy the build again")
        if kind == fmt.TOKENS:
            self._check_types(fmt.token_schema(pa.uint16(), _ANY))
        if kind == fmt.REPEATS and not self.schema.equals(fmt.repeats_schema()):
            raise InputError(f"{uri}: has columns {', '.join(map(str, self.schema))}, not those of counts; copy the build again")
        for column in columns:
            self._check_list(column)

    @property
    def batches(self) -> int:
        """How many record batches it has."""
        return int(self._reader.num_record_batches)

    def batch(self, number: int) -> pa.RecordBatch:
        """Return a record batch. Raises InputError when its buffers cannot be what it says."""
        with self._told():
            batch = self._reader.get_batch(number)
            batch.validate(full=True)
        for name in _NEVER_NULL:
            column = batch.column(name) if name in self.schema.names else None
            if column is not None and (column.null_count or (pa.types.is_list(column.type) and column.values.null_count)):
                raise InputError(f"{self.uri}: column {name!r} has nulls, which no build has; copy it again")
        return batch

    def verify(self) -> None:
        """Raise InputError unless the bytes are those that the manifest names."""
        self._stream.seek(0)
        digest = hashlib.sha256()
        while piece := self._stream.read(PIECE):
            digest.update(piece)
        if digest.hexdigest() != self._sha256:
            raise InputError(
                f"{self.uri}: damaged, sha256 is {digest.hexdigest()}, the build says {self._sha256}; copy the build again"
            )

    def _check_types(self, expected: pa.Schema) -> None:
        for field in expected:
            if field.name not in self.schema.names:
                raise InputError(
                    f"{self.uri}: no column {field.name!r}; it has {', '.join(map(repr, self.schema.names)) or 'none'}"
                )
            if field.name == fmt.INPUT_IDS:
                self._check_list(field.name, list(fmt.ID_TYPES.values()))
            elif self.schema.field(field.name).type != field.type:
                found = self.schema.field(field.name).type
                raise InputError(f"{self.uri}: column {field.name!r} is {found}, not {field.type}; copy the build again")

    def _check_list(self, column: str, kinds: Sequence[pa.DataType] = tuple(fmt.COLUMN_TYPES.values())) -> None:
        if column not in self.schema.names:
            raise InputError(f"{self.uri}: no column {column!r}, though the build says so; copy the build again")
        kind = self.schema.field(column).type
        if not pa.types.is_list(kind) or kind.value_type not in kinds:
            listed = " or ".join(map(str, kinds))
            raise InputError(f"{self.uri}: column {column!r} is {kind}, not a list of {listed} a document; copy the build again")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what Arrow says of the file's content as an InputError; errors of the store stay what they are."""
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None) is not None:  # the system's; Arrow's own have none
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(f"{self.uri}: damaged, or no file of a build ({said}); copy the build again") from error
