"""Parquet tables against pyarrow's own reading, across row groups, and damaged."""

import io
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill.errors import InputError
from pipeline.schema import DOCUMENT, check
from stages.source.parquet import ParquetSource
from stages.source.rows import SCHEMA
from tests.gristmill.archives.archives import Memory, memory, scan
from tests.random_examples import examples

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
        ("", None, "null_text: 'text' is null"),
        ("", "empty", None),
        ("", None, "bad_utf8: 'text' has invalid start byte at byte 0"),
    ]


GIVEN = ["short", "a text of more than twelve bytes", None, " ", "é" * 40, "short"]
EXPECTED = [(text if text and text.strip() else "", "empty" if text == " " else None) for text in GIVEN]
KINDS = {
    "string": lambda column: column,
    "large_string": lambda column: column.cast(pa.large_string()),
    "string_view": lambda column: column.cast(pa.string_view()),
    "binary": lambda column: column.cast(pa.binary()),
    "large_binary": lambda column: column.cast(pa.large_binary()),
    "binary_view": lambda column: column.cast(pa.binary_view()),
    "dictionary": lambda column: column.dictionary_encode(),
    "dictionary of large_string": lambda column: column.cast(pa.large_string()).dictionary_encode(),
    "dictionary of binary": lambda column: column.cast(pa.binary()).dictionary_encode(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arrow_schema", [True, False], ids=["as Arrow has it", "as Parquet has it"])
def test_texts_in_every_layout_of_arrow(kind, arrow_schema):
    column = KINDS[kind](pa.array(GIVEN))
    rows = scan(SOURCE, memory(packed(pa.table({"text": column, "url": column}), store_schema=arrow_schema)), 4).to_pylist()
    assert [(row["text"], row["drop"]) for row in rows] == EXPECTED
    assert [row["url"] for row in rows] == GIVEN
    assert [row["error"] for row in rows] == [None, None, "null_text: 'text' is null", None, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_no_text_are_quarantined_alone_in_every_layout(kind):
    raw = pa.array([b"good", b"\xc3", b"\xf0\x9f\x98", b"also a good one"], pa.binary())
    text = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    column = raw.dictionary_encode() if kind == "dictionary" else KINDS[kind](text if "string" in kind else raw)
    rows = scan(SOURCE, memory(packed(pa.table({"text": column})))).to_pylist()
    assert [row["text"] for row in rows] == ["good", "", "", "also a good one"]
    assert [(row["error"] or "").split(":")[0] for row in rows] == ["", "bad_utf8", "bad_utf8", ""]


def test_a_column_of_nulls_alone():
    rows = scan(SOURCE, memory(packed(pa.table({"text": pa.nulls(2)})))).to_pylist()
    assert [row["error"] for row in rows] == ["null_text: 'text' is null"] * 2


@pytest.mark.parametrize("name", ["text", "url", "date"])
def test_two_columns_of_one_name_are_refused(name):
    names = ["text", "url", "date", name]
    table = pa.table([pa.array([other]) for other in names], names=names)
    with pytest.raises(InputError, match=f"has 2 columns called '{name}'; rename"):
        scan(SOURCE, memory(packed(table)))


def test_two_columns_of_one_name_that_are_not_read_do_no_harm():
    table = pa.table([pa.array([other]) for other in ("a", "b", "c")], names=["text", "n", "n"])
    assert scan(SOURCE, memory(packed(table)))["text"].to_pylist() == ["a"]


def test_memory_is_bounded_by_pages_not_by_row_groups():
    count = 60_000
    table = pa.table({"text": [f"{n} " + "x" * 900 for n in range(count)], "other": [bytes(900)] * count})
    data = packed(table, row_group_size=count, compression="none", use_dictionary=False)
    assert len(data) > 100 << 20
    before = pa.total_allocated_bytes()
    peaks = [pa.total_allocated_bytes() - before for _ in SOURCE.open()(memory(data), 256)]
    assert len(peaks) == -(-count // 256) and max(peaks) < 24 << 20


def test_long_texts_are_read_few_at_a_time():
    table = pa.table({"text": ["x" * (1 << 20) for _ in range(100)]})
    data = packed(table, compression="zstd", use_dictionary=False, data_page_size=1 << 20, write_batch_size=1)
    before = pa.total_allocated_bytes()
    peaks = [pa.total_allocated_bytes() - before for _ in SOURCE.open()(memory(data), 8)]
    assert len(peaks) == 13 and max(peaks) < 90 << 20


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
        (pa.table({"body": ["a"], "n": [1]}), "no_text_column: no 'text' among the columns ('body', 'n'); set text_column"),
        (pa.table({"text": [1]}), "not_text: column 'text' is int64, not a string"),
        (pa.table({"text": [["a"]]}), "not_text: column 'text' is list<element: string>, not a string"),
        (pa.table({"text": [{"a": "b"}]}), "not_text: column 'text' is struct<a: string>, not a string"),
    ],
)
def test_a_table_without_text_is_one_error(table, error):
    rows = scan(SOURCE, memory(packed(table))).to_pylist()
    assert [row["error"] for row in rows] == [error]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"nothing of the kind" * 100, packed(texts(50))[:-20]])
def test_a_file_that_is_no_parquet_is_one_error(data):
    rows = scan(SOURCE, memory(data)).to_pylist()
    assert len(rows) == 1
    assert rows[0]["error"].startswith("damaged_parquet: ")


GOOD = packed(texts(400), row_group_size=100, compression="snappy")


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(GOOD.index(b"schema") + 12, 255)  # the name of a column
@examples(150)
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
