"""One folder below a URL, through fsspec: listing, sizes, whole small files, ranges of large ones; patient with the network.

Reads: what the server has. Writes: nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from gristmill.errors import FormatError
from gristmill.secrets import cause, masked
from gristmill.storage import retry
from gristmill.storage.file import File

ASKING = 16  # sizes asked for at once, where there is no listing
ABSENT = -1
WITHOUT_LISTING = {"http", "https"}

Options: TypeAlias = Mapping[str, Any]
"""What a file system of fsspec takes: each its own."""

# Retries are ours alone (`retry`), and a listing of an hour ago would hide what has been uploaded since.
S3_OPTIONS: Options = {
    "use_listings_cache": False,
    "config_kwargs": {"retries": {"total_max_attempts": 1, "mode": "standard"}, "connect_timeout": 10, "read_timeout": 60},
}

T = TypeVar("T")


class Remote:
    """A folder below a URL. Connections are made on first use, in each process its own."""

    def __init__(self, uri: str, options: Options) -> None:
        self.uri = uri.rstrip("/")
        self._options = options
        self._opened: dict[int, tuple[Any, str]] = {}  # process → (file system, the folder in it)

    def url(self, name: str) -> str:
        """Return what a person would open, with its secrets hidden: for messages."""
        return masked(f"{self.uri}/{name}")

    def read(self, name: str) -> bytes:
        """Return a whole file. Raises FileNotFoundError."""
        fs, root = self._open()
        return self._patiently(lambda: bytes(fs.cat_file(f"{root}/{name}")), name)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of a file; all of it where the server knows no ranges. Raises FileNotFoundError."""
        fs, root = self._open()
        return self._patiently(lambda: bytes(fs.cat_file(f"{root}/{name}", start=start, end=end)), name)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, None where the server doesn't tell. Raises FileNotFoundError."""
        fs, root = self._open()
        found = self._patiently(lambda: fs.info(f"{root}/{name}"), name).get("size")
        return None if found is None else int(found)

    def names(self, prefix: str) -> list[str]:
        """Return the names of files that begin with `prefix`, sorted; those of a folder only, which `prefix` may begin with."""
        inner, slash, start = prefix.rpartition("/")
        return sorted(f"{inner}{slash}{name}" for name in self._listed(inner) if name.startswith(start))

    def check(self, files: Sequence[File]) -> None:
        """Raise FormatError unless each file, or its copy for transport where there is one, is there and of its size."""
        expected = {transport(file): file.bytes if file.zst is None else file.zst for file in files}
        if self._protocol() in WITHOUT_LISTING:
            with ThreadPoolExecutor(ASKING) as pool:
                sizes = zip(expected, pool.map(self._size_or_absent, expected), strict=True)
                found = {name: size for name, size in sizes if size != ABSENT}
        else:
            found = self._listed("")
        for name, size in expected.items():
            if name not in found:
                raise self.missing(name, len(files))
            if found[name] not in (None, size):
                raise self.wrong_size(name, size, found[name])

    def missing(self, name: str, files: int | None = None) -> FormatError:
        """Return the error of a file that is not there."""
        count = "it" if files is None else f"{files} files"
        return FormatError(f"{self.url(name)}: missing; the manifest names {count}, copy all files of the build")

    def wrong_size(self, name: str, expected: int, found: int | None) -> FormatError:
        """Return the error of a file that is shorter or longer than it should be."""
        return FormatError(
            f"{self.url(name)}: has {found} bytes, the manifest says {expected}; its copy there is incomplete or another file, "
            "upload it again"
        )

    def _size_or_absent(self, name: str) -> int | None:
        try:
            return self.size(name)
        except FileNotFoundError:
            return ABSENT

    def _listed(self, inner: str) -> dict[str, int | None]:
        """Return name → size of the files directly in a folder; nothing where there is no folder, or no listing of it."""
        fs, root = self._open()
        folder = f"{root}/{inner}".rstrip("/")
        try:
            entries = self._patiently(lambda: fs.ls(folder, detail=True), inner)
        except FileNotFoundError:
            return {}
        except OSError:
            if self._protocol() in WITHOUT_LISTING:  # many servers refuse
                return {}
            raise
        return {entry["name"].rsplit("/", 1)[1]: entry["size"] for entry in entries if entry["type"] == "file"}

    def _protocol(self) -> str:
        return self.uri.split("://", 1)[0]

    def _open(self) -> tuple[Any, str]:
        import fsspec  # here alone: it takes longer to import than all of ours, and what is on a disk needs none of it

        process = os.getpid()
        if process not in self._opened:
            try:
                fs, root = fsspec.core.url_to_fs(self.uri, **_options(self._protocol(), self._options, fsspec.config.conf))
            except ImportError as error:
                package = "s3fs" if self._protocol() in ("s3", "s3a") else "the package that it names"
                raise FormatError(f"{self.uri}: {error}; pip install {package}") from error
            except ValueError as error:
                raise FormatError(f"{self.uri}: fsspec cannot open it: {error}") from cause(error)
            if self._protocol() in ("s3", "s3a"):
                fs.retries = 1  # s3fs's own, beside botocore's
            self._opened[process] = fs, root.rstrip("/")
        return self._opened[process]

    def _patiently(self, action: Callable[[], T], name: str) -> T:
        """Call again, after waits that grow, while what fails may pass.

        Raises:
            FileNotFoundError, PermissionError: at once.
            ConnectionError: it never worked; names the URL and the cause.
        """
        url = self.url(name)

        def judge(error: Exception, attempt: int) -> Exception | None:
            behind = _cause(error)
            if isinstance(behind, FileNotFoundError):
                return error if cause(behind) is not None else FileNotFoundError(masked(str(behind)))
            if isinstance(error, PermissionError):
                return PermissionError(masked(f"{url}: access denied ({error}); check the credentials"))
            return None

        def given_up(error: Exception, attempt: int) -> Exception:
            behind = _cause(error)
            reason = masked(f"{type(behind).__name__}: {behind}".rstrip(": "))
            return ConnectionError(f"{url}: {reason} (attempt {attempt} of {retry.ATTEMPTS})")

        return retry.patiently(action, judge, given_up)


def _cause(error: Exception) -> BaseException:
    """Return what is behind an error: fsspec calls a web server's file missing whatever went wrong when it asked for its size."""
    cause = error.__cause__
    unasked = isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp")
    return cause if unasked and cause is not None and getattr(cause, "status", 500) not in (404, 410) else error


def transport(file: File) -> str:
    """Return the name of what is downloaded for a file: itself, or its compressed copy."""
    return file.name if file.zst is None else f"{file.name}.zst"


def _options(protocol: str, given: Options, conf: Mapping[str, Options]) -> Options:
    """Return the options of a file system: ours, over them fsspec's configuration (`conf`), over that what was given."""
    if protocol not in ("s3", "s3a"):
        return dict(given)
    configured = {**conf.get("s3", {}), **conf.get("s3a", {})}
    return {**{key: value for key, value in S3_OPTIONS.items() if key not in configured}, **given}
