"""One download: a remote file onto a local disk, from where an earlier attempt ended, hashed on its way, then moved into place.

Reads: ranges of the remote file, or of its zstd copy. Writes: the part, and the file where it belongs once its sha256 is right.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from gristmill.errors import FormatError
from gristmill.storage.cache import Shelf, mark_ahead, needed
from gristmill.storage.file import File
from gristmill.storage.remote.folder import Remote, transport

CHUNK = 16 << 20  # bytes asked for at once; each download has one or two in memory
UNPACKED = 1 << 18  # bytes decompressed at once; what is hashed and written next is in the processor's cache


class Stopped(Exception):
    """The reader is gone, nobody needs the download any more."""


def download(remote: Remote, shelf: Shelf, file: File, stopped: Callable[[], bool], *, ahead: bool = False) -> None:
    """Bring a file into the cache, marked as fetched `ahead` of its use or not; the caller has claimed it.

    What is there of an earlier attempt is gone on with; if the whole is wrong then, it is fetched once more from its beginning.

    Raises:
        FormatError: missing, of another size, or of another sha256 there.
        Stopped: what is there of it stays.
        OSError: the network failed (what is there stays), or the disk is full.
    """
    name, expected = transport(file), file.bytes if file.zst is None else file.zst
    try:
        found = remote.size(name)
        if found not in (None, expected):
            raise remote.wrong_size(name, expected, found)
        damage = _attempt(remote, shelf, file, stopped, ahead)
        if damage is not None:
            shelf.part(file).unlink(missing_ok=True)
            damage = _attempt(remote, shelf, file, stopped, ahead)
    except FileNotFoundError as error:
        raise remote.missing(name) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shelf.part(file).unlink(missing_ok=True)
            shelf.out(file).unlink(missing_ok=True)
            raise _disk_full(shelf, file) from error
        raise
    if damage is not None:
        shelf.part(file).unlink(missing_ok=True)
        raise FormatError(f"{remote.url(name)}: {damage}; the copy there is damaged, upload it again from the build's own folder")


def _attempt(remote: Remote, shelf: Shelf, file: File, stopped: Callable[[], bool], ahead: bool) -> str | None:
    """Download, and move into place if the bytes are right; return what is wrong with them otherwise."""
    part, out = shelf.part(file), shelf.out(file)
    digest = hashlib.sha256()
    size = file.bytes if file.zst is None else file.zst
    with part.open("ab+") as stream:
        chunks = _chunks(remote, transport(file), stream, size, stopped)
        for chunk in chunks:
            if file.zst is None:
                digest.update(chunk)
        _to_disk(stream)
    if file.zst is not None:
        problem = _unpack(part, out, file, digest.update, stopped)
        if problem is not None:
            return problem
    if digest.hexdigest() != file.sha256:
        return f"sha256 is {digest.hexdigest()}, the manifest says {file.sha256}"
    whole = part if file.zst is None else out
    if ahead:  # before it has its name: another thread that needs space could take it for one that was used
        mark_ahead(whole)
    whole.rename(shelf.path(file))
    return None


def _chunks(remote: Remote, name: str, stream: BinaryIO, size: int, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the whole content: what the stream has already, then the rest from the server, which is written to the stream."""
    have = stream.seek(0, os.SEEK_END)
    if have > size:
        stream.truncate(0)
        have = 0
    stream.seek(0)
    left = have
    while left:
        chunk = stream.read(min(CHUNK, left))
        left -= len(chunk)
        yield chunk
    while have < size:
        if stopped():
            raise Stopped
        chunk = remote.read_range(name, have, min(size, have + CHUNK))
        if len(chunk) == size and have:  # a server without ranges sends all of it each time
            chunk = chunk[have:]
        if not chunk or len(chunk) > size - have:
            raise remote.wrong_size(name, size, have + len(chunk))
        stream.write(chunk)
        have += len(chunk)
        yield chunk


def _unpack(part: Path, out: Path, file: File, update: Callable[[bytes], object], stopped: Callable[[], bool]) -> str | None:
    """Decompress the copy into `out`; return what is wrong with it, if anything is."""
    have = 0
    try:
        with pa.CompressedInputStream(pa.OSFile(str(part)), "zstd") as packed, out.open("wb") as stream:
            while chunk := packed.read(UNPACKED):
                if stopped():
                    raise Stopped
                have += len(chunk)
                if have > file.bytes:
                    break
                update(chunk)
                stream.write(chunk)
            _to_disk(stream)
    except OSError as error:
        if error.errno is not None:  # the disk's; Arrow's own have none
            raise
        return f"cannot be decompressed ({error})"
    if have != file.bytes:
        more = "more than " if have > file.bytes else ""
        return f"decompressed it has {more}{min(have, file.bytes)} bytes, the manifest says {file.bytes}"
    return None


def _to_disk(stream: BinaryIO) -> None:
    """Let the content reach the disk before its name does: after a crash of the machine a name must not lead to zeros."""
    stream.flush()
    os.fsync(stream.fileno())


def _disk_full(shelf: Shelf, file: File) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"{shelf.root}: the disk is full; {file.name} needs {needed(file)} bytes there, and the cache may take limit_bytes = "
        f"{shelf.cache.limit_bytes} in all: free some space, lower Cache(limit_bytes=...), or name a folder on another disk",
    )
