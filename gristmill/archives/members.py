"""Compressed members of a file: what gzip calls members and zstd calls frames, each with its place on disk.

Reads a seekable binary file; yields bounded pieces of decompressed bytes. Damage is a value here, never an exception; errors
of the store are exceptions. Web archives put each record in a member of its own, so a member is where reading can start
again.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from gristmill.archives import zstd_frames

GZIP = b"\x1f\x8b\x08"
READ = 64 << 10
PIECE = 1 << 20
DICTIONARY = 32 << 20  # bytes; those that crawlers train have at most a few MB

Kind = Literal["gzip", "zstd", "plain"]
PROBE: dict[Kind, int] = {"gzip": 4096, "zstd": zstd_frames.BLOCK + 64}  # compressed bytes that show how the content begins


@dataclass(slots=True)
class Member:
    """One member: `data` is its beginning (at most the limit asked for), `size` what all of it decompresses to.

    `size` is only known to be over the limit where it is. `damage` says why the member could not be read to its end; `length`
    then reaches to the next readable member or the end of the file.
    """

    offset: int
    length: int
    data: bytes
    size: int
    damage: str | None = None


class Corrupt(Exception):
    """Compressed bytes that do not decompress, as `kind: detail`; never leaves this family."""


def kind_of(file: BinaryIO) -> Kind:
    """Return how the file is compressed, by its first bytes; the position afterwards is 0."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head[:3] == GZIP:
        return "gzip"
    return "zstd" if head == zstd_frames.MAGIC or zstd_frames.skippable(head) else "plain"


def pieces(file: BinaryIO, kind: Kind, start: int = 0) -> Iterator[bytes]:
    """Yield the decompressed content of the file in pieces; a plain file from byte `start` on, others whole.

    Raises:
        Corrupt: after the last good piece, when the compressed bytes are damaged or end too soon.
    """
    if kind == "plain":
        file.seek(start)
        while piece := file.read(PIECE):
            yield piece
        return
    reader = _Reader(file, kind, 0, _dictionary(file, kind))
    while reader.more():
        yield from reader.member()


def member_pieces(file: BinaryIO, kind: Kind, start: int) -> Iterator[bytes]:
    """Yield the content of the one member at `start` in pieces. Raises Corrupt, as `pieces`."""
    yield from _Reader(file, kind, start, _dictionary(file, kind)).member()


def members(file: BinaryIO, kind: Kind, limit: int, is_start: Callable[[bytes], bool], start: int = 0) -> Iterator[Member]:
    """Yield the members from `start` on; after a damaged one go on at the next whose content begins as `is_start` says."""
    try:
        dictionary = _dictionary(file, kind)
    except Corrupt as error:
        yield Member(start, file.seek(0, io.SEEK_END) - start, b"", 0, str(error))
        return
    reader = _Reader(file, kind, start, dictionary)
    while reader.more():
        offset = reader.position
        data, size, damage = bytearray(), 0, None
        try:
            for piece in reader.member(limit + 1):
                size += len(piece)
                data += piece[: limit - len(data)]
        except Corrupt as error:
            damage = str(error)
            reader = _Reader(file, kind, _next_start(file, kind, offset + 1, is_start, dictionary), dictionary)
        yield Member(offset, reader.position - offset, bytes(data), size, damage)


def member_at(file: BinaryIO, kind: Kind, at: int, is_start: Callable[[bytes], bool]) -> int | None:
    """Return where the member begins that `at` lies in and whose content begins rightly; None: not within 1 MiB before."""
    dictionary = _dictionary(file, kind)
    base = max(at - PIECE, 0)
    file.seek(base)
    window = file.read(at - base + PROBE[kind])
    found = window.rfind(_magic(kind), 0, at - base + 4)
    while found >= 0:
        if base + found <= at and is_start(_beginning(window[found : found + PROBE[kind]], kind, dictionary)):
            return base + found
        found = window.rfind(_magic(kind), 0, found + len(_magic(kind)) - 1)
    return None


class _Reader:
    """A cursor over the members of one file; `position` is where the next unread compressed byte lies."""

    def __init__(self, file: BinaryIO, kind: Kind, start: int, dictionary: Any) -> None:  # noqa: ANN401 - see _dictionary
        self._file = file
        self._kind = kind
        self._pending = b""
        self._dictionary = dictionary
        self.position = start
        file.seek(start)

    def more(self) -> bool:
        """Tell whether a member is left; steps over zstd's skippable frames and the zeros that pad a gzip file."""
        while self._fill(8) and self._kind == "zstd" and zstd_frames.skippable(self._pending[:4]):
            self._skip(8 + int.from_bytes(self._pending[4:8], "little"))
        while self._kind == "gzip" and self._pending[:1] == b"\0" and self._fill(1):
            self._keep(self._pending.lstrip(b"\0"))
            self._fill(1)
        return bool(self._pending)

    def member(self, enough: int | None = None) -> Iterator[bytes]:
        """Yield the pieces of the member that starts here and stop right behind it; about `enough` bytes where given.

        Raises:
            Corrupt: the member is damaged or ends too soon.
        """
        return self._gzip(enough) if self._kind == "gzip" else self._zstd(enough)

    def _gzip(self, enough: int | None) -> Iterator[bytes]:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            if not self._fill(1):
                raise Corrupt("damaged_compression: the file ends inside a gzip member")
            try:
                piece = decoder.decompress(self._pending, PIECE)
            except zlib.error as error:
                raise Corrupt(f"damaged_compression: gzip: {error}") from error
            self._keep(decoder.unused_data if decoder.eof else decoder.unconsumed_tail)
            if piece:
                yield piece

    def _zstd(self, enough: int | None) -> Iterator[bytes]:
        try:
            yield from zstd_frames.decoded(self._take, self._dictionary, enough)
        except zstd_frames.BadFrame as error:
            raise Corrupt(f"damaged_compression: {error}") from error

    def _take(self, count: int) -> bytes:
        if self._fill(count) < count:
            raise Corrupt("damaged_compression: the file ends inside a zstd frame")
        taken = self._pending[:count]
        self._keep(self._pending[count:])
        return taken

    def _fill(self, count: int) -> int:
        while len(self._pending) < count and (more := self._file.read(READ)):
            self._pending += more
        return len(self._pending)

    def _keep(self, rest: bytes) -> None:
        self.position += len(self._pending) - len(rest)
        self._pending = rest

    def _skip(self, count: int) -> None:
        self.position += count
        self._pending = self._pending[count:]
        if not self._pending:
            self._file.seek(self.position)


def _dictionary(file: BinaryIO, kind: Kind) -> Any:  # noqa: ANN401 - ZstdCompressionDict or None
    """Return the dictionary in the first frame of a .warc.zst (IIPC "WARC-Zstandard" 1.0), if it has one.

    Raises:
        Corrupt: it is larger than any dictionary is, as stored or decompressed.
    """
    if kind != "zstd":
        return None
    import zstandard

    file.seek(0)
    head = file.read(8)
    if head[:4] != b"\x5d" + zstd_frames.SKIPPABLE:
        return None
    too_large = Corrupt(
        f"bad_dictionary: the zstd dictionary of the file is larger than {DICTIONARY} bytes; no crawler writes such"
    )
    if int.from_bytes(head[4:8], "little") > DICTIONARY:
        raise too_large
    content = file.read(int.from_bytes(head[4:8], "little"))
    if content[:4] == zstd_frames.MAGIC:
        unpacked = bytearray()
        try:
            for piece in zstd_frames.decoded(_taker(content)):
                unpacked += piece
                if len(unpacked) > DICTIONARY:
                    raise too_large
        except (zstd_frames.BadFrame, EOFError):
            return None  # each frame will say that it lacks its dictionary
        content = bytes(unpacked)
    return zstandard.ZstdCompressionDict(content)


def _taker(data: bytes) -> zstd_frames.Take:
    stream = io.BytesIO(data)

    def take(count: int) -> bytes:
        taken = stream.read(count)
        if len(taken) < count:
            raise EOFError
        return taken

    return take


def _magic(kind: Kind) -> bytes:
    return GZIP if kind == "gzip" else zstd_frames.MAGIC


def _next_start(file: BinaryIO, kind: Kind, start: int, is_start: Callable[[bytes], bool], dictionary: Any) -> int:  # noqa: ANN401
    """Return where the next member begins whose content begins rightly, or the end of the file."""
    base, window, at = start, b"", 0
    more = True
    while True:
        found = window.find(_magic(kind), at)
        if found >= 0 and (len(window) - found >= PROBE[kind] or not more):
            if is_start(_beginning(window[found : found + PROBE[kind]], kind, dictionary)):
                return base + found
            at = found + 1
            continue
        if not more:
            return base + len(window)
        keep = found if found >= 0 else max(len(window) - 3, 0)
        base, window, at = base + keep, window[keep:], 0
        file.seek(base + len(window))
        read = file.read(PIECE)
        more, window = bool(read), window + read


def _beginning(data: bytes, kind: Kind, dictionary: Any) -> bytes:  # noqa: ANN401 - see _dictionary
    """Return the first bytes of the content of the member that `data` begins with, b"" where there is none."""
    try:
        if kind == "gzip":
            return zlib.decompressobj(wbits=31).decompress(data, 4096)
        return next(zstd_frames.decoded(_taker(data), dictionary), b"")
    except (zlib.error, zstd_frames.BadFrame, EOFError):
        return b""
