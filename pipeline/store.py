"""Where bytes live: a local folder or an S3 prefix behind the same six verbs.

Reads: any file under the root, input files of any kind (`expand`). Writes: only through `put_new`, which is atomic and
never overwrites: `link()` from a temporary file on local disks, `If-None-Match: *` on S3. `probe()` refuses a place where
that does not hold (some S3 servers ignore the condition silently).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import pyarrow as pa

from pipeline.errors import InputError, StoreError, StoreFull, StoreRefused

T = TypeVar("T")

GLOB = "*?["
ATTEMPTS = 6  # with the waits below about 12 s of an unreachable server before the driver takes over
FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class InputFile:
    """One input file: `name` is relative to the fixed part of its pattern, `stamp` changes when its content does."""

    name: str
    uri: str
    size: int
    stamp: str

    def open(self) -> BinaryIO:
        """Open the file for reading; seekable. Raises StoreError when the store fails."""
        return open_read(self.uri)


class Store(Protocol):
    """What the machine needs of a place; names are relative paths with `/`."""

    root: str

    def put_new(self, name: str, data: bytes | Path) -> bool:
        """Create `name` with `data` at once; return False and change nothing when it exists already."""
        ...

    def read(self, name: str) -> bytes:
        """Return the whole content. Raises FileNotFoundError."""
        ...

    def exists(self, name: str) -> bool:
        """Tell whether `name` is there."""
        ...

    def list(self, folder: str) -> list[str]:
        """Return the names of the files directly in `folder`, sorted; empty when there is no such folder."""
        ...

    def local(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give a local path to read the content from (a download, where the store is remote)."""
        ...

    def open(self, name: str) -> pa.NativeFile:
        """Open for random access by Arrow: mapped where local, ranged requests where remote."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """Give an empty local folder that goes when the context ends; on the store's own disk where it has one."""
        ...

    def link_new(self, source: str, name: str) -> None:
        """Make the content of `source` appear as `name` too, cheaply; no harm if it is there already."""
        ...

    def uri(self, name: str) -> str:
        """Return the path or URI that a person can open."""
        ...

    def sweep(self) -> None:
        """Remove the scratch folders of processes of this machine that are no more."""
        ...

    def probe(self) -> None:
        """Raise StoreRefused unless `put_new` really never overwrites here."""
        ...


def open_store(root: str) -> Store:
    """Open the folder or `s3://bucket/prefix` at `root`."""
    if root.startswith("s3://"):
        return S3Store(root)
    if "://" in root:
        raise StoreRefused(f"output {root!r}: only local folders and s3:// can commit without overwriting")
    return LocalStore(root)


def _probe(store: Store) -> None:
    name = f"probe/{uuid.uuid4().hex}"
    try:
        first, second = store.put_new(name, b"first"), store.put_new(name, b"second")
        content = store.read(name)
    except StoreError:
        raise
    except OSError as error:
        raise StoreRefused(f"output {store.root!r} cannot be written: {error}") from error
    if not first or second or content != b"first":
        raise StoreRefused(
            f"output {store.root!r} does not honour conditional writes: a second write to one name "
            f"{'was accepted' if second else 'behaved unexpectedly'} (expected to be refused). Builds there could overwrite each "
            "other; use a local disk or an S3 server with If-None-Match"
        )


class LocalStore:
    """A folder on a disk with hard links."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._root = Path(root)

    def put_new(self, name: str, data: bytes | Path) -> bool:
        """See `Store.put_new`: written and synced beside the target, then linked to its name."""
        target = self._root / name
        if target.exists():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        try:
            if isinstance(data, Path) and data.stat().st_dev == target.parent.stat().st_dev:
                with data.open("rb") as written:
                    os.fsync(written.fileno())
                os.link(data, target)
                return True
            with temporary.open("wb") as out:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, out, 1 << 20)
                else:
                    out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            raise _local_error(error, str(target)) from error
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return (self._root / name).read_bytes()

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return (self._root / name).exists()

    def list(self, folder: str) -> list[str]:
        """See `Store.list`."""
        place = self._root / folder
        if not place.is_dir():
            return []
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """See `Store.local`: the file itself."""
        yield self._root / name

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        path = str(self._root / name)
        # Arrow cannot map an empty file; it is none of ours then, and reading it says so.
        return pa.memory_map(path)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Store.scratch`: `scratch/<host>-<pid>-…`, so that what a killed process left can be swept."""
        try:
            place = self._root / "scratch" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
            place.mkdir(parents=True)
        except OSError as error:
            raise _local_error(error, str(self._root / "scratch")) from error
        try:
            yield place
        except OSError as error:
            raise _local_error(error, str(place)) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def sweep(self) -> None:
        """See `Store.sweep`."""
        for place in (self._root / "scratch").glob(f"{socket.gethostname()}-*"):
            try:
                os.kill(int(place.name.rsplit("-", 2)[1]), 0)
            except ProcessLookupError:
                shutil.rmtree(place, ignore_errors=True)
            except PermissionError:
                continue

    def link_new(self, source: str, name: str) -> None:
        """See `Store.link_new`: a hard link."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self._root / source, target)
        except FileExistsError:
            return
        except OSError as error:
            raise _local_error(error, str(target)) from error

    def uri(self, name: str) -> str:
        """See `Store.uri`."""
        return str(self._root / name)

    def probe(self) -> None:
        """See `Store.probe`."""
        if self._root.exists() and not self._root.is_dir():
            raise StoreRefused(f"output {self.root!r} is a file; give a folder")
        try:
            _probe(self)
        finally:
            shutil.rmtree(self._root / "probe", ignore_errors=True)


def _local_error(error: OSError, target: str) -> OSError:
    if error.errno in FULL:
        return StoreFull(error.errno, f"no space left writing {target}; free some room and run the same command again")
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
        return StoreRefused(f"{target}: this disk cannot make hard links ({error.strerror}), so nothing can be committed safely")  # type: ignore[return-value]
    return error


class S3Store:
    """A prefix in an S3 bucket; the endpoint and credentials come from the usual AWS_* environment."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._fs = _s3()

    def put_new(self, name: str, data: bytes | Path) -> bool:
        """See `Store.put_new`: PutObject (or CompleteMultipartUpload) with `If-None-Match: *`."""

        def put() -> bool:
            try:
                if isinstance(data, Path):
                    self._fs.put_file(str(data), self.uri(name), mode="create")
                else:
                    self._fs.pipe_file(self.uri(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if _code(error) in {"PreconditionFailed", "412"}:
                    return False
                raise
            return True

        return _retried(put, self.uri(name))

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return _retried(lambda: bytes(self._fs.cat_file(self.uri(name))), self.uri(name))

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""

        def head() -> bool:
            self._fs.invalidate_cache()
            try:
                self._fs.info(self.uri(name))
            except FileNotFoundError:
                return False
            return True

        return _retried(head, self.uri(name))

    def list(self, folder: str) -> list[str]:
        """See `Store.list`."""

        def find() -> list[str]:
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self.uri(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rsplit("/", 1)[1] for e in entries if e["type"] == "file")

        return _retried(find, self.uri(folder))

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """See `Store.local`: a download that goes when the context ends."""
        with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
            path = Path(folder) / name.rsplit("/", 1)[-1]
            _retried(lambda: self._fs.get_file(self.uri(name), str(path)), self.uri(name))
            yield path

    def open(self, name: str) -> pa.NativeFile:
        """See `Store.open`."""
        return pa.PythonFile(_retried(lambda: self._fs.open(self.uri(name), "rb", block_size=4 << 20), self.uri(name)), mode="r")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Store.scratch`."""
        with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
            yield Path(folder)

    def sweep(self) -> None:
        """See `Store.sweep`: nothing is left on S3 but unfinished multipart uploads, which a lifecycle rule ends."""

    def link_new(self, source: str, name: str) -> None:
        """See `Store.link_new`: a copy inside the store; the same source makes the same bytes, so racing is harmless."""
        if not self.exists(name):
            _retried(lambda: self._fs.copy(self.uri(source), self.uri(name)), self.uri(name))

    def uri(self, name: str) -> str:
        """See `Store.uri`."""
        return f"{self.root}/{name}"

    def probe(self) -> None:
        """See `Store.probe`."""
        _probe(self)
        _retried(lambda: self._fs.rm(self.uri("probe"), recursive=True), self.uri("probe"))


def _s3() -> Any:  # noqa: ANN401 - s3fs has no types
    import s3fs

    # Its listing cache would hide what other drivers commit.
    return s3fs.S3FileSystem(use_listings_cache=False)


def _code(error: BaseException) -> str:
    """Return the S3 error code behind an exception of s3fs, or its HTTP status as text, or ''."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        seen = seen.__cause__
    return "PreconditionFailed" if "pre-conditions" in str(error) else ""


def _retried(action: Callable[[], T], what: str) -> T:
    """Run an S3 call, waiting 0.4, 0.8, ... s between attempts; raise StoreError when it never works."""
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise StoreRefused(f"{what}: access denied ({error}); check the AWS_* credentials") from error
        except Exception as error:  # botocore and aiohttp raise unrelated families for the same outage
            if isinstance(error, TypeError | AttributeError | AssertionError):
                raise
            if _code(error) in {"NoSuchBucket"}:
                raise StoreRefused(f"{what}: the bucket does not exist; create it first") from error
            if attempt + 1 == ATTEMPTS:
                raise StoreError(f"{what}: {type(error).__name__}: {error} (after {ATTEMPTS} attempts)") from error
            time.sleep(0.4 * 2**attempt)
    raise AssertionError("unreachable")


def open_read(uri: str) -> BinaryIO:
    """Open a local path or `s3://` URI for reading; seekable."""
    if uri.startswith("s3://"):
        fs = _s3()
        return _retried(lambda: fs.open(uri, "rb", block_size=8 << 20), uri)  # type: ignore[no-any-return]
    return open(uri, "rb")


def expand(patterns: str | Sequence[str]) -> list[InputFile]:
    """Return the files that the patterns match, sorted by name.

    A file's name is its path below the fixed part of its pattern (the folders before the first of `* ? [`), so that
    documents keep their ids when a crawl moves to another disk or bucket.

    Raises:
        InputError: a pattern that matches nothing, or two files that would have one name.
    """
    found: dict[str, InputFile] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _match(pattern)
        if not matches:
            kind = "pattern matches no file" if any(c in pattern for c in GLOB) else "file does not exist"
            raise InputError(f"{pattern!r}: {kind} (looked in {_fixed(pattern) or os.getcwd()!r})")
        for uri, size, stamp in matches:
            name = uri[len(_fixed(pattern)) :].lstrip("/")
            twin = found.get(name)
            if twin is not None and twin.uri != uri:
                raise InputError(f"{uri!r} and {twin.uri!r} would both be named {name!r}; use one pattern that starts above both")
            found[name] = InputFile(name, uri, size, stamp)
    return [found[name] for name in sorted(found)]


def _fixed(pattern: str) -> str:
    first = min((pattern.index(c) for c in GLOB if c in pattern), default=len(pattern))
    return pattern[: pattern.rfind("/", 0, first) + 1]


def _match(pattern: str) -> list[tuple[str, int, str]]:
    """Return (uri, size, stamp) of each file the pattern matches."""
    if not pattern.startswith("s3://"):
        paths = glob.glob(pattern, recursive=True) if any(c in pattern for c in GLOB) else [pattern]
        stats = [(p, os.stat(p)) for p in sorted(paths) if os.path.isfile(p)]
        return [(p, s.st_size, f"{s.st_size}-{s.st_mtime_ns}") for p, s in stats]
    fs = _s3()
    entries = _retried(lambda: fs.glob(pattern, detail=True), pattern)
    if not any(c in pattern for c in GLOB) and not entries:
        with contextlib.suppress(FileNotFoundError):
            entries = {pattern: _retried(lambda: fs.info(pattern), pattern)}
    files = [(f"s3://{path}", entry) for path, entry in sorted(entries.items()) if entry["type"] == "file"]
    return [(uri, entry["size"], str(entry.get("ETag", "")).strip('"')) for uri, entry in files]


def sha256_file(path: Path) -> str:
    """Return the sha256 of a local file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
