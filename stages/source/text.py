"""Plain text files, uncompressed or of any compression in `unpacked`: a document a line, a paragraph, or a file.

Yields documents in file order, as `rows.SCHEMA`. `offset` and `length` are the document's place in the uncompressed stream,
in bytes, without the end of its last line. Quarantined: documents that are not UTF-8; the rest of a file whose compression
is damaged. Dropped: `empty`, `too_long`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from stages.source.lines import Span, lines
from stages.source.members import Corrupt
from stages.source.rows import Row
from stages.source.streamed import Streamed
from stages.source.unpacked import unpacked

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class TextSource(Streamed):
    r"""Yield one document per `line`, per paragraph (what stands between two `blank_line`s), or per `file`.

    A line ends with `\n` or `\r\n`; lines of nothing but white space are blank and no documents. Text is kept as it is,
    without a byte order mark at the start of the file. `max_document_bytes` bounds memory: what is longer is dropped.
    """

    per: Literal["line", "blank_line", "file"] = "line"
    max_document_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.max_document_bytes <= 1 << 30:
            raise ValueError(f"max_document_bytes is {self.max_document_bytes}; allowed are 1 to {1 << 30} (1 GiB)")

    def rows(self, stream: BinaryIO) -> Iterator[Row]:
        """See `Streamed.rows`."""
        limit = self.max_document_bytes + 1  # a carriage return is none of the document
        spans = _file(stream, limit) if self.per == "file" else lines(unpacked(stream), limit)
        for span in paragraphs(spans, limit) if self.per == "blank_line" else spans:
            if span.damage is not None:
                yield Row(span.offset, span.length, error=span.damage)
            elif self.per == "file" or not _blank(span):
                yield self._row(span if self.per == "file" else _without_return(span))

    def _row(self, span: Span) -> Row:
        row = Row(span.offset, span.length)
        if span.length > self.max_document_bytes:
            row.drop = "too_long"
            return row
        data = span.data.removeprefix(BYTE_ORDER_MARK) if span.offset == 0 else span.data
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            row.error = f"not UTF-8: {error.reason} at byte {error.start}"
            return row
        if not text or text.isspace():
            row.drop = "empty"
        else:
            row.text = text
        return row


def paragraphs(spans: Iterator[Span], limit: int) -> Iterator[Span]:
    """Yield lines that follow each other without a blank one as one span; of one over the limit only the beginning is kept."""
    offset, data, length = 0, bytearray(), 0
    for span in spans:
        if span.damage is not None:
            begin = offset if length else span.offset
            yield Span(begin, b"", span.offset + span.length - begin, span.damage)
            return
        if _blank(span):
            if length:
                yield Span(offset, bytes(data), length)
            data, length = bytearray(), 0
            continue
        if not length:
            offset = span.offset
        elif len(data) <= limit:
            data += b"\n"
        length = span.offset + span.length - offset
        data += span.data[: limit + 1 - len(data)]
    if length:
        yield Span(offset, bytes(data), length)


def _file(stream: BinaryIO, limit: int) -> Iterator[Span]:
    """Yield the whole file as one span; nothing for one without a byte."""
    data, length, damage = bytearray(), 0, None
    try:
        for piece in unpacked(stream):
            data += piece[: max(limit + 1 - len(data), 0)]
            length += len(piece)
    except Corrupt as error:
        damage = str(error)
    if length or damage is not None:
        yield Span(0, bytes(data), length, damage)


def _blank(span: Span) -> bool:
    return not span.data or (len(span.data) == span.length and span.data.isspace())


def _without_return(span: Span) -> Span:
    r"""Return the span without the `\r` of its last line's end."""
    if len(span.data) == span.length and span.data.endswith(b"\r"):
        return Span(span.offset, span.data[:-1], span.length - 1)
    return span
