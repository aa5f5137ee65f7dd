"""Arrow columns as flat numpy arrays, and back: values and bounds of lists and texts, columns replaced in a table.

Reads and makes pyarrow arrays and tables; nothing is copied where that can be avoided. Everybody who looks into a column imports
this, so it imports numpy and pyarrow alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bounds = npt.NDArray[np.int64]

MOST_VALUES = 2**31 - 1  # of one list array: its offsets are int32


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, without a copy where it is one already (`combine_chunks` copies even then)."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def flat_lists(column: pa.ChunkedArray | pa.Array) -> tuple[npt.NDArray[Any], Bounds]:
    """Return the values of a column of lists, and where each list begins.

    Args:
        column: lists of numbers or bools without nulls in them; a null list has no values.

    Returns:
        values: [values], of the column's type; a view, but for bools.
        bounds: int64 [rows + 1], from 0; list r is values[bounds[r]:bounds[r + 1]].
    """
    array = whole(column)
    lengths = array.value_lengths().fill_null(0).to_numpy()
    bounds = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return array.flatten().to_numpy(zero_copy_only=False), bounds


def flat_texts(texts: pa.StringArray) -> tuple[npt.NDArray[np.uint8], Bounds]:
    """Return the bytes of an array of strings, without a copy, and where each text begins in them.

    Returns:
        data: uint8 [bytes], those of the whole buffer: a sliced array's texts do not begin at 0.
        bounds: int64 [texts + 1]; text t is data[bounds[t]:bounds[t + 1]]. A null is an empty text.
    """
    if not len(texts):  # such an array may have no buffers
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), bounds


def flat_bytes(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.uint8]:
    """Return a column of fixed-size binaries without nulls as uint8 [rows, width], without a copy where it is one array."""
    array = whole(column)
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], np.uint8) if len(array) else np.zeros(0, np.uint8)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(-1, width)


def as_lists(values: npt.NDArray[Any], bounds: npt.NDArray[np.integer[Any]], kind: pa.DataType) -> pa.ListArray:
    """Return lists over one flat buffer, the reverse of `flat_lists`.

    Args:
        values: [values], of the numpy type of the lists' values.
        bounds: [rows + 1], ascending from 0 to the number of values, at most `MOST_VALUES`.
        kind: list<...>.
    """
    assert bounds[-1] == len(values) <= MOST_VALUES, f"{len(values)} values with bounds to {bounds[-1]}, at most {MOST_VALUES}"
    return pa.ListArray.from_arrays(pa.array(bounds.astype(np.int32)), pa.array(values, kind.value_type), type=kind)


def as_bytes(data: npt.NDArray[Any], width: int) -> pa.FixedSizeBinaryArray:
    """Return the rows of a contiguous array, each of `width` bytes, as fixed-size binaries, the reverse of `flat_bytes`."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data)])


def without(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return a table without these columns, whether it has them or not."""
    return table.drop_columns([name for name in names if name in table.column_names])


def append(table: pa.Table, columns: Mapping[pa.Field, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Return a table with these as its last columns, in their order; those of the same names are gone."""
    table = without(table, (field.name for field in columns))
    for field, column in columns.items():
        table = table.append_column(field, column)
    return table


def replace(table: pa.Table, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Return a table with other values in columns that it has; their places, types and metadata stay."""
    for name, column in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table
