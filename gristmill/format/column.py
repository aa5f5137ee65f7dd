"""One per-token column of a shard on a memory map: where its values lie in memory, and where documents begin.

Reads: token shards and sidecars (`format.py`), by memory map; nothing is copied. Writes: nothing.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.mapping import Mapping

BITS = np.dtype(np.bool_)  # stored eight to a byte


@dataclass(frozen=True, slots=True)
class Extent:
    """The values of one record batch: contiguous in memory.

    Attributes:
        begin: number in the shard of the first token.
        count: tokens.
        address: of its first value, counted in values: in bytes divided by the width of one; in bits for booleans.
        offsets: int32, (documents + 1,): the borders of the documents, from 0 to `count`.
        first_row: row in the shard of the first document.
    """

    begin: int
    count: int
    address: int
    offsets: npt.NDArray[np.int32]
    first_row: int


class TokenColumn:
    """One per-token column of a file: its extents, and the memory map that they lie in.

    Attributes:
        path: the file.
        dtype: numpy type of a value; bool where eight values share a byte.
        extents: a record batch each.
        tokens: values in all of them.
        documents: rows in all of them.

    Raises:
        FormatError: what the file says of its buffers cannot be. Values are read by address, so nothing later would notice.
    """

    def __init__(self, path: Path, mapped: Mapping, reader: pa.ipc.RecordBatchFileReader, column: str) -> None:
        self.path = path
        self.extents: list[Extent] = []
        self.tokens = self.documents = 0
        self._mapped = mapped
        self._arrays = []
        try:
            for number in range(reader.num_record_batches):
                self._arrays.append(reader.get_batch(number).column(column))
                self._arrays[-1].validate()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(column, str(error)) from error
        kind = reader.schema.field(column).type.value_type
        self.dtype = BITS if pa.types.is_boolean(kind) else np.dtype(kind.to_pandas_dtype())
        for array in self._arrays:
            offsets = array.offsets.to_numpy()
            if offsets[0] < 0 or (offsets[1:] < offsets[:-1]).any() or offsets[-1] > len(array.values):
                raise self._damaged(column, "documents that end before they begin, or after the values")
            address = self._address(array.values.buffers()[1], array.values.offset + int(offsets[0]))
            self.extents.append(Extent(self.tokens, int(offsets[-1] - offsets[0]), address, offsets - offsets[0], self.documents))
            self.tokens += self.extents[-1].count
            self.documents += len(array)

    def _damaged(self, column: str, what: str) -> FormatError:
        return FormatError(f"{self.path}: {column} cannot be read ({what}); the file is damaged, copy it again")

    def _address(self, values: pa.Buffer | None, first: int) -> int:
        if values is None:  # no value at all
            return 0
        address = int(values.address)
        return address * 8 + first if self.dtype == BITS else address // self.dtype.itemsize + first

    def extent(self, token: int) -> Extent:
        """Return the extent that token number `token` of the shard lies in."""
        return self.extents[bisect_right(self.extents, token, key=lambda e: e.begin) - 1]

    def locate(self, token: int) -> tuple[int, int]:
        """Return (row in the shard, position in the document) of a token."""
        extent = self.extent(token)
        row = int(np.searchsorted(extent.offsets, np.int32(token - extent.begin), side="right")) - 1
        return extent.first_row + row, token - extent.begin - int(extent.offsets[row])

    def lengths(self) -> npt.NDArray[np.int32]:
        """Return the number of tokens of each document, int32, (documents,)."""
        found = [np.diff(extent.offsets) for extent in self.extents]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int32)

    def will_need(self, first: int, last: int) -> None:
        """Ask the system to read the bytes of the memory map from address `first` to `last` before they are used."""
        self._mapped.advise(mmap.MADV_WILLNEED, first, last)


def open_mapped(path: Path, kind: str) -> tuple[Mapping, pa.ipc.RecordBatchFileReader, list[str]]:
    """Map a file of this format into memory and check what its metadata says; return (the map, a reader on it, its columns).

    Raises:
        FormatError: missing, not an Arrow IPC file, or another kind or version.
    """
    try:
        mapped = Mapping(path)
        mapped.advise(mmap.MADV_RANDOM)  # shuffled windows: read-ahead would fetch tens of times the bytes needed
        reader = pa.ipc.open_file(mapped.buffer())
        metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
        names: list[str] = reader.schema.names  # here, where damaged text is reported as damage
    except FileNotFoundError as error:
        raise FormatError(f"{path}: missing; copy all files of the build") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # the system's; Arrow's own have none
            raise
        raise FormatError(
            f"{path}: not a readable Arrow IPC file ({error}); the file is damaged or incomplete, copy it again"
        ) from error
    found = (metadata.get(fmt.VERSION_KEY), metadata.get(fmt.KIND_KEY))
    if found != (str(fmt.VERSION), kind):
        raise FormatError(f"{path}: format version and kind are {found}; this reader knows {(str(fmt.VERSION), kind)}")
    return mapped, reader, names


def counted(path: Path, column: str) -> tuple[int, int] | None:
    """Return (documents, tokens) that a token shard says it has, None where it is damaged: `open_column` says how.

    Reads its metadata and the ends of its record batches: 0.25 ms a shard in memory.
    """
    try:
        _, reader, names = open_mapped(path, fmt.TOKENS)
        _check_list(path, reader, names, column)
        arrays = [reader.get_batch(number).column(column) for number in range(reader.num_record_batches)]
    except (FormatError, pa.ArrowException, OSError):
        return None
    ends = [array.offsets[:: len(array)].to_pylist() for array in arrays if len(array)]
    return sum(map(len, arrays)), sum(last - first for first, last in ends)


def open_column(path: Path, kind: str, column: str) -> TokenColumn:
    """Open one per-token column of a shard or sidecar without copying. Raises FormatError when it is not there."""
    mapped, reader, names = open_mapped(path, kind)
    _check_list(path, reader, names, column)
    return TokenColumn(path, mapped, reader, column)


def _check_list(path: Path, reader: pa.ipc.RecordBatchFileReader, names: Sequence[str], column: str) -> None:
    if column not in names:
        raise FormatError(f"{path}: no column {column!r}; it has {', '.join(names)}")
    stored = reader.schema.field(column).type
    if not pa.types.is_list(stored) or not (pa.types.is_primitive(stored.value_type) or pa.types.is_boolean(stored.value_type)):
        raise FormatError(
            f"{path}: column {column!r} is of type {stored}, not a list of numbers or bools a document; copy it again"
        )


def read_row(path: Path, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """Return one document of a token shard as a dict of Python values (all columns, or those named).

    Raises:
        IndexError: `row` is not in the file.
    """
    _, reader, _ = open_mapped(path, fmt.TOKENS)
    left = row
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        if 0 <= left < batch.num_rows:
            return dict(batch.select(columns or batch.schema.names).slice(left, 1).to_pylist()[0])
        left -= batch.num_rows
    raise IndexError(f"{path}: no row {row}; it has {row - left} rows")
