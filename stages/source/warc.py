"""Web archives: WARC (HTTP responses), ARC and WET (extracted text), gzip, zstd or uncompressed.

Reads one file through `records`; yields a row for each response or conversion record, in file order, as `rows.SCHEMA` and
`truncated`. Requests, metadata, warcinfo, revisits and resources are not documents and are not counted; a file that holds
nothing else (a WAT file) is one quarantined row. What a row's offset and length mean is said in `records`.
WARC-Identified-Payload-Type is not asked: many crawlers do not write it.

Dropped: `http_status` (not 200), `not_text` (neither HTML, XHTML nor plain text, by the type that is named or by what the body
begins with, see `media`), `too_long` (more than `max_record_bytes`, as stored or decoded), `empty` (nothing but white space),
`undecodable` (no charset decodes it, see `charset`). Quarantined: `damaged_record`, `damaged_compression` (a member of the file
itself), `bad_dictionary`, `malformed_http` (a response without an HTTP status), `damaged_body` (a content or transfer coding of
which nothing can be undone, see `codings`), `no_documents`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import pyarrow as pa

from gristmill.archives import codings, heads, media, response
from gristmill.archives.records import Record, records
from gristmill.charset.decoding import MAX_REPLACED, check_share, decode
from gristmill.errors import InputError
from gristmill.html.xhtml import as_html
from gristmill.storage.store import InputFile
from pipeline.finding import Finding
from pipeline.stage import Source
from stages.source.rows import Row, parse_date, size_finding, table, tables, unreadable_findings

CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
TRUNCATED = frozenset({"length", "time", "disconnect", "unspecified", "segment"})  # ISO 28500 5.13; segments 5.18
DOCUMENTS = ("response", "conversion")


@dataclass(frozen=True, kw_only=True)
class WarcSource(Source):
    """Yield one document per response (HTML or plain text) or conversion record of WARC, ARC and WET files.

    `max_record_bytes` bounds a record, before and after its content encoding is undone, and thereby memory. The column
    `truncated` says why a document is known to lack its end: what WARC-Truncated says (`length`, `time`, `disconnect`,
    `unspecified`), `segment` for a record that goes on in another, or the coding of its body that ends or breaks too soon
    (`chunked`, `gzip`, `deflate`, `br`, `zstd`): such a document has what comes before that place. Null: nothing is known to
    be missing. `max_replaced` bounds the share of U+FFFD and control characters in a text (see `charset`).
    """

    version: ClassVar[int] = 2

    max_record_bytes: int = 16 << 20
    max_replaced: float = MAX_REPLACED

    def __post_init__(self) -> None:
        if not 1 <= self.max_record_bytes <= 1 << 30:
            raise ValueError(f"max_record_bytes is {self.max_record_bytes}; allowed are 1 to {1 << 30} (1 GiB)")
        check_share(self.max_replaced)

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`."""
        return {"truncated": pa.string()}

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("truncated",)

    def libraries(self) -> tuple[str, ...]:
        """Return what decodes pages, and what of a damaged body can be unpacked."""
        return ("turbohtml", "brotli", "zstandard")

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA` and `truncated`."""

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(_rows(stream, self), file.name, batch_rows, self.adds())

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one record at this address again; see `Source.fetch`.

        Raises:
            InputError: no document begins there.
        """
        return table([self._row_at(file, offset)], file.name, self.adds())

    def explain_record(self, file: InputFile, offset: int, length: int) -> Sequence[Finding]:
        """See `Source.explain_record`. Raises InputError as `fetch`."""
        row = self._row_at(file, offset)
        found = [size_finding(row, "max_record_bytes", self.max_record_bytes), *unreadable_findings(row, self.max_replaced)]
        stated = {"http_status": "http_status", "not_text": "content_type"}.get(row.drop or "")
        return found if stated is None else [Finding(stated, row.stated, decisive=True), *found]

    def _row_at(self, file: InputFile, offset: int) -> Row:
        with file.open() as stream:
            row = next(_rows(stream, self, offset), None)
        if row is None or row.offset != offset:
            raise InputError(f"{file.uri}: no document at offset {offset}; has the file changed since?")
        return row


def _rows(stream: BinaryIO, source: WarcSource, start: int = 0) -> Iterator[Row]:
    others: Counter[str] = Counter()
    found, end = False, 0
    for record in records(stream, source.max_record_bytes, start):
        end = record.offset + record.length
        if record.type in DOCUMENTS or record.rest or (not record.type and (record.damage or response.is_response(record.block))):
            found = True
            yield _row(record, source)
        else:
            others[record.type] += 1
    if others and not found and start == 0:
        kinds = ", ".join(f"{count} {kind or 'without a type'}" for kind, count in sorted(others.items()))
        error = f"no_documents: the file has no response or conversion record, as WARC, ARC and WET files have, but {kinds[:100]}"
        yield Row(0, end, error=error, more=(None,))


def _row(record: Record, source: WarcSource) -> Row:
    """Return the document in a record, or why there is none."""
    row = Row(record.offset, record.length, error=record.damage, more=(None,))
    head = record.head
    if head is None:
        return row
    about = heads.about(head)
    row.url, row.date = about.url, parse_date(about.date)
    if about.truncated is not None:
        reason = about.truncated.lower()
        row.more = (reason if reason in TRUNCATED else "unspecified",)
    if record.damage is not None:
        return row
    row.size = record.size
    if record.size > source.max_record_bytes:
        row.drop = "too_long"
    elif head.type == "conversion":
        _fill(row, about.media or media.PLAIN, record.block, source)
    else:
        _respond(row, about.media, record.block, source)
    return row


def _respond(row: Row, kind: str, block: bytes, source: WarcSource) -> None:
    """Fill the row from a response: of HTTP, or of the kind that the record names."""
    found = response.parse(block)
    http = kind.lower().lstrip().startswith("application/http")
    if found is None and http and not media.begins_page(block):
        row.error = f"malformed_http: no HTTP status begins the response, but {block[:40]!r}"
    elif found is None:
        _fill(row, "" if http else kind, block, source)
    elif found.status != 200:
        row.drop, row.stated = "http_status", found.status
    else:
        payload = codings.undo(found.body, found.transfer, found.content, source.max_record_bytes)
        if payload.error is not None:
            row.error = payload.error
            return
        if payload.cut is not None and row.more == (None,):
            row.more = (payload.cut,)
        row.size = max(len(block), len(payload.body))
        if len(payload.body) > source.max_record_bytes:
            row.drop = "too_long"
        else:
            _fill(row, found.media, payload.body, source)


def _fill(row: Row, content_type: str, body: bytes, source: WarcSource) -> None:
    """Fill the row from the bytes of a page, whose type is as a server names it."""
    kind = media.media_of(content_type, body)
    if kind is None:
        row.drop, row.stated = "not_text", content_type or None
        return
    row.media = media.PLAIN if kind == media.PLAIN else media.HTML
    declared = CHARSET.search(content_type)
    decoded = decode(
        body,
        declared[1] if declared else None,
        row.media == media.HTML,
        truncated=row.more != (None,),
        max_replaced=source.max_replaced,
        url=row.url,
    )
    row.unreadable = decoded.unreadable, decoded.characters
    if decoded.text is None:
        row.drop = decoded.drop
    elif not decoded.text or decoded.text.isspace():
        row.drop = "empty"
    else:
        row.text = as_html(decoded.text) if kind != row.media else decoded.text
