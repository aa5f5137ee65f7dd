"""Remote files on a local disk: whole, named by their sha256, within a bound, shared by the processes of a machine.

Reads and writes: one folder, which it owns (a marker lies in it) and below which alone anything is ever removed:

    gristmill-cache                 the marker; locked while space is made
    ab/abcdef…                      a whole file whose sha256 is abcdef…; locked (shared) while somebody uses it
    ab/abcdef….1048576.lock         a download under way; locked (exclusively) by the one that downloads. The number is the
                                    bytes of space set aside for it
    ab/abcdef….1048576.part         what it has so far
    ab/abcdef….1048576.out          what is being decompressed from it

All locks are flock: they end with the process that has them, however it ends. A forked child shares those of its parent on
files in use, and they last until both have let go, since these are undone by closing alone. Files are removed least recently
used first, by the time of modification, which is set when a use begins and when it ends. A file that was fetched ahead of
its use has its time of access at zero until then, and nobody removes it to fetch something else ahead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gristmill.arguments import whole
from gristmill.errors import FormatError
from gristmill.home import cache_folder
from gristmill.storage.file import File

MARKER = "gristmill-cache"
ABOUT = "Shards that gristmill downloaded. It removes the oldest by itself; delete the whole folder when nothing reads it.\n"
LOCK, PART, OUT = ".lock", ".part", ".out"
AHEAD_S = 3600.0  # a file that was fetched ahead and never used counts as used after that: its reader is gone


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Where remote shards are kept on this machine.

    Attributes:
        folder: of the cache's own, on a local disk; several datasets and processes can share it. None: `shards` in
            $GRISTMILL_CACHE, else `gristmill/shards` in $XDG_CACHE_HOME or ~/.cache.
        limit_bytes: what all files in it may take together. Two or more times the largest file.
        downloads: files downloaded at once, ahead of their use, by each build that is read.
    """

    folder: str | Path | None = None
    limit_bytes: int = 64 << 30
    downloads: int = 4

    def __post_init__(self) -> None:
        for name, value in (("limit_bytes", self.limit_bytes), ("downloads", self.downloads)):
            object.__setattr__(self, name, whole(f"Cache: {name}", value, 1))

    @property
    def root(self) -> Path:
        """The folder, with what None stands for."""
        if self.folder is not None:
            return Path(self.folder).expanduser()
        folder = cache_folder()
        if folder is None:
            raise FormatError(
                "the user has no home folder to cache remote shards in; name one, Cache(folder=...) or $GRISTMILL_CACHE"
            )
        return folder / "shards"

    @property
    def budget(self) -> int:
        """Bytes of files that one process should hold at once, in all builds together; the rest is for what is fetched ahead."""
        return self.limit_bytes // 2

    def check(self, file: File) -> None:
        """Raise ValueError when a file is larger than the whole cache may be."""
        if needed(file) > self.limit_bytes:
            packed = "" if file.zst is None else f" and {file.zst} of its compressed copy"
            raise ValueError(
                f"Cache: limit_bytes is {self.limit_bytes}, but {file.name} alone has {file.bytes} bytes{packed}; "
                f"raise limit_bytes to {2 * needed(file)} or more"
            )


def needed(file: File) -> int:
    """Return the bytes of disk that a file's download takes: its own, and those of the compressed copy it is made from."""
    return file.bytes + (file.zst or 0)


def mark_ahead(path: Path) -> None:
    """Mark a file as fetched ahead of its use: its time of access is zero until then."""
    os.utime(path, ns=(0, time.time_ns()))


class HeldFile:
    """A file of the cache that nobody removes until `release`, or until the object is gone."""

    def __init__(self, path: Path, lock: int, size: int) -> None:
        self.path = path
        self._lock = lock
        self._size = size

    @property
    def size(self) -> int:
        """Bytes that are held: none after `release`."""
        return self._size if self._lock >= 0 else 0

    def release(self) -> None:
        """Let go of the file; again is harmless."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            with contextlib.suppress(PermissionError):
                os.utime(lock, ns=(os.fstat(lock).st_atime_ns, time.time_ns()))
            os.close(lock)  # in a forked child its own share of the lock

    def __del__(self) -> None:
        self.release()


class Shelf:
    """The files in a cache's folder. Holds no state of its own: several may stand on one folder."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.root = cache.root

    def prepare(self) -> None:
        """Make the folder, or see that it is a cache's.

        Raises:
            FormatError: it holds something else, or cannot be written.
        """
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            names = set(os.listdir(self.root))
            if MARKER in names:
                return
            if names:
                raise FormatError(
                    f"{self.root}: not a cache of gristmill ({len(names)} other entries, no {MARKER}), and files of a cache get "
                    "removed; name a new or empty folder, Cache(folder=...) or $GRISTMILL_CACHE"
                )
            (self.root / MARKER).write_text(ABOUT)

    def path(self, file: File) -> Path:
        """Return where a file lies when it is there."""
        return self.root / file.sha256[:2] / file.sha256

    def part(self, file: File) -> Path:
        """Return where its download lies."""
        return self._lock(file).with_suffix(PART)

    def out(self, file: File) -> Path:
        """Return where it is decompressed."""
        return self._lock(file).with_suffix(OUT)

    def _lock(self, file: File) -> Path:
        return self.root / file.sha256[:2] / f"{file.sha256}.{needed(file)}{LOCK}"

    def hold(self, file: File) -> HeldFile | None:
        """Return a file that is there, locked against removal and marked as used now; None when it isn't there."""
        path = self.path(file)
        while True:
            lock = self._opened(path, fcntl.LOCK_SH)
            if lock is None:
                return None
            if os.fstat(lock).st_size == file.bytes:
                with contextlib.suppress(PermissionError):  # another user's; it only looks older than it is
                    os.utime(path)
                return HeldFile(path, lock, file.bytes)
            os.close(lock)
            self._remove(path)  # cut short by somebody, or by a crash of the machine

    def mark_ahead(self, file: File, ahead: bool) -> bool:
        """Mark a file as fetched ahead of its use, or no longer so; return whether it is there."""
        path = self.path(file)
        try:
            found = path.stat()
            if found.st_size != file.bytes:
                return False
            with contextlib.suppress(PermissionError):
                if ahead:
                    mark_ahead(path)
                else:
                    os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
        except FileNotFoundError:
            return False
        return True

    def reserve(self, file: File, *, urgent: bool) -> bool:
        """Set space aside for a download, removing what was used longest ago; return False, removing nothing, if all is in use.

        Args:
            file: what will be downloaded.
            urgent: somebody waits for it: files that were fetched ahead may be removed too.
        """
        path = self._lock(file)
        with self._writing(), self._locked():
            if path.exists():
                return True
            entries = list(self._entries())
            missing = needed(file) + sum(entry.space for entry in entries) - self.cache.limit_bytes
            if missing > 0 and not _remove_oldest(entries, missing, urgent=urgent):
                return False
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return True

    @contextlib.contextmanager
    def claim(self, file: File) -> Iterator[bool]:
        """Wait until nobody else downloads the file; give False where it need not or cannot be done now: look again.

        When the context ends, the space set aside is free again. After an exception, except FormatError, it isn't: what there
        is of the file stays, for whoever comes next.
        """
        path = self._lock(file)
        with self._writing():
            lock = self._opened(path, fcntl.LOCK_EX)
        if lock is None:
            yield False
            return
        try:
            if self.path(file).exists():
                yield False
            else:
                yield True
            _give_up(path)
        except FormatError:
            _give_up(path)
            raise
        finally:
            _unlock(lock)

    def used(self) -> int:
        """Return the bytes that all files take, and those set aside."""
        return sum(entry.space for entry in self._entries())

    def full(self, file: File) -> OSError:
        """Return the error of a file for which there is no space because all else is in use."""
        return OSError(
            errno.ENOSPC,
            f"{self.root}: no space for {needed(file)} bytes of {file.name}: limit_bytes is {self.cache.limit_bytes}, and the "
            f"{self.used()} bytes in the cache are in use; hold fewer files at once, let fewer processes share the cache, "
            "or raise Cache(limit_bytes=...)",
        )

    def _remove(self, path: Path) -> None:
        with self._writing():
            lock = self._opened(path, fcntl.LOCK_EX)
            if lock is not None:
                path.unlink(missing_ok=True)
                _unlock(lock)

    def _opened(self, path: Path, kind: int) -> int | None:
        """Open and lock what lies at `path`, waiting for the lock; None when there is nothing."""
        mode = os.O_RDONLY if kind == fcntl.LOCK_SH else os.O_RDWR
        while True:
            try:
                lock = os.open(path, mode | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(lock, kind)
                if _is_at(lock, path):
                    return lock
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # removed while we waited

    def _entries(self) -> Iterator[_Entry]:
        for folder in os.scandir(self.root):
            if folder.is_dir(follow_symlinks=False):
                yield from filter(None, map(_Entry.of, os.scandir(folder)))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes and threads from making space at the same time."""
        lock = os.open(self.root / MARKER, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(lock)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise FormatError(
                f"{self.root}: this process cannot write there ({error.strerror}: {error.filename}); name another folder, "
                "Cache(folder=...) or $GRISTMILL_CACHE, or let its users share a group that may write"
            ) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise FormatError(f"{self.root}: the disk is read-only; name another folder, Cache(folder=...)") from error
            if error.errno == errno.EMFILE:
                error.add_note("each file of the cache in use is an open file: raise the limit (ulimit -n), or hold fewer")
            raise


@dataclass(frozen=True)
class _Entry:
    """A file in the cache: its path, the space it takes, when it was used, and whether it still waits for its first use."""

    path: Path
    space: int
    used: float
    ahead: bool

    @classmethod
    def of(cls, found: os.DirEntry[str]) -> _Entry | None:
        """Read it from the folder; a download takes what was set aside for it, however much there is of it."""
        try:
            stat = found.stat(follow_symlinks=False)
        except FileNotFoundError:  # moved into place, or removed, just now
            return None
        path = Path(found.path)
        if path.suffix in (PART, OUT):
            return cls(path, 0, stat.st_mtime, False)
        if path.suffix == LOCK:
            return cls(path, int(path.name.split(".")[1]), stat.st_mtime, False)
        ahead = stat.st_atime_ns == 0 and time.time() - stat.st_mtime < AHEAD_S
        return cls(path, stat.st_size, stat.st_mtime, ahead)


def _remove_oldest(entries: list[_Entry], missing: int, *, urgent: bool) -> bool:
    """Remove files that nobody uses until `missing` bytes are free; return False, and remove none, if that cannot be."""
    used = sorted((e for e in entries if not e.ahead and e.space), key=lambda e: (e.used, e.path))
    ahead = sorted((e for e in entries if e.ahead), key=lambda e: (-e.used, e.path))  # the last to be fetched is used last
    locks: list[tuple[_Entry, int]] = []
    try:
        for entry in [*used, *(ahead if urgent else ())]:
            if missing <= 0:
                break
            lock = _try_lock(entry.path)
            if lock is not None:
                locks.append((entry, lock))
                missing -= entry.space
        if missing <= 0:
            for entry, _ in locks:
                _give_up(entry.path) if entry.path.suffix == LOCK else entry.path.unlink(missing_ok=True)
        return missing <= 0
    finally:
        for _, lock in locks:
            _unlock(lock)


def _give_up(lock: Path) -> None:
    """Remove what there is of a download whose lock we have."""
    for suffix in (OUT, PART):
        lock.with_suffix(suffix).unlink(missing_ok=True)
    lock.unlink(missing_ok=True)


def _unlock(lock: int) -> None:
    """Undo an exclusive lock, also for children forked meanwhile, and close its file."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _try_lock(path: Path) -> int | None:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(lock, path):
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False
