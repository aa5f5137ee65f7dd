"""Files and folders that a process has in use: they go with it, and what a killed one left can be recognized.

Writes hidden files that are locked (flock) for as long as they are used, and folders beside such a file. The system lets go of a
lock when the process ends, however it ends, so a lock that can be taken is nobody's. A process number would say less: another
container with the same host name has the same numbers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")  # what `held_file` calls its files
FOLDER = "folder"  # the file `.folder.<name>` is locked while the folder `<name>` is in use
UNLOCKABLE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}  # of a file system without locks
# Some shared file systems keep locks on each machine (Lustre with localflock, several FUSE ones), so the lock of a file from
# another machine proves something only when no unit can take that long.
ELSEWHERE_S = 86_400.0


@contextlib.contextmanager
def held_file(folder: Path, name: str) -> Iterator[tuple[Path, BinaryIO]]:
    """Create the empty file `.<name>.<32 hex digits>`, and give its path and itself, opened for writing, locked.

    When the context ends, it is removed if it is still there.
    """
    while True:
        path = folder / f".{name}.{uuid.uuid4().hex}"
        file = path.open("xb")
        try:
            _lock(file, wait=True)
            if _is_at(file, path):
                break
        except BaseException:
            path.unlink(missing_ok=True)
            file.close()
            raise
        file.close()  # swept before it was locked
    try:
        yield path, file
    finally:
        path.unlink(missing_ok=True)
        file.close()


@contextlib.contextmanager
def held_mark(parent: Path, name: str) -> Iterator[Path]:
    """Hold a file as `held_file` does that says on which machine; in a folder that is made where it is not there."""
    parent.mkdir(parents=True, exist_ok=True)
    with held_file(parent, name) as (path, file):
        file.write(_kernel())
        file.flush()
        yield path


def marks(parent: Path, name: str) -> list[Path]:
    """Return the marks of this name that somebody holds."""
    found = []
    for path in sorted(parent.glob(f".{name}.*")):
        with _taken(path) as free:
            if not free and path.exists():
                found.append(path)
    return found


@contextlib.contextmanager
def held_folder(parent: Path) -> Iterator[Path]:
    """Create an empty folder in `parent`; it goes when the context ends, or is swept when the process was killed."""
    with held_mark(parent, FOLDER) as path:
        folder = parent / path.name.rpartition(".")[2]
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep_folders(parent: Path) -> None:
    """Remove the folders that nobody holds."""
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    locks = {name.rpartition(".")[2]: parent / name for name in names if name.startswith(f".{FOLDER}.")}
    for name in sorted({*locks, *(name for name in names if not name.startswith("."))}):
        # The lock is there before its folder is, and goes after it: a folder without one is nobody's.
        lock = locks.get(name, parent / f".{FOLDER}.{name}")
        with _taken(lock) as free:
            if free or (free is None and not lock.exists()):
                shutil.rmtree(parent / name, ignore_errors=True)
            if free:
                lock.unlink(missing_ok=True)


def sweep_files(root: Path) -> None:
    """Remove the files below `root` that `held_file` made and nobody holds; hidden folders are left alone."""
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in names if TEMPORARY.fullmatch(name)):
            with _taken(path) as free:
                if free:
                    path.unlink(missing_ok=True)


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Give a folder in the machine's temporary folder that is this user's alone, for `held_folder`.

    It stays, so that what was killed can be swept. Where somebody else made one of its name, it is a fresh one that goes.
    """
    folder = Path(tempfile.gettempdir()) / f"gristmill-scratch-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gristmill-") as fresh:
        yield Path(fresh)


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[bool | None]:
    """Hold the lock of a file if nobody else does; tell whether it is held, or None: no such file, or another user's."""
    try:
        file = path.open("rb+")
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        yield None
        return
    with file:
        kernel = file.read(64)
        recent = time.time() - os.fstat(file.fileno()).st_mtime < ELSEWHERE_S
        if kernel and kernel != _kernel() and recent:
            yield False
        else:
            yield _lock(file, wait=False)


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Lock a file, if the file system can; tell whether it is locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
        return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _kernel() -> bytes:
    """Return what names the running kernel: it is one for all containers of a machine, and another after each start."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
