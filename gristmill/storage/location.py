"""Where a build lies: a folder on a local disk, or below any URL that fsspec opens; and how a path leads to a build.

Reads: `manifest.json`, or the newest `runs/*.json` of an output folder that leads to it; the files that a manifest names.
Writes: nothing; what is downloaded is written by `cache.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gristmill.errors import FormatError
from gristmill.storage.cache import Cache
from gristmill.storage.file import File
from gristmill.storage.remote.fetch import Fetcher
from gristmill.storage.remote.folder import Options, Remote

LOCAL = ("file://", "local://")
HASHING_THREADS = 8


class Held(Protocol):
    """A whole, verified file on a local disk that nobody removes until `release`."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    def release(self) -> None:
        """Let go of the file; again is harmless."""
        ...


class Location(Protocol):
    """A folder of files, here or elsewhere. Can be pickled; another process opens handles of its own."""

    @property
    def uri(self) -> str:
        """The folder, as a person would name it."""
        ...

    @property
    def budget(self) -> int | None:
        """Bytes of files that one process may hold at once, in all locations with one cache; None where nothing bounds it."""
        ...

    def read(self, name: str) -> bytes:
        """Return a small file's content. Raises FileNotFoundError."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Return the names of the files that begin so, sorted; `runs/` lists the files of that folder as `runs/…`."""
        ...

    def hold(self, file: File) -> Held:
        """Return the file on a local disk, after waiting for its download where it is elsewhere.

        Raises:
            FormatError: missing, or not the bytes that the manifest names.
            OSError: the network or the disk failed.
        """
        ...

    def request(self, files: Sequence[File]) -> None:
        """Begin to download in the background, in this order, in place of what was requested before and has not begun."""
        ...

    def check(self, files: Sequence[File], *, verify: bool) -> None:
        """Compare files with what the manifest says: that they exist, their sizes, and with `verify` their sha256.

        A remote file is hashed when it is downloaded, always; `verify` adds nothing.

        Raises:
            FormatError: the first that is missing or differs.
        """
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file that is where it always is."""

    path: Path

    def release(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class LocalLocation:
    """A folder on a local disk. Nothing is ever copied or removed."""

    folder: Path

    @property
    def uri(self) -> str:
        """See `Location.uri`."""
        return str(self.folder)

    @property
    def budget(self) -> int | None:
        """See `Location.budget`."""
        return None

    def read(self, name: str) -> bytes:
        """See `Location.read`."""
        return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        """See `Location.names`."""
        inner, slash, start = prefix.rpartition("/")
        folder = self.folder / inner
        if not folder.is_dir():
            return []
        return sorted(f"{inner}{slash}{f.name}" for f in folder.iterdir() if f.name.startswith(start) and f.is_file())

    def hold(self, file: File) -> LocalFile:
        """See `Location.hold`."""
        return LocalFile(self.folder / file.name)

    def request(self, files: Sequence[File]) -> None:
        """See `Location.request`."""

    def check(self, files: Sequence[File], *, verify: bool) -> None:
        """See `Location.check`."""
        for file in files:
            path = self.folder / file.name
            try:
                size = path.stat().st_size
            except FileNotFoundError as error:
                packed = path.with_name(f"{path.name}.zst").is_file()
                advice = f"unpack {path.name}.zst beside it" if packed else "copy them all"
                raise FormatError(f"{path}: missing; the manifest names {len(files)} files, {advice}") from error
            if size != file.bytes:
                raise FormatError(f"{path}: has {size} bytes, the manifest says {file.bytes}; copy the file again")
        if verify:
            with ThreadPoolExecutor(min(HASHING_THREADS, os.cpu_count() or 1)) as pool:  # hashlib releases the interpreter's lock
                for _ in pool.map(self._verify, files):
                    pass

    def _verify(self, file: File) -> None:
        path = self.folder / file.name
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256:
            raise FormatError(f"{path}: sha256 is {found}, the manifest says {file.sha256}; the file is damaged, copy it again")


class RemoteLocation:
    """A folder below a URL; its files are downloaded whole into a cache on a local disk.

    Args:
        uri: URL of the folder.
        cache: where downloads are kept.
        options: of the file system behind the URL (`endpoint_url`, `key`, …); those not given come from fsspec's configuration.
    """

    def __init__(self, uri: str, cache: Cache, options: Options) -> None:
        self._uri = uri
        self._cache = cache
        self._options = dict(options)
        self._remote = Remote(uri, self._options)
        self._fetcher = Fetcher(self._remote, cache)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without connections and threads."""
        return (RemoteLocation, (self._uri, self._cache, self._options))

    @property
    def uri(self) -> str:
        """See `Location.uri`."""
        return self._uri

    @property
    def budget(self) -> int | None:
        """See `Location.budget`."""
        return self._cache.budget

    def read(self, name: str) -> bytes:
        """See `Location.read`."""
        return self._remote.read(name)

    def names(self, prefix: str) -> list[str]:
        """See `Location.names`; empty where the server has no listing."""
        return self._remote.names(prefix)

    def hold(self, file: File) -> Held:
        """See `Location.hold`."""
        return self._fetcher.hold(file)

    def request(self, files: Sequence[File]) -> None:
        """See `Location.request`."""
        self._fetcher.request(files)

    def check(self, files: Sequence[File], *, verify: bool) -> None:
        """See `Location.check`; also raises ValueError when a file is larger than the whole cache may be."""
        for file in files:
            self._cache.check(file)
        self._remote.check(files)


# ---- from a path to a build ----
