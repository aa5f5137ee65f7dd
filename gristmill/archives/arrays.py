"""The elements of a JSON array, each with its place, found without holding the array: what `lines` is to JSON Lines.

Reads pieces of bytes; yields bounded spans. Nothing is parsed here but strings and brackets (RFC 8259), so a broken element is
a span like any other, for whoever parses it to refuse. Arrays may follow each other; what follows the last is lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.archives.lines import Span, lines
from gristmill.archives.members import Corrupt

# An array of objects. One of texts or numbers on one line may as well be a line of JSON Lines, and is left to be refused as such.
START = re.compile(rb"\[\s*[{\]]")

_SPACE = b" \t\r\n"
_SPACES = re.compile(rb"[ \t\r\n]*")
_TOKEN = re.compile(rb'["\[\]{}]')
_TOKEN_OR_COMMA = re.compile(rb'["\[\]{},]')
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_HEAD = 1024  # bytes that must show how an array begins


def elements(pieces: Iterator[bytes], limit: int, offset: int = 0) -> Iterator[Span]:
    """Yield the elements of the arrays that the pieces begin with, then the lines behind them.

    `offset` is the place of the first byte. Of an element at most one byte more than `limit` is kept, as of a line.
    """
    scanner = _Scanner(pieces, limit, offset)
    while scanner.at_array():
        yield from scanner.array()
        if scanner.damage is not None:
            return
    yield from lines(scanner.rest(), limit, scanner.offset)


class _Scanner:
    """A cursor over pieces; `damage` says why there are no more."""

    def __init__(self, pieces: Iterator[bytes], limit: int, offset: int) -> None:
        self._pieces = pieces
        self._limit = limit
        self._buffer = b""
        self._at = 0  # in the buffer: slicing it for each element would copy it as often
        self._base = offset  # the place of the buffer's first byte
        self.damage: str | None = None

    @property
    def offset(self) -> int:
        """The place of the next byte."""
        return self._base + self._at

    def at_array(self) -> bool:
        """Tell whether an array of objects comes next; steps over white space."""
        self._skip_space()
        while len(self._buffer) - self._at < _HEAD and self._more():
            pass
        return START.match(self._buffer, self._at) is not None

    def rest(self) -> Iterator[bytes]:
        """Yield what is left."""
        yield self._buffer[self._at :]
        if self.damage is not None:
            raise Corrupt(self.damage)
        yield from self._pieces

    def array(self) -> Iterator[Span]:
        """Yield the elements of the array that begins here and stop behind it; a last span says why it ends too soon."""
        self._at += 1
        end = b","
        while end == b",":
            self._skip_space()
            span, end = self._element()
            if span.length or span.damage is not None:
                yield span

    def _element(self) -> tuple[Span, bytes]:
        """Step over an element and the `,` or `]` behind it; return it without white space behind it, and what ended it."""
        begin, data, length = self.offset, bytearray(), 0
        depth, in_string, skip = 1, False, 0
        end = b""
        while not end:
            if self._at == len(self._buffer) and not self._more():
                self.damage = self.damage or "cut_array: the file ends before its JSON array does"
                return Span(begin, b"", length, self.damage), b""
            stop, end, depth, in_string, skip = _scan(self._buffer, self._at, depth, in_string, skip)
            data += self._buffer[self._at : min(stop, self._at + self._limit + 1 - len(data))]
            length += stop - self._at
            self._at = stop + len(end)
        whole = bytes(data).rstrip(_SPACE) if len(data) == length else bytes(data)
        return Span(begin, whole, len(whole) if len(data) == length else length), end

    def _skip_space(self) -> None:
        while True:
            found = _SPACES.match(self._buffer, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._buffer) or not self._more():
                return

    def _more(self) -> bool:
        """Add a piece to what is left in the buffer; tell whether there was one."""
        if self.damage is not None:
            return False
        try:
            piece = next(self._pieces, b"")
        except Corrupt as error:
            self.damage, piece = str(error), b""
        self._base += self._at
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return bool(piece)


def _scan(buffer: bytes, at: int, depth: int, in_string: bool, skip: int) -> tuple[int, bytes, int, bool, int]:
    """Go on in an element until its end or that of the buffer.

    `depth` counts open brackets, that of the array too; `skip` is 1 where the first byte is escaped.

    Returns:
        where it stops, what ended the element (`,`, `]` or nothing), depth, whether in a string, and what to skip next.
    """
    at += skip
    while at < len(buffer):
        if in_string:
            found = _STRING.match(buffer, at)
            assert found is not None
            at = found.end()
            if at == len(buffer):
                break
            if buffer[at] == 0x5C:  # a backslash, the last byte
                return len(buffer), b"", depth, True, 1
            in_string, at = False, at + 1
            continue
        token = (_TOKEN_OR_COMMA if depth == 1 else _TOKEN).search(buffer, at)
        if token is None:
            break
        at = token.end()
        char = token[0]
        if char == b'"':
            in_string = True
        elif char in b"[{":
            depth += 1
        elif depth > 1:
            depth -= 1
        elif char in b",]":
            return at - 1, char, depth, False, 0
    return len(buffer), b"", depth, in_string, 0
