"""Tables of annotations: files of rows with a key and columns, as arrays, and the rows that keys lead to.

Reads Parquet, Arrow IPC and JSONL from any store; a file's name says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import flat_texts
from gristmill.errors import InputError, StoreError
from gristmill.storage.store import InputFile

TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": pa.float32(),
    "float64": pa.float64(),
}
MOST_BYTES = 2**31 - 1  # of all keys, and of a column of texts: offsets are int32
LINE_BYTES = 16 << 20  # of a line at most
COLUMNS = 20  # named in a message

Columns = Sequence[tuple[str, pa.DataType]]


@dataclass(frozen=True)
class Annotations:
    """A table in memory: `keys` and `columns` [rows], and what finds a key: hashes in rising order, and the row of each."""

    keys: pa.StringArray
    columns: Sequence[pa.Array]
    ordered: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int64]

    def find(self, texts: pa.StringArray) -> npt.NDArray[np.int64]:
        """Return the first row of each key, int64 [texts], −1 where there is none; a null is no key."""
        from stages.classify import matching

        data, bounds = flat_texts(texts)
        hashes, out = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.int64)
        matching.hash_texts(data, bounds, hashes)
        matching.match(data, bounds, hashes, *flat_texts(self.keys), self.ordered, self.rows, out)
        out[texts.is_null().to_numpy(zero_copy_only=False)] = -1
        return out


def load(files: Sequence[InputFile], key: str, columns: Columns, *, unique: bool) -> Annotations:
    """Return the rows of all files, in order, those without a key left out.

    Args:
        files: of the table.
        key: the column of keys, texts.
        columns: the other columns that are wanted, each by its name in the files, and the type that it becomes.
        unique: a key may stand in one row only.

    Raises:
        InputError: a file that cannot be read or lacks a column, a value that does not fit its type, a column without any, a key
            that is there twice.
    """
    from stages.classify import matching

    wanted = ((key, pa.string()), *columns)
    parts = [_typed(file, _read(file, wanted), wanted) for file in files]
    arrays = [_together([part[at] for part in parts], name) for at, (name, _) in enumerate(wanted)]
    data, bounds = flat_texts(arrays[0])
    hashes = np.zeros(len(arrays[0]), np.uint64)
    matching.hash_texts(data, bounds, hashes)
    rows = np.argsort(hashes, kind="stable").astype(np.int64)
    found = Annotations(arrays[0], arrays[1:], hashes[rows], rows)
    at = matching.twice(data, bounds, found.ordered, rows) if unique else -1
    if at >= 0:
        twin = arrays[0][int(rows[at])].as_py()
        raise InputError(f"tables: {key} {twin!r} stands in two rows; make keys differ, or take the first row: duplicates: first")
    return found


def _together(parts: Sequence[pa.ChunkedArray], name: str) -> pa.Array:
    """Return one column of all files as one array."""
    column = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
    if pa.types.is_string(column.type) and (size := pc.sum(pc.binary_length(column)).as_py() or 0) > MOST_BYTES:
        raise InputError(f"tables: column {name!r} has {size} bytes of text, at most {MOST_BYTES} can be held; join less at once")
    if column.null_count == len(column):
        raise InputError(f"tables: no row has a value of column {name!r}; is that its name?")
    return column.combine_chunks()


def _typed(file: InputFile, table: pa.Table, wanted: Columns) -> list[pa.ChunkedArray]:
    """Return the columns of rows that have a key, of the types that are wanted."""
    table, found = table.filter(pc.is_valid(table[wanted[0][0]])), []
    for name, kind in wanted:
        column = table[name]
        if pa.types.is_string(kind) != _is_text(column.type) and not pa.types.is_null(column.type):
            raise InputError(f"{file.uri}: column {name!r} is {column.type}, expected {kind}")
        try:
            found.append(pc.cast(column, kind))
        except pa.ArrowInvalid as error:
            raise InputError(f"{file.uri}: column {name!r} does not fit {kind}: {error}") from error
    return found


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _read(file: InputFile, wanted: Columns) -> pa.Table:
    """Return a file's table. Raises InputError where it is none, or lacks a column."""
    reader = next((each for ending, each in READERS.items() if file.uri.lower().endswith(ending)), None)
    if reader is None:
        raise InputError(f"{file.uri}: is no table by its name; those that are read end in {', '.join(READERS)}")
    with file.open() as stream:
        try:
            table = reader(pa.PythonFile(stream, "r"), wanted)
        except StoreError:
            raise
        except (pa.ArrowException, OSError) as error:  # pyarrow raises OSError for damaged data too
            raise InputError(f"{file.uri}: cannot be read as a table: {str(error).splitlines()[0][:200]}") from error
    for name, _ in wanted:
        if table.column_names.count(name) != 1:
            there = ", ".join(map(repr, table.column_names[:COLUMNS])) or "none"
            raise InputError(f"{file.uri}: has {table.column_names.count(name)} columns {name!r}; it has {there}")
    return table


def _parquet(stream: pa.NativeFile, wanted: Columns) -> pa.Table:
    import pyarrow.parquet as pq

    source = pq.ParquetFile(stream)
    names = source.schema_arrow.names
    lacks = any(names.count(name) != 1 for name, _ in wanted)
    return source.schema_arrow.empty_table() if lacks else source.read(columns=[name for name, _ in wanted])


def _arrow(stream: pa.NativeFile, wanted: Columns) -> pa.Table:
    return pa.ipc.open_file(stream).read_all()


def _lines(stream: pa.NativeFile, wanted: Columns) -> pa.Table:
    from pyarrow import json

    # With their types given, no text is taken for a date.
    schema = pa.schema(dict(wanted))
    parsing = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return json.read_json(stream, json.ReadOptions(use_threads=False, block_size=LINE_BYTES), parsing)


def _packed_lines(stream: pa.NativeFile, wanted: Columns) -> pa.Table:
    return _lines(pa.CompressedInputStream(stream, "gzip"), wanted)


READERS = {".parquet": _parquet, ".arrow": _arrow, ".jsonl": _lines, ".jsonl.gz": _packed_lines}
