"""Lines of a file, each with its place in the uncompressed stream.

Reads pieces of bytes, such as `unpacked` gives; yields bounded lines. Damage is a value here, never an exception.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from gristmill.archives.members import Corrupt


class Span(NamedTuple):
    """Some bytes of a stream: `data` is at most one byte more than the limit asked for, `length` what there is of it.

    `damage` says why the rest of the file cannot be read, and stands for all of it from `offset` on.
    """

    offset: int
    data: bytes
    length: int
    damage: str | None = None


def lines(pieces: Iterator[bytes], limit: int, offset: int = 0) -> Iterator[Span]:
    """Yield lines without their newlines; the last may lack one. `offset` is the place of the first byte."""
    line, length = bytearray(), 0
    try:
        for piece in pieces:
            start = 0
            while (end := piece.find(b"\n", start)) >= 0:
                line += piece[start : min(end, start + limit + 1 - len(line))]
                length += end - start
                yield Span(offset, bytes(line), length)
                offset, line, length = offset + length + 1, bytearray(), 0
                start = end + 1
            line += piece[start : start + max(limit + 1 - len(line), 0)]
            length += len(piece) - start
    except Corrupt as error:
        yield Span(offset, b"", length, str(error))
        return
    if length:
        yield Span(offset, bytes(line), length)
