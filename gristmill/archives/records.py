"""Records of a WARC or ARC file, each with its place, whole or damaged.

Two kinds of files, told apart by their first readable member:

- *framed*: each record is a gzip member or zstd frame of its own (what crawlers write). An address is the offset and length
  of the member on disk. Damage never reaches beyond a member, so reading goes on with the next one. Where a member holds more
  than one record after all (archives of two tools in one file), they have its first bytes as addresses, one each.
- *stream*: uncompressed, or one member holds many records, or bzip2 or xz. An address is the offset and length in the
  uncompressed stream. After damage reading goes on at the next line that begins a record. A compressed record that is larger
  than the limit can't be checked; if its Content-Length lies, the rest of the file is lost (and counted). So is all after a
  damaged member.

A record ends where its Content-Length says if a record or nothing follows: after two line ends, as the standards want, or any
other number of them. Lengths that are up to two bytes off are set right by where the next record begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from gristmill.archives import heads
from gristmill.archives.heads import ARC_LINE, HEAD_LIMIT, Head
from gristmill.archives.members import Corrupt, Kind, Member, kind_of, member_at, member_pieces, members, pieces
from gristmill.archives.unpacked import unpacked

END = b"\r\n\r\n"
OFF = (0, 1, 2)  # by how many bytes a Content-Length may fall short; one that is too long by so many ends among line ends
AHEAD = ARC_LINE + 64  # bytes behind a record that show whether another begins


@dataclass(slots=True)
class Record:
    """One record: `data` is its header as stored and its block, b"" where `damage` is set or `size` is over the limit.

    `head` is None where no header can be trusted. `size` is how long the block is. With `rest` the damage stands for the rest of
    the file, whatever that held.
    """

    offset: int
    length: int
    head: Head | None = None
    block: bytes = b""
    size: int = 0
    damage: str | None = None
    rest: bool = False

    @property
    def type(self) -> str:
        """The WARC-Type in lower case, '' where no header can be trusted."""
        return self.head.type if self.head else ""


def records(file: BinaryIO, limit: int, start: int = 0) -> Iterator[Record]:
    """Yield the records of `file` from address `start` on, blocks of at most `limit` bytes.

    Damaged bytes are yielded as a record with `damage`; errors of the store are raised.
    """
    kind = kind_of(file)
    if kind == "plain" and heads.begins(file.read(AHEAD).lstrip(b"\r\n")):
        yield from _Stream(pieces(file, kind, start), limit, start, file).records()
        return
    if kind == "plain" or not _framed(file, kind):
        yield from _Stream(unpacked(file), limit).records(start)
        return
    first = start
    if start and (at := member_at(file, kind, start, heads.begins)) is not None:
        first = at
    for member in members(file, kind, limit + HEAD_LIMIT, heads.begins, first):
        yield from (record for record in _of_member(file, kind, member, limit) if record.offset >= start)


def _framed(file: BinaryIO, kind: Kind) -> bool:
    for member in members(file, kind, HEAD_LIMIT, heads.begins):
        if member.damage is None:
            head = heads.parse(member.data)
            return isinstance(head, Head) and -2 <= member.size - head.end - head.size <= 6
    return False


def _of_member(file: BinaryIO, kind: Kind, member: Member, limit: int) -> Iterator[Record]:
    """Yield the record in a member, or all of them where it holds several."""
    head = heads.parse(member.data)
    record = Record(member.offset, member.length, head if isinstance(head, Head) else None, damage=member.damage)
    whole = member.size == len(member.data)
    if member.damage is not None or (isinstance(head, str) and not whole):
        record.damage = member.damage or str(head)
    elif isinstance(head, Head) and head.size > limit and not whole:
        record.size = head.size
    else:
        ends = isinstance(head, Head) and whole and _ends(member.data, head.end + head.size, True)
        if isinstance(head, Head) and ends and ends[1] == member.size and ends[0] - head.end <= limit:
            record.block, record.size = member.data[head.end : ends[0]], ends[0] - head.end
        else:
            content = iter([member.data]) if whole else member_pieces(file, kind, member.offset)
            yield from _crowded(member, _Stream(content, limit, inner=True).records(), record)
            return
    yield record


def _crowded(member: Member, found: Iterator[Record], alone: Record) -> Iterator[Record]:
    """Yield the records of one member, with its bytes as their addresses; `alone` stands for it if it holds but one."""
    last = next(found, None)
    number = 0
    while last is not None:
        after = next(found, None)
        last.offset, last.length = member.offset + number, 1
        if after is None or number == member.length - 1:
            last.length = member.length - number
            last.head = last.head or (alone.head if number == 0 else None)
            if after is not None:
                last.damage = f"damaged_record: the member holds more records than its {member.length} bytes"
            yield last
            return
        yield last
        number += 1
        last = after


def _ends(data: bytes | bytearray, at: int, final: bool) -> tuple[int, int] | None:
    """Return where the block that should end `at` ends, and where the next record begins, or None when none does there.

    `final` says that nothing follows `data`.
    """
    if data[at : at + len(END)] == END:
        return at, at + len(END)
    for off in OFF:
        end = after = at + off
        while after < min(len(data), end + 64) and data[after] in b"\r\n":
            after += 1
        if (off == 0 or after > end) and (heads.begins(data, after) or (final and after == len(data) >= at)):
            return end, after
    return None


class _Stream:
    """A window that moves over uncompressed bytes; holds one record at a time.

    `at` is the address of the first piece. A plain `file` can be asked whether a record over the limit ends where it says. With
    `inner` the content is that of one member, not of a file.
    """

    def __init__(
        self, content: Iterator[bytes], limit: int, at: int = 0, file: BinaryIO | None = None, inner: bool = False
    ) -> None:
        self._limit = limit
        self._pieces = content
        self._window = bytearray()
        self._corrupt: str | None = None
        self._at = at
        self._file = file
        self._inner = inner

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield records to the end of the stream, from address `start` on."""
        self._skip(start - self._at)
        while self._strip():
            self._fill(HEAD_LIMIT)
            head = heads.parse(self._window)
            record = Record(self._at, 0, damage=head) if isinstance(head, str) else self._record(head)
            if record.damage is not None:
                self._resync()
            elif self._skip(record.length):
                record.damage = f"damaged_record: Content-Length is {record.size}, but the file ends before"
            if record.damage is not None and not self._window and not self._inner:
                record.rest = True
                record.damage, self._corrupt = self._corrupt or record.damage, None
            record.length = self._at - record.offset
            yield record
        if self._corrupt is not None:
            yield Record(self._at, 0, damage=self._corrupt)

    def _record(self, head: Head) -> Record:
        """Return the record at the window's beginning; its damage when it does not end where it says."""
        end = head.end + head.size
        record = Record(self._at, end, head, size=head.size)
        if head.size > self._limit:
            if self._file is not None and not self._confirmed(self._at + end):
                record.damage = f"damaged_record: Content-Length is {head.size}, but no record ends there"
            return record
        found = self._fill(end + AHEAD)
        if found < end:
            record.damage = f"damaged_record: Content-Length is {head.size}, but the file ends after {found - head.end} bytes"
            return record
        ends = _ends(self._window, end, found < end + AHEAD)
        if ends is None:
            record.damage = f"damaged_record: Content-Length is {head.size}, but no record ends there"
            return record
        record.length = ends[1]
        record.block, record.size = bytes(self._window[head.end : ends[0]]), ends[0] - head.end
        return record

    def _confirmed(self, end: int) -> bool:
        """Look ahead in a plain file: does a record end at this address?"""
        assert self._file is not None
        position = self._file.tell()
        self._file.seek(end - 2)
        data = self._file.read(AHEAD)
        self._file.seek(position)
        return _ends(data, 2, len(data) < AHEAD) is not None

    def _resync(self) -> None:
        """Move to the next place that looks like the beginning of a record, or the end."""
        while (found := heads.NEXT.search(self._window, 1)) is None:
            self._drop(max(len(self._window) - AHEAD, 0))
            if not self._fill(len(self._window) + 1, exact=True):
                self._drop(len(self._window))
                return
        self._drop(found.start() + 1)

    def _strip(self) -> bool:
        """Move over line ends; return whether anything follows."""
        while self._fill(1):
            ends = 0
            while ends < len(self._window) and self._window[ends] in b"\r\n":
                ends += 1
            if not ends:
                return True
            self._drop(ends)
        return False

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
        return max(count, 0)
