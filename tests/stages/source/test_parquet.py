"""Parquet tables against pyarrow's own reading, across row groups, and damaged."""

import io
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.schema import DOCUMENT, check
from stages.source.parquet import ParquetSource
from stages.source.rows import SCHEMA
from tests.stages.source.archives import Memory, memory, scan

SOURCE = ParquetSource(paths="")


def packed(table, **options):
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


def texts(count):
    return pa.table({"text": [f"text {n**9:x}" for n in range(count)], "url": [f"http://site.test/{n}" for n in range(count)]})


@pytest.mark.parametrize("group", [10, 999, 5000])
@pytest.mark.parametrize("batch_rows", [64, 10_000])
def test_rows_come_in_order_for_any_row_group_and_batch(group, batch_rows):
    table = texts(3000)
    rows = scan(SOURCE, memory(packed(table, row_group_size=group)), batch_rows)
    check(rows, DOCUMENT, "parquet")
    assert rows.schema == SCHEMA
    assert rows.select(["text", "url"]).to_pydict() == table.to_pydict()
    assert rows["offset"].to_pylist() == list(range(3000))


def test_a_row_is_read_again_by_its_number():
    file = memory(packed(texts(3000), row_group_size=700))
    rows = scan(SOURCE, file)
    for number in (0, 699, 700, 2999):
        assert SOURCE.fetch(file, number, 0).equals(rows.slice(number, 1))
    with pytest.raises(InputError, match="no row 3000"):
        SOURCE.fetch(file, 3000, 0)


def test_null_empty_and_undecodable_texts():
    raw = pa.array([b"good", None, b" ", b"\xff\xfe"], pa.binary())
    text = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    rows = scan(SOURCE, memory(packed(pa.table({"text": text})))).to_pylist()
    assert [(row["text"], row["drop"], row["error"]) for row in rows] == [
        ("good", None, None),
        ("", None, "'text' is null"),
        ("", "empty", None),
        ("", None, "'text' is not UTF-8"),
    ]


@pytest.mark.parametrize(
    "dates",
    [
        pa.array([datetime(2024, 5, 6, tzinfo=UTC)], pa.timestamp("ns", tz="UTC")),
        pa.array([datetime(2024, 5, 6)], pa.timestamp("us")),
        pa.array([datetime(2024, 5, 6, tzinfo=UTC)], pa.timestamp("ms", tz="Asia/Tokyo")),
        pa.array([date(2024, 5, 6)], pa.date32()),
        pa.array(["2024-05-06T00:00:00Z"]),
        pa.array(["2024-05-06"]),
    ],
)
def test_dates_of_any_type(dates):
    rows = scan(ParquetSource(paths="", date_column="when"), memory(packed(pa.table({"text": ["a"], "when": dates}))))
    assert rows["date"].to_pylist() == [datetime(2024, 5, 6, tzinfo=UTC)]


def test_dates_that_python_cannot_hold_are_null():
    far = pa.array([2**50], pa.int64()).cast(pa.timestamp("ms"))
    assert scan(SOURCE, memory(packed(pa.table({"text": ["a"], "date": far}))))["date"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (pa.table({"body": ["a"]}), "no column 'text'; found body"),
        (pa.table({"text": [1]}), "column 'text' is int64, not a string"),
    ],
)
def test_a_table_without_text_is_one_error(table, error):
    rows = scan(SOURCE, memory(packed(table))).to_pylist()
    assert [row["error"] for row in rows] == [error]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"nothing of the kind" * 100, packed(texts(50))[:-20]])
def test_a_file_that_is_no_parquet_is_one_error(data):
    rows = scan(SOURCE, memory(data)).to_pylist()
    assert len(rows) == 1
    assert rows[0]["error"].startswith("damaged Parquet")


GOOD = packed(texts(400), row_group_size=100, compression="snappy")


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(GOOD.index(b"schema") + 12, 255)  # the name of a column
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_never_raises(place, flip):
    data = bytearray(GOOD)
    data[place] ^= flip
    rows = scan(SOURCE, memory(bytes(data))).to_pylist()
    assert [row["offset"] for row in rows] == list(range(len(rows)))
    assert all(row["error"] is None or row["text"] == "" for row in rows)


class Fragile(Memory):
    def open(self):
        class Stream(io.BytesIO):
            def read(self, count=-1):
                if self.tell() < 5000:
                    raise ConnectionResetError("the store went away")
                return super().read(count)

        return Stream(self.data)


def test_errors_of_the_store_are_raised():
    with pytest.raises(ConnectionResetError):
        scan(SOURCE, Fragile("f", "f", len(GOOD), "1", GOOD))
