"""The content of a file of lines or texts, whatever it is compressed with: gzip, zstd, bzip2, xz, or nothing.

Reads a seekable binary file; yields bounded pieces of what was compressed. What a file is compressed with shows in its first
bytes (RFC 1952 gzip, RFC 8878 zstd, bzip2's `BZh1` to `BZh9`, the .xz format 1.2), never by its name.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Protocol

from gristmill.archives.members import GZIP, Corrupt, kind_of, pieces

READ = 64 << 10
PIECE = 1 << 20
HEAD = 512  # bytes that show what a file is; a tar archive shows it in the first block
XZ_MEMORY = 1 << 30  # bytes that a dictionary may take; that of `xz -9` takes 64 MiB

_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # of a block, of the end of an empty stream
_XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
# What people name .jsonl after they packed it otherwise: to be said by name, not as a line that is no JSON.
_FOREIGN: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x04\x22\x4d\x18": "compressed with lz4",
    b"\xff\x06\x00\x00sNaPpY": "compressed with snappy",
    b"\x1f\x9d": "compressed with compress (.Z)",
    b"PAR1": "a Parquet table (source `parquet` reads it)",
    b"ARROW1\x00\x00": "an Arrow file",
    b"SQLite format 3\x00": "an SQLite database",
}


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def unpacked(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the content of the file in pieces of at most about 1 MiB.

    Raises:
        Corrupt: after the last good piece, when the compressed bytes are damaged or end too soon; at once, when the file is an
            archive or of a compression that is not read here.
    """
    stream.seek(0)
    head = stream.read(HEAD)
    stream.seek(0)
    _check(head, "the file")
    kind = kind_of(stream)
    if _is_bzip2(head):
        content = _streams(stream, "bzip2", bz2.BZ2Decompressor)
    elif head.startswith(_XZ):
        content = _streams(stream, "xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY))
    elif kind != "plain":
        content = pieces(stream, kind)
    else:
        yield from pieces(stream, kind)
        return
    head, content = ahead(content, HEAD)
    _check(head, "what is packed in the file")
    if _is_bzip2(head) or head.startswith((_XZ, GZIP, ZSTD)):
        raise Corrupt("foreign_format: what is packed in the file is packed again; unpack it once")
    if head:
        yield head
    yield from content


def _check(head: bytes, where: str) -> None:
    """Raise Corrupt where content begins as that of another format does."""
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise Corrupt(f"foreign_format: {where} is {what}; unpack it first")
    if head[257:262] == b"ustar":
        raise Corrupt(f"foreign_format: {where} is a tar archive; unpack it first")


def _is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in _BZIP2_BLOCKS


def ahead(pieces: Iterator[bytes], count: int) -> tuple[bytes, Iterator[bytes]]:
    """Return at least the first `count` bytes, or what there is, and the pieces behind them, with the error that ends them."""
    head = b""
    try:
        while len(head) < count and (piece := next(pieces, b"")):
            head += piece
    except Corrupt as error:
        return head, _failing(error)
    return head, pieces


def _failing(error: Corrupt) -> Iterator[bytes]:
    raise error
    yield b""


def _streams(file: BinaryIO, name: str, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Yield the content of all streams of a file, one behind the other, with zeros between them as .xz allows."""
    pending = file.read(READ)
    while pending:
        decoder = make()
        while not decoder.eof:
            if decoder.needs_input and not pending and not (pending := file.read(READ)):
                raise Corrupt(f"damaged_compression: the file ends inside {name} data")
            try:
                piece = decoder.decompress(pending, PIECE)
            except (OSError, lzma.LZMAError, ValueError, EOFError) as error:  # of the decoder: the bytes are in memory
                raise Corrupt(f"damaged_compression: {name}: {error}") from error
            pending = b""
            if piece:
                yield piece
        pending = decoder.unused_data
        while not (pending := pending.lstrip(b"\0")) and (more := file.read(READ)):
            pending = more
