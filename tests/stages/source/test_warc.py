"""Web archives as they should be: against fastwarc's own iterator, in every packing, read again by address."""

import io
from dataclasses import dataclass

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from gristmill.errors import InputError
from gristmill.storage.store import InputFile, expand
from pipeline.schema import DOCUMENT, check, document_id
from stages.source.rows import schema_with
from stages.source.warc import WarcSource
from tests.gristmill.archives.archives import CRAWL, FRAMED, OK, PACKINGS, crawl, gz, memory, page, record, scan

SOURCE = WarcSource(paths="*.warc.gz")


def one(response, **options):
    """Return the row of one response as a dict."""
    rows = scan(WarcSource(paths="", **options), memory(gz([record(0, response)]))).to_pylist()
    assert len(rows) == 1
    return rows[0]


def said(body):
    """Decode a page of the example crawl: 16 of the Apache pages are Korean in EUC-KR and say so, the others are UTF-8."""
    return body.decode("euc-kr" if b"charset=EUC-KR" in body[:200] else "utf-8")


@pytest.mark.parametrize("file", expand(str(CRAWL / "*.warc.gz")), ids=lambda file: file.name)
def test_the_example_crawl_reads_as_fastwarc_reads_it(file):
    found = scan(SOURCE, file).to_pylist()
    with file.open() as stream:
        every = [
            (item.stream_pos, item.record_type, item.headers.get("WARC-Target-URI"), item.record_date, item.reader.read())
            for item in ArchiveIterator(stream, parse_http=False)
        ]
    ends = [item[0] for item in every[1:]] + [file.size]
    expected = [
        (offset, end - offset, url.strip("<>"), date, said(block.partition(b"\r\n\r\n")[2]))
        for (offset, kind, url, date, block), end in zip(every, ends, strict=True)
        if kind == WarcRecordType.response
    ]
    assert [(row["offset"], row["length"], row["url"], row["date"], row["text"]) for row in found] == expected
    assert len(expected) == 420
    assert {(row["media"], row["drop"], row["error"], row["file"]) for row in found} == {("text/html", None, None, file.name)}
    assert [row["id"] for row in found] == [document_id(file.name, row["offset"]) for row in found]


def test_a_real_record_is_read_again_by_its_address():
    file = expand(str(CRAWL / "*.warc.gz"))[0]
    rows = scan(SOURCE, file)
    for number in range(0, rows.num_rows, 30):
        row = rows.slice(number, 1)
        assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_has_the_same_documents_and_addresses_that_lead_back(packing):
    file = memory(PACKINGS[packing](crawl(5)))
    rows = scan(SOURCE, file)
    check(rows, DOCUMENT, packing)
    assert rows.schema == schema_with({"truncated": pa.string()})
    assert rows["url"].to_pylist() == [f"http://site.test/{number}" for number in range(5)]
    assert rows["text"].to_pylist() == [page(number).removeprefix(OK).decode() for number in range(5)]
    assert len(set(rows["id"].to_pylist())) == 5
    for number in range(5):
        row = rows.slice(number, 1)
        assert SOURCE.fetch(file, row["offset"][0].as_py(), row["length"][0].as_py()).equals(row)


@pytest.mark.parametrize("packing", FRAMED)
def test_address_and_length_of_a_framed_record_are_its_member_on_disk(packing):
    records = crawl(4)
    data = PACKINGS[packing](records)
    rows = scan(SOURCE, memory(data)).to_pylist()
    assert rows[-1]["offset"] + rows[-1]["length"] == len(data)
    if packing == "gz":
        for row, original in zip(rows, records[2::2], strict=True):
            assert data[row["offset"] : row["offset"] + row["length"]] == gz([original])


def test_an_address_without_a_document_is_refused():
    file = memory(gz(crawl(2)))
    with pytest.raises(InputError, match="no document at offset"):
        SOURCE.fetch(file, 0, 10)


@pytest.mark.parametrize("batch_rows", [1, 3, 1000])
def test_batches_hold_no_more_rows_than_asked_and_do_not_change_what_comes(batch_rows):
    file = memory(gz(crawl(8)))
    tables = list(SOURCE.open()(file, batch_rows))
    assert max(table.num_rows for table in tables) <= batch_rows
    assert pa.concat_tables(tables).equals(scan(SOURCE, file))


def test_batches_are_bounded_in_bytes():
    pages = [record(number, OK + b"x" * (9 << 20)) for number in range(5)]
    assert [table.num_rows for table in SOURCE.open()(memory(gz(pages)), 1000)] == [4, 1]


@dataclass(frozen=True)
class Fragile(InputFile):
    """A file on a store that fails behind `good` bytes; counts what was read."""

    data: bytes
    good: int

    def open(self):
        outer = self

        class Stream(io.BytesIO):
            def read(self, count=-1):
                if self.tell() >= outer.good:
                    raise ConnectionResetError("the store went away")
                return super().read(count)

        return Stream(self.data)


@pytest.mark.parametrize("packing", PACKINGS)
def test_errors_of_the_store_are_raised_and_documents_before_them_have_come(packing):
    data = PACKINGS[packing](crawl(1500))
    file = Fragile("f", "f", len(data), "1", data, len(data) // 2)
    rows = []
    with pytest.raises(ConnectionResetError):
        for table in SOURCE.open()(file, 1):
            rows += table.to_pylist()
    assert (len(rows) > 0 or packing not in FRAMED) and len(rows) < 1500
    assert not any(row["error"] for row in rows)


@pytest.mark.parametrize("status", [204, 301, 404, 500])
def test_only_status_200_is_a_document(status):
    row = one(b"HTTP/1.1 %d Whatever\r\nContent-Type: text/html\r\n\r\n<p>x</p>" % status)
    assert (row["drop"], row["error"], row["text"]) == ("http_status", None, "")


@pytest.mark.parametrize(
    ("content_type", "media", "drop"),
    [
        ("text/html", "text/html", None),
        ("TEXT/HTML ; Charset=UTF-8", "text/html", None),
        ("application/xhtml+xml", "text/html", None),
        ("text/plain", "text/plain", None),
        ("image/png", "text/plain", "not_text"),
        ("application/json", "text/plain", "not_text"),
        (None, "text/html", None),
    ],
)
def test_media_types(content_type, media, drop):
    header = f"Content-Type: {content_type}\r\n" if content_type else "Server: x\r\n"
    row = one(b"HTTP/1.1 200 OK\r\n" + header.encode() + b"\r\n\n<!DOCTYPE html><p>x</p>")
    assert (row["media"], row["drop"], row["error"]) == (media, drop, None)


def test_a_response_without_a_type_that_does_not_begin_like_a_page_is_no_text():
    assert one(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n%PDF-1.4 <html>")["drop"] == "not_text"


def test_responses_that_are_not_http_are_no_text():
    rows = scan(SOURCE, memory(gz([record(0, b"site.test. 60 IN A 10.0.0.1\n", media="text/dns")]))).to_pylist()
    assert [row["drop"] for row in rows] == ["not_text"]


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_nothing_but_white_space_is_empty(body):
    assert one(OK + body)["drop"] == "empty"


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_record_over_the_limit_is_dropped_and_those_around_it_are_not(packing):
    records = [record(0, page(0)), record(1, OK + b"x" * 500_000), record(2, page(2))]
    source = WarcSource(paths="", max_record_bytes=200_000)
    file = memory(PACKINGS[packing](records))
    rows = scan(source, file)
    assert rows["drop"].to_pylist() == [None, "too_long", None]
    assert rows["url"].to_pylist()[1] == "http://site.test/1"
    assert all(source.fetch(file, row["offset"][0].as_py(), 0).equals(row) for row in (rows.slice(n, 1) for n in range(3)))


def test_the_limit_must_be_sensible():
    with pytest.raises(ValueError, match="max_record_bytes is 0; allowed are"):
        WarcSource(paths="", max_record_bytes=0)


@pytest.mark.parametrize("packing", PACKINGS)
def test_wet_files_hold_text_as_it_is(packing):
    texts = ["Grüße\nzweite Zeile\n", "<p>markup stays</p> <meta charset=latin1>"]
    records = [record(n, text.encode(), "conversion", media="text/plain") for n, text in enumerate(texts)]
    rows = scan(SOURCE, memory(PACKINGS[packing](records)))
    assert rows["text"].to_pylist() == texts
    assert rows["media"].to_pylist() == ["text/plain"] * 2


def test_brackets_that_wget_writes_around_addresses_go():
    wget = record(1, page(1)).replace(b"URI: http://site.test/1", b"URI: <http://site.test/1>")
    assert scan(SOURCE, memory(gz([wget])))["url"].to_pylist() == ["http://site.test/1"]


@pytest.mark.parametrize("date", ["", "yesterday", "0001-01-01T00:00:00+14:00"])
def test_dates_that_are_none_become_null(date):
    odd = record(1, page(1)).replace(b"2024-05-06T07:08:01Z", date.encode())
    assert scan(SOURCE, memory(gz([odd])))["date"].to_pylist() == [None]
