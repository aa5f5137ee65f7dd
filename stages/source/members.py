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

GZIP = b"\x1f\x8b\x08"
ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # after one byte 0x50 to 0x5f; 0x5d holds the dictionary of a .warc.zst
READ = 64 << 10
PIECE = 1 << 20
FEED = 8 << 10  # bytes given to zstd at once: its decoder has no bound on what one call returns
WINDOW = 1 << 31  # what `zstd --ultra --long=31` writes; only what is used of it is taken

Kind = Literal["gzip", "zstd", "plain"]


@dataclass(slots=True)
class Member:
    """One member: `data` is its beginning (at most the limit asked for), `size` what all of it decompresses to.

    `damage` says why it could not be read to its end; `length` then reaches to the next readable member or the end of the file.
    """

    offset: int
    length: int
    data: bytes
    size: int
    damage: str | None = None


class Corrupt(Exception):
    """Compressed bytes that do not decompress; never leaves this family."""


def kind_of(file: BinaryIO) -> Kind:
    """Return how the file is compressed, by its first bytes; the position afterwards is 0."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if head[:3] == GZIP:
        return "gzip"
    return "zstd" if head == ZSTD or _skippable(head) else "plain"


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
    reader = _Reader(file, kind, 0)
    while reader.more():
        yield from reader.member()


def members(file: BinaryIO, kind: Kind, limit: int, is_start: Callable[[bytes], bool], start: int = 0) -> Iterator[Member]:
    """Yield the members from `start` on; after a damaged one go on at the next whose content begins as `is_start` says."""
    reader = _Reader(file, kind, start)
    while reader.more():
        offset = reader.position
        data, size, damage = bytearray(), 0, None
        try:
            for piece in reader.member():
                size += len(piece)
                data += piece[: limit - len(data)]
        except Corrupt as error:
            damage = str(error)
            reader = _Reader(file, kind, _next_start(file, kind, offset + 1, is_start))
        yield Member(offset, reader.position - offset, bytes(data), size, damage)


class _Reader:
    """A cursor over the members of one file; `position` is where the next unread compressed byte lies."""

    def __init__(self, file: BinaryIO, kind: Kind, start: int) -> None:
        self._file = file
        self._kind = kind
        self._pending = b""
        self._dictionary = _dictionary(file) if kind == "zstd" else None
        self.position = start
        file.seek(start)

    def more(self) -> bool:
        """Tell whether any byte is left; steps over zstd's skippable frames."""
        while self._fill(8) and self._kind == "zstd" and _skippable(self._pending[:4]):
            self._skip(8 + int.from_bytes(self._pending[4:8], "little"))
        return bool(self._pending)

    def member(self) -> Iterator[bytes]:
        """Yield the pieces of the member that starts here and stop right behind it. Raises Corrupt."""
        return self._gzip() if self._kind == "gzip" else self._zstd()

    def _gzip(self) -> Iterator[bytes]:
        decoder = zlib.decompressobj(wbits=31)
        while not decoder.eof:
            if not self._fill(1):
                raise Corrupt("gzip member ends before its end")
            try:
                piece = decoder.decompress(self._pending, PIECE)
            except zlib.error as error:
                raise Corrupt(f"gzip: {error}") from error
            self._keep(decoder.unused_data if decoder.eof else decoder.unconsumed_tail)
            if piece:
                yield piece

    def _zstd(self) -> Iterator[bytes]:
        import zstandard

        decoder = zstandard.ZstdDecompressor(dict_data=self._dictionary, max_window_size=WINDOW).decompressobj()
        while not decoder.eof:
            if not self._fill(1):
                raise Corrupt("zstd frame ends before its end")
            try:
                piece = decoder.decompress(self._pending[:FEED])
            except zstandard.ZstdError as error:
                raise Corrupt(f"zstd: {error}") from error
            self._keep(decoder.unused_data + self._pending[FEED:])
            if piece:
                yield piece

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


def _skippable(head: bytes) -> bool:
    return head[1:4] == SKIPPABLE and 0x50 <= head[0] <= 0x5F


def _dictionary(file: BinaryIO) -> Any:  # noqa: ANN401 - ZstdCompressionDict or None
    """Return the dictionary in the first frame of a .warc.zst (IIPC "WARC-Zstandard" 1.0), if it has one."""
    import zstandard

    file.seek(0)
    head = file.read(8)
    if head[:4] != b"\x5d" + SKIPPABLE:
        return None
    content = file.read(int.from_bytes(head[4:8], "little"))
    if content[:4] == ZSTD:
        try:
            content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
        except zstandard.ZstdError:
            return None  # each frame will say that it lacks its dictionary
    return zstandard.ZstdCompressionDict(content)


def _next_start(file: BinaryIO, kind: Kind, start: int, is_start: Callable[[bytes], bool]) -> int:
    """Return where the next member begins whose content begins rightly, or the end of the file."""
    magic = GZIP if kind == "gzip" else ZSTD
    base, window, at = start, b"", 0
    while True:
        found = window.find(magic, at)
        if found >= 0 and _begins(file, kind, base + found, is_start):
            return base + found
        if found >= 0:
            at = found + 1
            continue
        file.seek(base + len(window))
        more = file.read(PIECE)
        if not more:
            return base + len(window)
        keep = min(len(window), len(magic) - 1)
        base, window, at = base + len(window) - keep, window[len(window) - keep :] + more, 0


def _begins(file: BinaryIO, kind: Kind, position: int, is_start: Callable[[bytes], bool]) -> bool:
    try:
        return is_start(next(_Reader(file, kind, position).member(), b""))
    except Corrupt:
        return False
