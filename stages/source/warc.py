"""Web archives: WARC (HTTP responses) and WET (extracted text), gzip, zstd or uncompressed.

Reads one file through `records`; yields a row for each response or conversion record, in file order, as `rows.SCHEMA`. Requests,
metadata, warcinfo, revisits and resources are not documents and are not counted. What a row's offset and length mean is said in
`records`. WARC-Identified-Payload-Type is not asked: many crawlers do not write it.

Dropped: `http_status` (not 200), `not_text` (media type is neither HTML, XHTML nor plain text), `too_long` (more than
`max_record_bytes`, as stored or decoded), `empty` (nothing but white space), `undecodable` (no charset decodes it, see
`charset`). Quarantined: damaged records, malformed HTTP heads, content or transfer encodings that cannot be undone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.stage import Source
from pipeline.store import InputFile
from stages.source.charset import decode
from stages.source.records import HEAD_LIMIT, Record, records
from stages.source.rows import Row, parse_date, table, tables

HTML, PLAIN = "text/html", "text/plain"
MEDIA = {HTML: HTML, "application/xhtml+xml": HTML, PLAIN: PLAIN}
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
# A response without a Content-Type is a page when it begins like one (WHATWG MIME Sniffing 7.1, the unmistakable ones).
PAGE = re.compile(rb"\s*(?:<!--.{0,512}?-->\s*)?<(?:!doctype html|html|head|body)[\s>]", re.IGNORECASE | re.DOTALL)
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class WarcSource(Source):
    """Yield one document per response (HTML or plain text) or conversion record of WARC and WET files.

    `max_record_bytes` bounds a record, before and after its content encoding is undone, and thereby memory.
    """

    max_record_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.max_record_bytes <= 1 << 30:
            raise ValueError(f"max_record_bytes is {self.max_record_bytes}; allowed are 1 to {1 << 30} (1 GiB)")

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA`."""
        limit = self.max_record_bytes

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(_rows(stream, limit), file.name, batch_rows)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one record at this address again; see `Source.fetch`.

        Raises:
            InputError: no document begins there.
        """
        with file.open() as stream:
            row = next(_rows(stream, self.max_record_bytes, offset), None)
        if row is None or row.offset != offset:
            raise InputError(f"{file.uri}: no document at offset {offset}; has the file changed since?")
        return table([row], file.name)


def _rows(stream: BinaryIO, limit: int, start: int = 0) -> Iterator[Row]:
    for record in records(stream, limit, start):
        if record.type in ("response", "conversion") or (record.damage is not None and not record.type):
            yield _row(record, limit)


def _row(record: Record, limit: int) -> Row:
    """Return the document in a record, or why there is none."""
    row = Row(record.offset, record.length, error=record.damage)
    headers = _headers(record.head)
    row.url = (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">") or None
    row.date = parse_date(headers.get("WARC-Date"))
    if record.damage is not None:
        return row
    if record.size > limit:
        row.drop = "too_long"
    elif record.type == "conversion":
        _fill(row, record.block, None)
    elif not (headers.get("Content-Type") or "").strip().lower().startswith("application/http"):
        row.drop = "not_text"
    else:
        _respond(row, record.block, limit)
    return row


def _respond(row: Row, block: bytes, limit: int) -> None:
    """Fill the row from an HTTP response."""
    try:
        response = _http(block, "none")
    except OSError as error:  # the bytes are in memory: this is never the store
        row.error = f"malformed HTTP head: {error}"
        return
    headers = response.http_headers
    content_type = headers.get("Content-Type") or ""
    name = content_type.partition(";")[0].strip().lower()
    if headers.status_code is None:
        row.error = f"malformed HTTP head: {(headers.status_line or '')[:80]!r}"
    elif headers.status_code != 200:
        row.drop = "http_status"
    elif name and name not in MEDIA:
        row.drop = "not_text"
    else:
        try:
            if "Content-Encoding" in headers or "Transfer-Encoding" in headers:
                response = _http(block, "all")
            body = response.reader.read(limit + 1)
        except OSError as error:
            row.error = f"HTTP body: {error}"
            return
        if not name and not PAGE.match(body.removeprefix(BOM)):
            row.drop = "not_text"
            return
        row.media = MEDIA.get(name, HTML)
        declared = CHARSET.search(content_type)
        if len(body) > limit:
            row.drop = "too_long"
        else:
            _fill(row, body, declared[1] if declared else None)


def _headers(head: bytes) -> Any:  # noqa: ANN401 - fastwarc has no types for mypy
    from fastwarc.warc import HeaderMap

    headers = HeaderMap()
    headers.parse(io.BytesIO(head))
    return headers


def _http(block: bytes, decode: Literal["none", "all"]) -> Any:  # noqa: ANN401 - as above
    """Parse an HTTP response; `all` undoes transfer and content encodings. Raises OSError for malformed bytes."""
    from fastwarc.warc import WarcRecord

    # Not WarcRecord.from_bytes with the record's own header: fastwarc 2.0.1 aborts the process on a huge Content-Length.
    record = WarcRecord()
    record.set_bytes_content(block)
    record.is_http = True
    record.parse_http(auto_decode=decode, max_header_len=HEAD_LIMIT, quirks_mode=True, strict_mode=False)
    return record


def _fill(row: Row, body: bytes, declared: str | None) -> None:
    decoded = decode(body, declared, markup=row.media == HTML)
    if decoded.text is None:
        row.drop = decoded.drop
    elif not decoded.text or decoded.text.isspace():
        row.drop = "empty"
    else:
        row.text = decoded.text
