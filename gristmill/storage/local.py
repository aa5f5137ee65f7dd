"""A store on a disk with hard links: the output folder of a laptop, or a shared file system.

Reads and writes below its root; what is written appears at once and whole, by `link()` to its final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from gristmill.errors import StoreFull, StoreRefused
from gristmill.storage.scratch import held_file, held_folder, held_mark, marks, sweep_files, sweep_folders

FULL = {errno.ENOSPC, errno.EDQUOT}

DRIVER = "driver"  # the name of the mark of a build that is running


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
        try:
            if isinstance(data, Path) and data.stat().st_dev == target.parent.stat().st_dev:
                with data.open("rb") as written:
                    os.fsync(written.fileno())
                os.link(data, target)
                return True
            with held_file(target.parent, target.name) as (temporary, out):
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
        return True

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return (self._root / name).read_bytes()

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return (self._root / name).exists()

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        try:
            found = (self._root / name).stat()
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        (self._root / name).unlink(missing_ok=True)

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store.sizes`."""
        return {entry.name: entry.stat().st_size for entry in self._entries(folder)}

    def _entries(self, folder: str) -> Sequence[os.DirEntry[str]]:
        path = self._root / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            files = (entry for entry in entries if not entry.name.startswith(".") and entry.is_file())
            return sorted(files, key=lambda entry: entry.name)

    def list(self, folder: str) -> list[str]:
        """See `Store.list`."""
        return [entry.name for entry in self._entries(folder)]

    def folders(self, folder: str) -> Sequence[str]:
        """See `Store.folders`."""
        path = self._root / folder
        if not path.is_dir():
            return []
        with os.scandir(path) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """See `Store.alive`: a file in `scratch/` that is locked."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(held_mark(self._root / "scratch", DRIVER))
            except OSError as error:
                raise _local_error(error, str(self._root / "scratch")) from error
            yield

    def live(self) -> Sequence[str]:
        """See `Store.live`."""
        return [f"scratch/{path.name}" for path in marks(self._root / "scratch", DRIVER)]

    def open(self, name: str, mapped: bool = True) -> pa.NativeFile:
        """See `Store.open`."""
        path = str(self._root / name)
        return pa.memory_map(path) if mapped else pa.OSFile(path)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Store.scratch`: `scratch/<32 hex digits>`."""
        try:
            with held_folder(self._root / "scratch") as folder:
                yield folder
        except OSError as error:
            raise _local_error(error, str(self._root / "scratch")) from error

    def sweep(self) -> None:
        """See `Store.sweep`."""
        sweep_folders(self._root / "scratch")
        sweep_files(self._root)

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


def _local_error(error: OSError, target: str) -> OSError:
    if error.errno in FULL:
        return StoreFull(error.errno, f"no space left writing {target}; free some room and run the same command again")
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
        return StoreRefused(f"{target}: this disk cannot make hard links ({error.strerror}), so nothing can be committed safely")  # type: ignore[return-value]
    return error
