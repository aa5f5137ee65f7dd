"""WARC records of a file, each with its place, whole or damaged (ISO 28500: header, Content-Length bytes, CRLF CRLF).

Two kinds of files, told apart by their first readable member:

- *framed*: each record is a gzip member or zstd frame of its own (what crawlers write). An address is the offset and length
  of the member on disk. Damage never reaches beyond a member, so reading goes on with the next one.
- *stream*: uncompressed, or one member holds many records. An address is the offset and length in the uncompressed stream.
  After damage reading goes on at the next line that begins a record (`CRLF CRLF WARC/1`). A record that is larger than the
  limit can't be checked; if its Content-Length lies, the rest of the file is lost (and counted). So is all after a damaged
  member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stages.source.members import Corrupt, Kind, Member, kind_of, members, pieces

HEAD_LIMIT = 64 << 10
END = b"\r\n\r\n"
NEXT = b"\r\n\r\nWARC/"
CONTENT_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,18})[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
TYPE = re.compile(rb"^warc-type:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Record:
    """One record: `head` is its header, `block` its content, b"" where `damage` is set or `size` is over the limit.

    `type` is the WARC-Type in lower case, '' where no header can be trusted. `size` is what Content-Length says.
    """

    offset: int
    length: int
    type: str = ""
    head: bytes = b""
    block: bytes = b""
    size: int = 0
    damage: str | None = None

    @property
    def data(self) -> bytes:
        """Header and block, as stored."""
        return self.head + self.block


@dataclass(slots=True)
class _Head:
    end: int  # where the block begins
    size: int  # what Content-Length says
    type: str


def records(file: BinaryIO, limit: int, start: int = 0) -> Iterator[Record]:
    """Yield the records of `file` from address `start` on, blocks of at most `limit` bytes.

    Damaged bytes are yielded as a record with `damage`; errors of the store are raised.
    """
    kind = kind_of(file)
    if kind != "plain" and _framed(file, kind):
        for member in members(file, kind, limit + HEAD_LIMIT, _is_start, start):
            yield _from_member(member, limit)
    else:
        yield from _Stream(file, kind, limit, start).records()


def _is_start(data: bytes) -> bool:
    return data.startswith(b"WARC/")


def _framed(file: BinaryIO, kind: Kind) -> bool:
    for member in members(file, kind, HEAD_LIMIT, _is_start):
        if member.damage is None:
            head = _head(member.data)
            return isinstance(head, _Head) and member.size - head.end - head.size in (0, 2, 4)
    return False


def _head(data: bytes | bytearray) -> _Head | str:
    """Return where a record's block begins and how long it says it is, or what is wrong with the header."""
    if not data.startswith(b"WARC/"):
        return f"not a WARC record: begins with {bytes(data[:16])!r}"
    end = data.find(END, 0, HEAD_LIMIT)
    if end < 0:
        return f"WARC header without end in {min(len(data), HEAD_LIMIT)} bytes"
    head = bytes(data[: end + 2])
    size = CONTENT_LENGTH.search(head)
    if size is None:
        return "WARC header without a Content-Length"
    kind = TYPE.search(head)
    return _Head(end + 4, int(size[1]), kind[1].decode().lower() if kind else "")


def _from_member(member: Member, limit: int) -> Record:
    head = _head(member.data)
    record = Record(member.offset, member.length, damage=member.damage)
    if isinstance(head, str):
        record.damage = member.damage or head
        return record
    record.head, record.size = member.data[: head.end], head.size
    if member.damage is not None:
        return record
    record.type = head.type
    found = member.size - head.end
    if found - head.size not in (0, 2, 4):
        record.damage = f"Content-Length is {head.size}, but {found} bytes follow the header in its member"
    elif head.size <= limit:
        record.block = member.data[head.end : head.end + head.size]
    return record


class _Stream:
    """A window that moves over the uncompressed bytes; holds one record at a time."""

    def __init__(self, file: BinaryIO, kind: Kind, limit: int, start: int) -> None:
        self._limit = limit
        self._pieces = pieces(file, kind, start)
        self._window = bytearray()
        self._corrupt: str | None = None
        self._at = start if kind == "plain" else 0
        self._skip(start - self._at)

    def records(self) -> Iterator[Record]:
        """Yield records to the end of the stream."""
        while self._fill(1):
            self._fill(HEAD_LIMIT)
            head = _head(self._window)
            record = Record(self._at, 0, damage=head) if isinstance(head, str) else self._record(head)
            if record.damage is not None:
                self._resync()
            elif self._skip(record.length) > len(END):
                record.damage = f"Content-Length is {record.size}, but the file ends before"
            if record.damage is not None and not self._window:
                record.type = ""  # it stands for the rest of the file, whatever that held
                record.damage, self._corrupt = self._corrupt or record.damage, None
            record.length = self._at - record.offset
            yield record
        if self._corrupt is not None:
            yield Record(self._at, 0, damage=self._corrupt)

    def _record(self, head: _Head) -> Record:
        """Return the record at the window's beginning; its damage when it does not end where it says."""
        length = head.end + head.size + len(END)
        record = Record(self._at, length, head.type, bytes(self._window[: head.end]), size=head.size)
        if head.size > self._limit:
            return record
        found = self._fill(length)
        if found < head.end + head.size:
            record.damage = f"Content-Length is {head.size}, but the file ends after {found - head.end} bytes"
        elif self._window[head.end + head.size : length] != END[: found - head.end - head.size]:
            record.damage = f"Content-Length is {head.size}, but no record ends there"
        else:
            record.length = min(length, found)
            record.block = bytes(self._window[head.end : head.end + head.size])
        return record

    def _resync(self) -> None:
        """Move to the next place that looks like the beginning of a record, or the end."""
        while (found := self._window.find(NEXT, 1)) < 0:
            self._drop(max(len(self._window) - len(NEXT), 0))
            if not self._fill(len(self._window) + 1, exact=True):
                self._drop(len(self._window))
                return
        self._drop(found + len(END))

    def _fill(self, count: int, exact: bool = False) -> int:
        """Read until the window holds `count` bytes or the stream ends; return how many it holds (0 with `exact` when fewer)."""
        while len(self._window) < count:
            try:
                piece = next(self._pieces, b"")
            except Corrupt as error:
                self._corrupt = str(error)
                self._pieces = iter(())
                piece = b""
            if not piece:
                return 0 if exact else len(self._window)
            self._window += piece
        return len(self._window)

    def _drop(self, count: int) -> None:
        del self._window[:count]
        self._at += count

    def _skip(self, count: int) -> int:
        """Move `count` bytes on; return how many of them are missing."""
        while count > 0 and self._fill(1):
            step = min(count, len(self._window))
            self._drop(step)
            count -= step
        return count
