"""Where a build lies: a folder on a local disk, or below any URL that fsspec opens; and how a path leads to a build.

Reads: `manifest.json`, or the newest `runs/*.json` of an output folder that leads to it; the files that a manifest names.
Writes: nothing; what is downloaded is written by `cache.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gristmill import fields
from gristmill import manifest as mf
from gristmill.cache import Cache
from gristmill.errors import FormatError
from gristmill.manifest import File, Manifest
from gristmill.remote.fetch import Fetcher
from gristmill.remote.folder import Remote
from gristmill.secrets import check_bucket

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


class Place(Protocol):
    """A folder of files, here or elsewhere. Can be pickled; another process opens handles of its own."""

    @property
    def uri(self) -> str:
        """The folder, as a person would name it."""
        ...

    @property
    def budget(self) -> int | None:
        """Bytes of files that one process may hold at once, in all places with the same cache; None where nothing bounds it."""
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
class LocalPlace:
    """A folder on a local disk. Nothing is ever copied or removed."""

    folder: Path

    @property
    def uri(self) -> str:
        """See `Place.uri`."""
        return str(self.folder)

    @property
    def budget(self) -> int | None:
        """See `Place.budget`."""
        return None

    def read(self, name: str) -> bytes:
        """See `Place.read`."""
        return (self.folder / name).read_bytes()

    def names(self, prefix: str) -> list[str]:
        """See `Place.names`."""
        inner, slash, start = prefix.rpartition("/")
        folder = self.folder / inner
        if not folder.is_dir():
            return []
        return sorted(f"{inner}{slash}{f.name}" for f in folder.iterdir() if f.name.startswith(start) and f.is_file())

    def hold(self, file: File) -> LocalFile:
        """See `Place.hold`."""
        return LocalFile(self.folder / file.name)

    def request(self, files: Sequence[File]) -> None:
        """See `Place.request`."""

    def check(self, files: Sequence[File], *, verify: bool) -> None:
        """See `Place.check`."""
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


class RemotePlace:
    """A folder below a URL; its files are downloaded whole into a cache on a local disk.

    Args:
        uri: URL of the folder.
        cache: where downloads are kept.
        options: of the file system behind the URL (`endpoint_url`, `key`, …); those not given come from fsspec's configuration.
    """

    def __init__(self, uri: str, cache: Cache, options: Mapping[str, Any]) -> None:
        self._uri = uri
        self._cache = cache
        self._options = dict(options)
        self._remote = Remote(uri, self._options)
        self._fetcher = Fetcher(self._remote, cache)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without connections and threads."""
        return (RemotePlace, (self._uri, self._cache, self._options))

    @property
    def uri(self) -> str:
        """See `Place.uri`."""
        return self._uri

    @property
    def budget(self) -> int | None:
        """See `Place.budget`."""
        return self._cache.budget

    def read(self, name: str) -> bytes:
        """See `Place.read`."""
        return self._remote.read(name)

    def names(self, prefix: str) -> list[str]:
        """See `Place.names`; empty where the server has no listing."""
        return self._remote.names(prefix)

    def hold(self, file: File) -> Held:
        """See `Place.hold`."""
        return self._fetcher.hold(file)

    def request(self, files: Sequence[File]) -> None:
        """See `Place.request`."""
        self._fetcher.request(files)

    def check(self, files: Sequence[File], *, verify: bool) -> None:
        """See `Place.check`; also raises ValueError when a file is larger than the whole cache may be."""
        for file in files:
            self._cache.check(file)
        self._remote.check(files)


# ---- from a path to a build ----


def open_build(
    path: str | Path,
    kind: str | None,
    *,
    cache: Cache | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Manifest, Place]:
    """Return a build's manifest and where its files lie.

    Args:
        path: manifest.json, a build's folder, or an output folder (its newest run that made such a build), on a local disk
            (`~/` is the home folder) or as any URL that fsspec opens: `s3://`, `http://`, `memory://`, …
        kind: `tokens` or `documents`; None takes either.
        cache: where remote files are kept on this machine; `Cache()` by default.
        storage_options: of the file system behind a URL, before fsspec's configuration and the environment (AWS_*).

    Raises:
        FormatError: nothing there that leads to a manifest, or one that cannot be read.
        ValueError: credentials in an S3 URL.
        OSError: the network or the disk failed.
    """
    text = str(path)
    scheme = next((scheme for scheme in LOCAL if text.startswith(scheme)), None)
    if scheme is not None or "://" not in text:
        where = Path(text.removeprefix(scheme or "")) if scheme or isinstance(path, str) else path
        if text.startswith("~/"):
            where = where.expanduser()
        if not where.exists():
            raise FormatError(f"{path}: no such file or folder; give a manifest.json, a build's folder, or an output folder")
        if where.is_file():
            return _at(LocalPlace(where.parent), where.name, kind)
        manifest, inner = _find(LocalPlace(where), kind)
        return manifest, LocalPlace(where / inner)
    check_bucket(text)
    return _open_remote(text.rstrip("/"), kind, cache or Cache(), storage_options or {})


def _open_remote(uri: str, kind: str | None, cache: Cache, options: Mapping[str, Any]) -> tuple[Manifest, Place]:
    if uri.endswith(".json"):
        folder, _, name = uri.rpartition("/")
        return _at(RemotePlace(folder, cache, options), name, kind)
    place = RemotePlace(uri, cache, options)
    manifest, inner = _find(place, kind)
    return manifest, RemotePlace(f"{uri}/{inner}", cache, options) if inner else place


def _at(place: Place, name: str, kind: str | None) -> tuple[Manifest, Place]:
    """Open the build whose manifest is the file `name` of `place`."""
    try:
        manifest = _load(place, name)
    except FileNotFoundError as error:
        raise FormatError(f"{_named(place, name)}: no such file; give a manifest.json, a build's folder, or an output") from error
    return _of_kind(manifest, kind, _named(place, name)), place


def _find(place: Place, kind: str | None) -> tuple[Manifest, str]:
    """Return the manifest that a folder leads to, and the folder of its build in that folder ('' if it is the folder itself)."""
    try:
        return _of_kind(_load(place, mf.NAME), kind, _named(place, mf.NAME)), ""
    except FileNotFoundError:
        runs = [name for name in reversed(place.names("runs/")) if name.endswith(".json")]
    if not runs:
        raise FormatError(
            f"{place.uri}: has neither {mf.NAME} nor runs/*.json; give the folder of a build, or of a finished output"
        )
    for run in runs:
        target = fields.get(_json(place, run), "manifest", str, _named(place, run))
        try:
            manifest = _load(place, target)
        except FileNotFoundError as error:
            raise FormatError(
                f"{_named(place, run)}: names the manifest {_named(place, target)}, which is not there; copy it too"
            ) from error
        if kind in (None, manifest.kind):
            return manifest, target.rpartition("/")[0]
    raise FormatError(f"{place.uri}: none of its {len(runs)} runs made a build of kind {kind!r}")


def _of_kind(manifest: Manifest, kind: str | None, where: str) -> Manifest:
    if kind not in (None, manifest.kind):
        sink = {"tokens": "shards"}.get(str(kind), kind)
        raise FormatError(
            f"{where}: a build of kind {manifest.kind!r}; only {kind!r} can be read here (end the build with `{sink}`)"
        )
    return manifest


def _load(place: Place, name: str) -> Manifest:
    return mf.parse(_json(place, name), _named(place, name))


def _json(place: Place, name: str) -> object:
    content = place.read(name)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{_named(place, name)}: cannot be read as JSON ({error})") from error


def _named(place: Place, name: str) -> str:
    return f"{place.uri.rstrip('/')}/{name}"
