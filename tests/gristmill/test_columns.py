"""Columns as flat arrays and back: whatever pieces and slices a column comes in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from gristmill.columns import append, as_bytes, as_lists, flat_bytes, flat_lists, flat_texts, replace, whole, without

ROWS = [[1, 2], [], [3], [4, 5, 6], []]
IDS = pa.list_(pa.uint16())


def columns() -> list[pa.ChunkedArray | pa.Array]:
    """Return the same lists in every form they come in."""
    array = pa.array(ROWS, IDS)
    padded = pa.array([[9, 9], *ROWS, [8]], IDS)
    hidden = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5, 8, 8], pa.int32()),
        pa.array([1, 2, 7, 7, 3, 4, 5, 6], pa.uint16()),
        mask=pa.array([False, True, False, False, False]),  # a null over values that are nobody's
    )
    return [
        array,
        padded.slice(1, len(ROWS)),
        pa.chunked_array([array]),
        pa.chunked_array([array.slice(0, 2), padded.slice(3, 1), array.slice(3), array.slice(5)]),
        hidden,
        pa.chunked_array([hidden.slice(0, 3), hidden.slice(3)]),
    ]


@pytest.mark.parametrize("column", columns(), ids=["array", "slice", "chunk", "chunks", "null", "null_chunks"])
def test_values_and_bounds_of_lists(column: pa.ChunkedArray | pa.Array) -> None:
    values, bounds = flat_lists(column)
    assert (values.dtype, bounds.dtype) == (np.uint16, np.int64)
    assert values.tolist() == [1, 2, 3, 4, 5, 6]
    assert bounds.tolist() == [0, 2, 2, 3, 6, 6]


@pytest.mark.parametrize("kind", [pa.uint16(), pa.float16(), pa.bool_()], ids=str)
def test_no_list_at_all(kind: pa.DataType) -> None:
    for column in (pa.array([], pa.list_(kind)), pa.chunked_array([], pa.list_(kind))):
        values, bounds = flat_lists(column)
        assert values.dtype == np.dtype(kind.to_pandas_dtype())
        assert (values.tolist(), bounds.tolist()) == ([], [0])
        assert as_lists(values, bounds, pa.list_(kind)).equals(whole(column))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([1, 2, 65535], np.uint16), pa.uint16()),
        (np.array([1, np.nan, np.inf], np.float16), pa.float16()),
        (np.array([True, False, True]), pa.bool_()),
    ],
    ids=["ids", "losses", "marks"],
)
def test_lists_of_flat_values_and_back(values: np.ndarray, kind: pa.DataType) -> None:
    made = as_lists(values, np.array([0, 1, 1, 3]), pa.list_(kind))
    assert made.type == pa.list_(kind)
    assert made.null_count == made.values.null_count == 0
    assert made.value_lengths().to_pylist() == [1, 0, 2]
    back, bounds = flat_lists(made)
    assert back.tobytes() == values.tobytes()
    assert bounds.tolist() == [0, 1, 1, 3]


def test_bounds_of_other_values_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="3 values with bounds to 2"):
        as_lists(np.zeros(3, np.uint16), np.array([0, 2]), IDS)


def test_values_of_one_array_are_not_copied() -> None:
    array = pa.array(ROWS, IDS)
    address = array.values.buffers()[1].address
    assert flat_lists(pa.chunked_array([array.slice(1)]))[0].ctypes.data == address + 2 * 2
    assert whole(pa.chunked_array([array])).values.buffers()[1].address == address


@pytest.mark.parametrize("kept", [slice(0, 4), slice(1, 3), slice(2, 2)], ids=str)
def test_bytes_of_texts(kept: slice) -> None:
    texts = ["a", "", "bä", None]
    array = pa.array(texts, pa.string())
    part = array.slice(kept.start, kept.stop - kept.start)
    data, bounds = flat_texts(part)
    assert (data.dtype, bounds.dtype) == (np.uint8, np.int64)
    found = [data[begin:end].tobytes().decode() for begin, end in pairwise(bounds.tolist())]
    assert found == [text or "" for text in texts[kept]]


def test_texts_without_a_byte() -> None:
    for array in (pa.array(["", ""]), pa.array([None, None], pa.string()), pa.nulls(2, pa.string())):
        data, bounds = flat_texts(array)
        assert data.dtype == np.uint8
        assert bounds.tolist() == [0, 0, 0]


def test_fixed_bytes_and_back() -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(4, 3)
    made = as_bytes(rows, 3)
    assert made.to_pylist() == [row.tobytes() for row in rows]
    assert flat_bytes(made.slice(1, 2)).tolist() == rows[1:3].tolist()
    assert flat_bytes(pa.chunked_array([made.slice(2), made.slice(0, 1)])).tolist() == rows[[2, 3, 0]].tolist()
    assert flat_bytes(pa.array([], pa.binary(3))).shape == (0, 3)


def test_columns_go_to_the_end_once() -> None:
    table = pa.table({"id": ["a", "b"], "old": [1, 2], "text": ["x", "y"]})
    field = pa.field("old", pa.float32(), metadata={"about": "new"})
    made = append(table, {field: pa.array([0.5, 1.5], pa.float32()), pa.field("drop", pa.string()): pa.nulls(2, pa.string())})
    assert made.column_names == ["id", "text", "old", "drop"]
    assert made.schema.field("old").equals(field, check_metadata=True)
    assert made["old"].to_pylist() == [0.5, 1.5]
    assert without(made, ("drop", "nothing")).column_names == ["id", "text", "old"]


def test_values_are_replaced_in_their_place() -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False, metadata={"of": "it"}), pa.field("n", pa.int64())])
    table = pa.table({"id": ["a"], "n": [1]}, schema=schema)
    made = replace(table, {"id": pa.array(["b"])})
    assert made.schema.equals(schema, check_metadata=True)
    assert made.to_pylist() == [{"id": "b", "n": 1}]
