"""Web archives made for tests: records from parts, packed in every way that a crawler might."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import zstandard

from gristmill.storage.store import InputFile
from pipeline.stage import Source
from stages.source.rows import schema_with

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


def record(
    number: int,
    block: bytes,
    kind: str = "response",
    *,
    says: int | None = None,
    media: str = "application/http;msgtype=response",
) -> bytes:
    """Return one WARC record; `says` is a Content-Length that lies."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Date: 2024-05-06T07:08:{number % 60:02}Z\r\n"
        f"WARC-Target-URI: <http://site.test/{number}>\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(block) if says is None else says}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def page(number: int, size: int = 300) -> bytes:
    """Return an HTTP response with a page of its own, hard to compress."""
    noise = b" ".join(b"%x" % (number * 7919 + place * place * 104729) for place in range(size // 6))
    return OK + b"<p>page %d " % number + noise + b"</p>"


def crawl(pages: int = 6) -> list[bytes]:
    """Return what a crawler writes: a warcinfo record, then request and response of each page."""
    records = [record(99, b"software: test\r\n", "warcinfo", media="application/warc-fields")]
    for number in range(pages):
        records.append(record(number, b"GET / HTTP/1.1\r\n\r\n", "request", media="application/http;msgtype=request"))
        records.append(record(number, page(number)))
    return records


def gz(records: Sequence[bytes]) -> bytes:
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def zst(records: Sequence[bytes]) -> bytes:
    return b"".join(zstandard.compress(one) for one in records)


def zst_with_dictionary(records: Sequence[bytes]) -> bytes:
    """As in "WARC-Zstandard": a skippable frame with a compressed dictionary, then a frame a record."""
    dictionary = zstandard.ZstdCompressionDict(b"".join(records)[:2000], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    packed = zstandard.compress(dictionary.as_bytes())
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    head = b"\x5d\x2a\x4d\x18" + len(packed).to_bytes(4, "little") + packed
    return head + b"".join(compressor.compress(one) for one in records)


PACKINGS = {
    "gz": gz,
    "zst": zst,
    "zst_dictionary": zst_with_dictionary,
    "plain": b"".join,
    "one_gz": lambda records: gzip.compress(b"".join(records), mtime=0),
    "one_zst": lambda records: zstandard.compress(b"".join(records)),
}
FRAMED = ("gz", "zst", "zst_dictionary")


@dataclass(frozen=True)
class Memory(InputFile):
    """An input file whose bytes are in memory."""

    data: bytes

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.data)


def memory(data: bytes) -> Memory:
    return Memory("made.warc", "memory:made.warc", len(data), "1", data)


def scan(source: Source, file: InputFile, batch_rows: int = 1000) -> pa.Table:
    """Return all rows of a file as one table."""
    return pa.concat_tables([schema_with(source.adds()).empty_table(), *source.open()(file, batch_rows)])


CRAWL = Path(__file__).parents[3] / "examples" / "crawl"
