"""What the tests of the cache share: files on a small web server, and locations whose cache has room for a few."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from gristmill.storage.cache import Cache
from gristmill.storage.file import File
from gristmill.storage.location import RemoteLocation
from tests.gristmill.storage.web import Web

CHUNK = 1 << 14
SIZE = 5 * CHUNK + 77  # of a file: six chunks


def put(web: Web, name: str, size: int = SIZE, *, packed: bool = False) -> File:
    """Serve a file of bytes that depend on its name; with `packed`, its compressed copy alone."""
    data = random.Random(name).randbytes(size // 2) + bytes(size - size // 2)
    copy = pa.compress(data, codec="zstd", asbytes=True) if packed else None
    web.files[name if copy is None else f"{name}.zst"] = data if copy is None else copy
    return File(name, size, hashlib.sha256(data).hexdigest(), None if copy is None else len(copy))


def location_of(web: Web, folder: Path, files: int = 100, **options: int) -> RemoteLocation:
    """Return a location whose cache has room for so many whole files."""
    return RemoteLocation(web.url, Cache(folder=folder, limit_bytes=files * SIZE, **options), {})


def right(path: Path, file: File) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def cached(folder: Path) -> set[str]:
    """Return the names of whole files in the cache."""
    return {path.name for path in folder.glob("??/*") if not path.suffix}


def on_disk(folder: Path) -> int:
    total = 0
    for path in list(folder.glob("??/*")):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited for 20 s"
        time.sleep(0.005)
