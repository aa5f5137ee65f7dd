"""Where bytes live: a local folder, or a prefix on S3 or Azure Blob Storage, behind the same verbs.

Reads: any file under the root, input files of any kind (`expand`). Writes: only through `put_new`, which is atomic and
never overwrites: `link()` from a temporary file on local disks, `If-None-Match: *` elsewhere. `probe` refuses a location
where that does not hold (some S3 servers ignore the condition silently).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa

from gristmill.errors import InputError, StoreError, StoreRefused, UserError
from gristmill.secrets import check_bucket
from gristmill.storage import matching
from gristmill.storage.disk import Disk


def _untold(message: str) -> None:
    """Tell nobody."""


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
    """What the machine needs of a location; names are relative paths with `/`."""

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

    def size(self, name: str) -> int | None:
        """Return the bytes of `name`, or None when it is not there."""
        ...

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the files directly in `folder`, as `list` does, with their bytes."""
        ...

    def folders(self, folder: str) -> Sequence[str]:
        """Return the names of the folders directly in `folder`, sorted; empty when there is no such folder."""
        ...

    def alive(self) -> contextlib.AbstractContextManager[None]:
        """Keep a mark here, as long as the context lasts, that says that a build is running."""
        ...

    def live(self) -> Sequence[str]:
        """Return the marks of builds that are running; in a bucket those of killed ones too."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away, if it is there: one that was found damaged, or that nothing needs."""
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
        """Remove what killed processes left half done: scratch folders and temporary files that nobody holds."""
        ...


def open_store(root: str) -> Store:
    """Open the folder, `s3://BUCKET/PREFIX` or `az://CONTAINER/PREFIX` at `root`."""
    root = _home(root)
    # s3fs takes half a second to import; local builds do without.
    if root.startswith("s3://"):
        _check_s3(root, StoreRefused)
        from gristmill.storage.s3 import S3Store

        return S3Store(root)
    if root.startswith("az://"):
        from gristmill.storage.azure import AzureBlobStore

        return AzureBlobStore(root)
    if "://" in root:
        raise StoreRefused(f"output {root!r}: only local folders, s3:// and az:// can commit without overwriting")
    for folder in (Path(root), *Path(root).parents):
        if folder.is_file():
            raise StoreRefused(f"output {root!r}: {str(folder)!r} is a file; give a folder")
    from gristmill.storage.local import LocalStore

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
    """Open a local path, `s3://` or `az://` URI for reading; seekable."""
    if uri.startswith("s3://"):
        from gristmill.storage import s3

        return s3.open_read(uri)
    if uri.startswith("az://"):
        from gristmill.storage import azure

        return azure.open_read(uri)
    return open(_home(uri), "rb")


def expand(patterns: str | Sequence[str], tell: Callable[[str], None] = _untold) -> list[InputFile]:
    """Return the files that the patterns match, sorted by name.

    What a pattern is, see `matching`; `~/` is the home folder. A file's name is its path below the fixed part of its pattern (the
    folders before the first part that stands for others), so that documents keep their ids when a crawl moves to another disk or
    bucket. Folders that a pattern matches are left out, and `tell` is called with a line on each.

    Raises:
        InputError: a pattern that matches nothing; a path that is no file, such as a folder, a FIFO or a link that leads nowhere;
            a name that is not UTF-8; two files that would have one name, one file that would have two.
    """
    found: dict[str, InputFile] = {}
    named: dict[str, str] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not pattern:
            raise InputError("'' names no file; give a path or a pattern")
        matched = matching.match(_home(pattern), _folders(pattern))
        _check_others(pattern, matched, tell)
        for entry in matched.files:
            name = entry.path[len(matched.fixed) :].lstrip("/")
            _check_name(entry.path)
            twin = found.get(name)
            if twin is not None and twin.uri != entry.path:
                raise InputError(
                    f"{entry.path!r} and {twin.uri!r} would both be named {name!r}; use one pattern that starts above both"
                )
            if named.setdefault(entry.path, name) != name:
                raise InputError(
                    f"{entry.path!r} is matched by two patterns, as {named[entry.path]!r} and as {name!r}: its documents would "
                    "come twice; leave one out"
                )
            found[name] = InputFile(name, entry.path, entry.size, entry.stamp)
    return [found[name] for name in sorted(found)]


def _check_s3(uri: str, error: type[UserError]) -> None:
    try:
        check_bucket(uri)
    except ValueError as mistake:
        raise error(str(mistake)) from None


def _folders(pattern: str) -> matching.Folders:
    if pattern.startswith("s3://"):
        _check_s3(pattern, InputError)
        from gristmill.storage.s3 import S3Folders

        return S3Folders()
    if pattern.startswith("az://"):
        from gristmill.storage.azure import AzureFolders

        return AzureFolders()
    if "://" in pattern:
        raise InputError(f"{pattern!r}: inputs are local paths, s3:// or az:// URIs; copy the files to one of these first")
    return Disk()


def _home(path: str) -> str:
    """Return the path with the home folder for `~/`."""
    return os.path.expanduser(path) if path.startswith("~/") else path


def _check_others(pattern: str, matched: matching.Match, tell: Callable[[str], None]) -> None:
    """Refuse what is neither file nor folder, and nothing at all; report folders that are left out."""
    for entry in matched.others:
        if entry.kind != matching.FOLDER:
            raise InputError(f"{entry.path!r}: is {entry.kind}; only files are read: remove it, or give a pattern without it")
    folders = sorted(entry.path.rstrip("/") for entry in matched.others)
    if folders and matched.one:
        raise InputError(f"{pattern!r}: is a folder; give its files, such as {f'{folders[0]}/{_example(folders[0])}'!r}")
    if not matched.files:
        kind = "file does not exist" if matched.one else "pattern matches no file"
        only = f", only folders such as {folders[0]!r}; add '/*'" if folders else ""
        raise InputError(f"{pattern!r}: {kind}{only} (looked in {matched.fixed or os.getcwd()!r})")
    if folders:
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        tell(f"{pattern!r} also matches the folder {folders[0]!r}{more}, whose files are not read; '**' goes into folders")


def _example(folder: str) -> str:
    """Return a pattern that fits most files of a folder."""
    names = [name for name, entry in _folders(folder).entries(f"{folder}/").items() if entry.kind == matching.FILE]
    endings = Counter("*" + name[name.index(".", 1) :] for name in sorted(names) if "." in name[1:])
    return endings.most_common(1)[0][0] if endings else "*"


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError(f"'{shown}': its name is not UTF-8, so that documents could not name it; rename the file") from error


def sha256_file(path: Path) -> str:
    """Return the sha256 of a local file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
