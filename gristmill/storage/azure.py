"""A store on Azure Blob Storage, and the only importer of obstore.

Reads and writes below a prefix of a container, `az://CONTAINER/PREFIX`; what is written appears at once and whole, by a Put Blob
with `If-None-Match: *`. The account and its credentials come from the environment, by the names that obstore lists
(https://developmentseed.org/obstore/latest/api/store/azure/): AZURE_STORAGE_ACCOUNT_NAME, with AZURE_STORAGE_ACCOUNT_KEY, with
AZURE_STORAGE_SAS_TOKEN, with a service principal or a workload identity, or else with the identity of the machine.
"""

from __future__ import annotations

import contextlib
import functools
import io
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore

from gristmill.errors import StoreError, StoreRefused, UserError
from gristmill.secrets import masked
from gristmill.storage import notes, retry
from gristmill.storage.bucket import BucketStore
from gristmill.storage.matching import FILE, FOLDER, Entry

T = TypeVar("T")

CONNECT_S, READ_S = 10.0, 60.0  # after which a server that does not answer is reported
# The client's time limit for an answer begins with the request, not when all of it is sent: with a limit of 1 s, 10 MB failed
# after 1 s, while the server was taking them. So each so many bytes add one more limit.
SENT = 64 << 20
CREDENTIALS = 3  # attempts to get any: a machine's metadata service may be late
# One Put Blob takes no more, and Put Block List, for larger ones, has no condition in obstore.
# https://learn.microsoft.com/rest/api/storageservices/put-blob
LARGEST = 5000 << 20
KEYS = "AZURE_STORAGE_ACCOUNT_KEY (or AZURE_STORAGE_SAS_TOKEN)"
AHEAD = 4 << 20  # bytes asked for at once when less is read
LOOK_S = 0.5  # between two looks whether a copy is whole

_STATUS = re.compile(r"non-2xx status code: (\d{3})")


class AzureBlobStore(BucketStore):
    """A prefix in a container of Azure Blob Storage."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._container, self._prefix = split(self.root)

    def put_new(self, name: str, data: bytes | Path) -> bool:
        """See `Store.put_new`. Raises StoreRefused for more than 5000 MiB."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size > LARGEST:
            raise StoreRefused(
                f"{self.uri(name)}: has {size} bytes, and Azure commits at most {LARGEST} at once; use smaller shards"
            )

        def put() -> bool:
            client = _client(self._container, READ_S * (1 + size // SENT))
            try:
                with _content(data) as content:
                    obstore.put(client, self._key(name), content, mode="create")
            except AlreadyExistsError:
                return False
            return True

        return _retried(put, self.uri(name))

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return _retried(lambda: bytes(obstore.get(_client(self._container, READ_S), self._key(name)).bytes()), self.uri(name))

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        found = _head(self._container, self._key(name), self.uri(name))
        return None if found is None else int(found["size"])

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store.sizes`."""
        found = _listed(self._container, self._key(folder), self.uri(folder))["objects"]
        return {_name(each["path"]): int(each["size"]) for each in sorted(found, key=lambda each: str(each["path"]))}

    def folders(self, folder: str) -> Sequence[str]:
        """See `Store.folders`."""
        return sorted(map(_name, _listed(self._container, self._key(folder), self.uri(folder))["common_prefixes"]))

    def remove(self, name: str) -> None:
        """See `Store.remove`."""

        def delete() -> None:
            try:
                obstore.delete(_client(self._container, READ_S), self._key(name))
            except FileNotFoundError:
                return

        _retried(delete, self.uri(name))

    def open(self, name: str, mapped: bool = True) -> pa.NativeFile:
        """See `Store.open`."""
        return pa.PythonFile(_Reader(self._container, self._key(name), self.uri(name)), mode="r")

    def link_new(self, source: str, name: str) -> None:
        """See `Store.link_new`: a copy inside the account, which may end after the answer; the blob is empty until then.

        Raises StoreError when the copy is not whole after READ_S.
        """
        client, expected = _client(self._container, READ_S), self.size(source)

        def copy() -> None:
            try:
                obstore.copy(client, self._key(source), self._key(name), overwrite=False)
            except AlreadyExistsError:
                return

        _retried(copy, self.uri(name))
        deadline = time.monotonic() + READ_S
        while self.size(name) != expected:
            if time.monotonic() > deadline:
                self.remove(name)
                raise StoreError(f"{self.uri(name)}: the copy of {self.uri(source)} was not whole after {READ_S:.0f} s")
            time.sleep(LOOK_S)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}".strip("/")


class AzureFolders:
    """The folders of a container as `matching` asks for them: common prefixes up to a `/`, and blobs."""

    def entries(self, folder: str) -> dict[str, Entry]:
        """See `Folders.entries`."""
        found = _listed(*split(folder), folder)
        folders = {_name(path): Entry(folder + _name(path), FOLDER) for path in found["common_prefixes"]}
        # A blob and a folder may have one name; as a file it is what a pattern means.
        return {**folders, **{_name(each["path"]): _entry(folder + _name(each["path"]), each) for each in found["objects"]}}

    def entry(self, path: str) -> Entry | None:
        """See `Folders.entry`."""
        inside, key = split(path)
        found = _head(inside, key, path) if key else None
        if found is not None:
            return _entry(path, found)
        below = _listed(inside, key, path)
        return Entry(path, FOLDER) if below["objects"] or below["common_prefixes"] else None


def open_read(uri: str) -> BinaryIO:
    """Open a blob for reading; seekable."""
    return _Reader(*split(uri), uri)  # type: ignore[return-value]


def split(uri: str) -> tuple[str, str]:
    """Return the container of a URI and the rest, without `/` around it.

    Raises:
        StoreRefused: the name of the container is not one, as where an account or a key is written in front of it.
    """
    name, _, key = uri.removeprefix("az://").partition("/")
    if not re.fullmatch(r"[a-z0-9$][a-z0-9-]{1,61}[a-z0-9]", name):
        raise StoreRefused(
            f"{masked(uri)!r}: what stands before the first / is no name of a container (3 to 63 of a-z, 0-9 and -); write "
            "az://CONTAINER/PREFIX, and the account into AZURE_STORAGE_ACCOUNT_NAME"
        )
    return name, key.strip("/")


@functools.lru_cache(maxsize=8)
def _client(name: str, read_s: float) -> AzureStore:
    """Return a client of a container, which tries once: retries are ours alone (`retry`).

    Raises StoreRefused when the environment names no account.
    """
    options = {"connect_timeout": timedelta(seconds=CONNECT_S), "read_timeout": timedelta(seconds=read_s), "timeout": "1day"}
    plain = os.environ.get("AZURE_STORAGE_ENDPOINT", "").startswith("http://")
    try:
        return AzureStore(name, client_options={**options, "allow_http": plain}, retry_config={"max_retries": 0})
    except BaseError as error:
        raise StoreRefused(f"az://{name}: {_words(error)}; set AZURE_STORAGE_ACCOUNT_NAME and {KEYS}") from None


@contextlib.contextmanager
def _content(data: bytes | Path) -> Iterator[bytes | mmap.mmap]:
    """Give what is to be sent: a file is mapped, not read, since obstore would read it into memory twice."""
    if isinstance(data, bytes) or not data.stat().st_size:
        yield data if isinstance(data, bytes) else b""
        return
    with data.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


class _Reader(io.RawIOBase):
    """A blob opened for reading by ranges, each asked for again when it fails; small reads are served from one of AHEAD bytes."""

    def __init__(self, name: str, key: str, uri: str) -> None:
        self._client, self._key, self._uri = _client(name, READ_S), key, uri
        found = _head(name, key, uri)
        if found is None:
            raise FileNotFoundError(uri)
        self._size = int(found["size"])
        self._at = 0
        self._block, self._begin = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def size(self) -> int:
        """Return the bytes of the blob; Arrow asks."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        if not (self._begin <= self._at and end <= self._begin + len(self._block)):
            self._begin, self._block = self._at, self._range(self._at, min(self._size, max(end, self._at + AHEAD)))
        found = self._block[self._at - self._begin : end - self._begin]
        self._at = end
        return found

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - as io.RawIOBase has it
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _range(self, start: int, end: int) -> bytes:
        return _retried(lambda: bytes(obstore.get_range(self._client, self._key, start=start, end=end)), self._uri)


def _head(name: str, key: str, uri: str) -> Mapping[str, Any] | None:
    """Return what the server says of a blob; None when there is none."""

    def head() -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = obstore.head(_client(name, READ_S), key)
        except FileNotFoundError:  # of a container that is not there too: an answer to HEAD has no words
            return None
        return found

    return _retried(head, uri)


def _listed(name: str, key: str, uri: str) -> Mapping[str, Sequence[Any]]:
    """Return `objects` and `common_prefixes` directly in a folder; the container itself is the folder ''."""

    def find() -> Mapping[str, Sequence[Any]]:
        found: Mapping[str, Sequence[Any]] = obstore.list_with_delimiter(_client(name, READ_S), key or None)
        return found

    return _retried(find, uri)


def _entry(path: str, found: Mapping[str, Any]) -> Entry:
    return Entry(path, FILE, int(found["size"]), str(found["e_tag"]).strip('"'))


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _retried(action: Callable[[], T], what: str) -> T:
    """Call Azure, patiently (`retry`); `what` is the blob, for messages.

    Raises:
        FileNotFoundError: at once.
        StoreRefused: the container, the right or the credentials are missing.
        StoreError: it never worked.
    """

    def judge(error: Exception, attempt: int) -> Exception | None:
        words, status = _words(error), _STATUS.search(str(error))
        if "ContainerNotFound" in words:
            return StoreRefused(f"{what}: the container does not exist; create it first")
        if isinstance(error, FileNotFoundError | UserError):
            return error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return StoreRefused(f"{what}: access denied ({words}); check the AZURE_STORAGE_* credentials")
        if "token request" in words and attempt >= CREDENTIALS:
            return StoreRefused(f"{what}: no credentials ({words}); set {KEYS}, or give the machine an identity")
        if "kind: Timeout" in str(error):
            notes.tell(
                what.split("/", 3)[2], f"{what}: the server does not answer ({words}; attempt {attempt} of {retry.ATTEMPTS})"
            )
        lasting = status is not None and 400 <= int(status[1]) < 500 and int(status[1]) not in retry.PASSING
        return given_up(error, attempt) if lasting else None

    def given_up(error: Exception, attempt: int) -> Exception:
        return StoreError(f"{what}: {_words(error)} (attempt {attempt} of {retry.ATTEMPTS})")

    return retry.patiently(action, judge, given_up)


def _words(error: BaseException) -> str:
    """Return what an error says in one line without secrets, and without its fields in Rust, which obstore adds below."""
    return masked(" ".join(str(error).partition("\n\nDebug source:")[0].split()))
