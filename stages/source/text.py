"""Plain text files, uncompressed or of any compression in `unpacked`: a document a line, a paragraph, or a file.

Yields documents in file order, as `rows.SCHEMA`. `offset` and `length` are the document's place in the uncompressed stream,
in bytes, without the end of its last line. Dropped: `empty`, `too_long`, `undecodable` (see `charset`). Quarantined: the rest of
a file whose compression is damaged; a file of UTF-16 that is to be cut into lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, Literal

from gristmill.archives.lines import Span, lines
from gristmill.archives.members import Corrupt
from gristmill.archives.unpacked import unpacked
from gristmill.charset.decoding import MAX_REPLACED, check_share, decode
from gristmill.charset.encodings import WIDE, named
from pipeline.finding import Finding
from stages.source.rows import Row, size_finding, unreadable_findings
from stages.source.streamed import Streamed

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, kw_only=True)
class TextSource(Streamed):
    r"""Yield one document per `line`, per paragraph (what stands between two `blank_line`s), or per `file`.

    A line ends with `\n` or `\r\n`; lines of nothing but white space are blank and no documents. Text is kept as it is, without
    byte order marks. `max_document_bytes` bounds memory: what is longer is dropped.

    `encoding` is a label of the WHATWG Encoding standard (`utf-8`, `windows-1251`, `gbk`) that is believed as a web server's is;
    without one each document is UTF-8, or what its bytes speak for (see `charset`). `max_replaced` bounds the share of U+FFFD.
    """

    version: ClassVar[int] = 2
    per: Literal["line", "blank_line", "file"] = "line"
    max_document_bytes: int = 16 << 20
    encoding: str | None = None
    max_replaced: float = MAX_REPLACED

    def __post_init__(self) -> None:
        if not 1 <= self.max_document_bytes <= 1 << 30:
            raise ValueError(f"max_document_bytes is {self.max_document_bytes}; allowed are 1 to {1 << 30} (1 GiB)")
        check_share(self.max_replaced)
        name = named(self.encoding) if self.encoding is not None else None
        if self.encoding is not None and name is None:
            raise ValueError(
                f"encoding is {self.encoding!r}; allowed are the labels of encoding.spec.whatwg.org, as utf-8 or windows-1251"
            )
        if name in WIDE and self.per != "file":
            raise ValueError(f"encoding {self.encoding} cannot be cut into lines; set `per: file`, or convert the files to UTF-8")

    def rows(self, stream: BinaryIO) -> Iterator[Row]:
        """See `Streamed.rows`."""
        limit = self.max_document_bytes + 1  # a carriage return is none of the document
        spans = _file(stream, limit) if self.per == "file" else lines(unpacked(stream), limit)
        for span in paragraphs(spans, limit) if self.per == "blank_line" else spans:
            if span.damage is not None:
                yield Row(span.offset, span.length, error=span.damage)
            elif self.per != "file" and span.offset == 0 and span.data.startswith(UTF16_MARKS):
                yield Row(
                    0, span.length, error=f"not_lines: UTF-16 cannot be cut per {self.per}; per file can, or convert to UTF-8"
                )
                return
            elif self.per == "file" or not _blank(span):
                yield self._row(span if self.per == "file" else _without_return(span))

    def explain_row(self, row: Row) -> Sequence[Finding]:
        """See `Streamed.explain_row`."""
        return size_finding(row, "max_document_bytes", self.max_document_bytes), *unreadable_findings(row, self.max_replaced)

    def _row(self, span: Span) -> Row:
        row = Row(span.offset, span.length)
        if span.length > self.max_document_bytes:
            row.drop = "too_long"
            return row
        decoded = decode(span.data, self.encoding, markup=False, max_replaced=self.max_replaced)
        row.unreadable = decoded.unreadable, decoded.characters
        if decoded.text is None:
            row.drop = decoded.drop
        elif not decoded.text or decoded.text.isspace():
            row.drop = "empty"
        else:
            row.text = decoded.text
        return row

    def libraries(self) -> tuple[str, ...]:
        """Return what decodes texts, and what of a damaged file can be unpacked."""
        return ("turbohtml", "zstandard")


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
