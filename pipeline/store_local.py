"""A store on a disk with hard links: the output folder of a laptop, or a shared file system.

Reads and writes below its root; what is written appears at once and whole, by `link()` to its final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.errors import StoreFull, StoreRefused

FULL = {errno.ENOSPC, errno.EDQUOT}


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

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        (self._root / name).unlink(missing_ok=True)

    def list(self, folder: str) -> list[str]:
        """See `Store.list`."""
        place = self._root / folder
        if not place.is_dir():
            return []
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())

    def open(self, name: str, mapped: bool = True) -> pa.NativeFile:
        """See `Store.open`."""
        path = str(self._root / name)
        return pa.memory_map(path) if mapped else pa.OSFile(path)

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


def _local_error(error: OSError, target: str) -> OSError:
    if error.errno in FULL:
        return StoreFull(error.errno, f"no space left writing {target}; free some room and run the same command again")
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
        return StoreRefused(f"{target}: this disk cannot make hard links ({error.strerror}), so nothing can be committed safely")  # type: ignore[return-value]
    return error
