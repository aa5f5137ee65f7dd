"""A store on S3, and the only importer of s3fs.

Reads and writes below a prefix of a bucket; what is written appears at once and whole, by a conditional put. The endpoint and the
credentials come from the usual AWS_* environment.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import s3fs
from aiobotocore.session import AioSession
from botocore.exceptions import NoCredentialsError, PartialCredentialsError
from botocore.handlers import add_expect_header

from gristmill.errors import StoreError, StoreRefused
from gristmill.storage import notes, retry
from gristmill.storage.bucket import BucketStore
from gristmill.storage.matching import FILE, FOLDER, Entry
from gristmill.storage.retry import code, patiently, timed_out

T = TypeVar("T")

CONNECT_S, READ_S = 10, 60  # after which a server that does not answer is reported
CREDENTIALS = 3  # attempts to find any: a machine's metadata service may be late


class S3Store(BucketStore):
    """A prefix in an S3 bucket; the endpoint and credentials come from the usual AWS_* environment."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._fs = file_system()

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
                if code(error) in {"PreconditionFailed", "412"} or "pre-conditions" in str(error):
                    return False
                raise
            return True

        return _retried(put, self.uri(name))

    def read(self, name: str) -> bytes:
        """See `Store.read`: one request. s3fs would ask for the size first, to fetch parts of a large object at once."""
        return _retried(lambda: bytes(self._fs.cat_file(self.uri(name), max_concurrency=1)), self.uri(name))

    def size(self, name: str) -> int | None:
        """See `Store.size`."""

        def head() -> int | None:
            self._fs.invalidate_cache()
            try:
                entry = self._fs.info(self.uri(name))
            except FileNotFoundError:
                return None
            return int(entry["size"]) if entry["type"] == "file" else None

        return _retried(head, self.uri(name))

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        _retried(lambda: self._fs.rm_file(self.uri(name)), self.uri(name))

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store.sizes`."""

        def find() -> dict[str, int]:
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self.uri(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return {}
            found = {e["name"].rsplit("/", 1)[1]: int(e["size"]) for e in entries if e["type"] == "file"}
            return {name: found[name] for name in sorted(found) if name}  # some servers list the folder itself, as an empty name

        return _retried(find, self.uri(folder))

    def folders(self, folder: str) -> Sequence[str]:
        """See `Store.folders`."""

        def find() -> Sequence[str]:
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self.uri(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(entry["name"].rstrip("/").rsplit("/", 1)[1] for entry in entries if entry["type"] == "directory")

        return _retried(find, self.uri(folder))

    def open(self, name: str, mapped: bool = True) -> pa.NativeFile:
        """See `Store.open`."""
        return pa.PythonFile(_Reader(self._fs, self.uri(name), 4 << 20), mode="r")

    def link_new(self, source: str, name: str) -> None:
        """See `Store.link_new`: a copy inside the store; the same source makes the same bytes, so racing is harmless.

        `cp_file`, since `copy` would take `* ? [` in the names for patterns, match nothing and say nothing.
        """
        if not self.exists(name):
            _retried(lambda: self._fs.cp_file(self.uri(source), self.uri(name)), self.uri(name))


def file_system() -> Any:  # noqa: ANN401 - s3fs has no types
    """Return s3fs, set up for stores that others write to.

    Its listing cache would hide what other drivers commit, and retries are ours alone (`retry`).
    """
    config = {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": CONNECT_S, "read_timeout": READ_S}
    fs = s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=config, session=_session())
    fs.retries = 1
    return fs


@functools.cache
def _session() -> AioSession:
    """Return a session of this process that sends the body of a put at once.

    With `Expect: 100-continue` it waits for a word of the server first, and for that without any time limit.
    """
    session = AioSession()
    session.unregister("before-call.s3", add_expect_header)
    return session


class _Reader(io.RawIOBase):
    """An object opened for reading, each read of it tried again when it fails."""

    def __init__(self, fs: Any, uri: str, block_size: int) -> None:  # noqa: ANN401
        self._uri = uri
        self._file = _retried(lambda: fs.open(uri, "rb", block_size=block_size), uri)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def size(self) -> int:
        """Return the bytes of the object; Arrow asks."""
        return int(self._file.size)

    def read(self, size: int | None = -1) -> bytes:
        # A read that failed has not moved the position.
        return _retried(lambda: bytes(self._file.read(-1 if size is None else size)), self._uri)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _retried(action: Callable[[], T], what: str) -> T:
    """Call S3, patiently (`retry`); `what` is the object, for messages.

    Raises:
        FileNotFoundError: at once.
        StoreRefused: the bucket, the right or the credentials are missing.
        StoreError: it never worked.
    """

    def judge(error: Exception, attempt: int) -> Exception | None:
        if code(error) == "NoSuchBucket":
            return StoreRefused(f"{what}: the bucket does not exist; create it first")
        if isinstance(error, FileNotFoundError):
            return error
        if isinstance(error, PermissionError):
            return StoreRefused(f"{what}: access denied ({error}); check the AWS_* credentials")
        if isinstance(error, NoCredentialsError | PartialCredentialsError) and attempt >= CREDENTIALS:
            return StoreRefused(f"{what}: {error}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a role")
        if timed_out(error):
            advice = f"{type(error).__name__}: {error}; attempt {attempt} of {retry.ATTEMPTS}"
            notes.tell(what.split("/", 3)[2], f"{what}: the server does not answer ({advice})")
        return None

    def given_up(error: Exception, attempt: int) -> Exception:
        return StoreError(f"{what}: {type(error).__name__}: {error} (attempt {attempt} of {retry.ATTEMPTS})")

    return patiently(action, judge, given_up)


def open_read(uri: str) -> BinaryIO:
    """Open an object for reading; seekable."""
    return _Reader(file_system(), uri, 8 << 20)  # type: ignore[return-value]


class S3Folders:
    """The folders of S3 as `matching` asks for them: common prefixes up to a `/`, and objects."""

    def __init__(self) -> None:
        self._fs = file_system()

    def entries(self, folder: str) -> dict[str, Entry]:
        """See `Folders.entries`."""
        path = folder.removeprefix("s3://")
        try:
            listed = _retried(lambda: self._fs.ls(path.rstrip("/"), detail=True, refresh=True), folder)
        except FileNotFoundError:
            return {}
        names = ((entry["name"].removesuffix("/"), entry) for entry in listed)
        inside = [(name[len(path) :], entry) for name, entry in names if name.startswith(path) and len(name) > len(path)]
        # An object and a folder may have one name; as a file it is what a pattern means.
        ordered = sorted(inside, key=lambda item: item[1]["type"] == "file")
        return {name: _entry(f"{folder}{name}", entry) for name, entry in ordered}

    def entry(self, path: str) -> Entry | None:
        """See `Folders.entry`."""
        try:
            return _entry(path, _retried(lambda: self._fs.info(path.rstrip("/")), path))
        except FileNotFoundError:
            return None


def _entry(path: str, found: Mapping[str, Any]) -> Entry:
    if found["type"] != "file":
        return Entry(path, FOLDER)
    return Entry(path, FILE, found["size"], str(found.get("ETag", "")).strip('"'))
