"""Where bytes live: a local folder or an S3 prefix behind the same verbs.

Reads: any file under the root, input files of any kind (`expand`). Writes: only through `put_new`, which is atomic and
never overwrites: `link()` from a temporary file on local disks, `If-None-Match: *` on S3. `probe` refuses a place where
that does not hold (some S3 servers ignore the condition silently).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from pipeline.errors import InputError, StoreError, StoreRefused

GLOB = "*?["


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

    def open(self, name: str, mapped: bool = True) -> pa.NativeFile:
        """Open for random access by Arrow: where local mapped (or read, if not `mapped`), where remote by ranged requests."""
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


def open_store(root: str) -> Store:
    """Open the folder or `s3://bucket/prefix` at `root`."""
    # s3fs takes half a second to import; local builds do without.
    if root.startswith("s3://"):
        from pipeline.store_s3 import S3Store

        return S3Store(root)
    if "://" in root:
        raise StoreRefused(f"output {root!r}: only local folders and s3:// can commit without overwriting")
    for place in (Path(root), *Path(root).parents):
        if place.is_file():
            raise StoreRefused(f"output {root!r}: {str(place)!r} is a file; give a folder")
    from pipeline.store_local import LocalStore

    return LocalStore(root)


def probe(store: Store) -> None:
    """Raise StoreRefused unless `put_new` never overwrites here: a second write to one name must change nothing and say so.

    The file `probe` stays, and serves the next time too.
    """
    try:
        store.put_new("probe", b"first")
        before = store.read("probe")
        second, after = store.put_new("probe", b"second"), store.read("probe")
    except StoreError:
        raise
    except OSError as error:
        raise StoreRefused(f"output {store.root!r} cannot be written: {error}") from error
    if second or before != after:
        raise StoreRefused(
            f"output {store.root!r} does not honour conditional writes: a second write to one name was accepted (expected to be "
            "refused). Builds there could overwrite each other; use a local disk or an S3 server with If-None-Match"
        )


def open_read(uri: str) -> BinaryIO:
    """Open a local path or `s3://` URI for reading; seekable."""
    if uri.startswith("s3://"):
        from pipeline import store_s3

        return store_s3.open_read(uri)
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
    from pipeline import store_s3

    return store_s3.match(pattern, any(c in pattern for c in GLOB))


def sha256_file(path: Path) -> str:
    """Return the sha256 of a local file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
