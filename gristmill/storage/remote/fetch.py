"""The downloads of one process from one location: what somebody waits for at once, what was requested ahead in the background.

Reads: a `Remote`. Writes: the cache, through `download`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence

from gristmill.errors import FormatError
from gristmill.storage.cache import Cache, HeldFile, Shelf, needed
from gristmill.storage.file import File
from gristmill.storage.remote.download import Stopped, download
from gristmill.storage.remote.folder import Remote

SPACE_S = 60.0  # how long a file waits for others to let go of theirs
LOOK_S = 0.2  # between two looks whether they have
STALLED_S = 1.0  # the same, for what is fetched ahead
IDLE_S = 5.0  # between two looks whether the reader is gone
JOIN_S = 0.5  # given to the threads to end when it is


class Fetcher:
    """Keeps files of a location on the local disk while they are in use. A forked child begins anew, without threads."""

    def __init__(self, remote: Remote, cache: Cache) -> None:
        self._remote = remote
        self._cache = cache
        self._working: dict[int, _Work] = {}  # process → its threads and queue; setdefault is atomic
        weakref.finalize(self, _close, self._working)

    def hold(self, file: File) -> HeldFile:
        """See `Location.hold`."""
        self._cache.check(file)
        return self._work().hold(file)

    def request(self, files: Sequence[File]) -> None:
        """See `Location.request`."""
        for file in files:
            self._cache.check(file)
        self._work().request(files)

    def _work(self) -> _Work:
        process = os.getpid()
        found = self._working.get(process)
        return found or self._working.setdefault(process, _Work(self._remote, self._cache))


def _close(working: dict[int, _Work]) -> None:
    work = working.get(os.getpid())
    if work is not None:
        work.close()


class _Work:
    """The queue, the threads and the files held, of one process."""

    def __init__(self, remote: Remote, cache: Cache) -> None:
        self._remote = remote
        self._cache = cache
        self._shelf: Shelf | None = None
        self._changed = threading.Condition()
        # All of these under the condition's lock, files by their sha256.
        self._queue: deque[File] = deque()
        self._active: set[str] = set()
        self._ahead: dict[str, File] = {}
        self._damaged: dict[str, FormatError] = {}
        self._wanted: set[str] = set()  # by the last request
        self._held: weakref.WeakSet[HeldFile] = weakref.WeakSet()
        self._stalled = 0.0  # until when nothing is fetched ahead, for want of space
        self._threads: list[threading.Thread] = []
        self._closed = False

    # ---- what somebody waits for ----

    def hold(self, file: File) -> HeldFile:
        shelf = self._open()
        while True:
            with self._changed:
                while file.sha256 in self._active:
                    self._changed.wait()
                damaged = self._damaged.pop(file.sha256, None)
                if damaged is not None:
                    raise damaged
                self._ahead.pop(file.sha256, None)
                self._wanted.discard(file.sha256)
                self._stalled = 0.0  # something was let go of for this, as a rule
                self._queue = deque(each for each in self._queue if each.sha256 != file.sha256)
                held = shelf.hold(file)
                if held is not None:
                    self._held.add(held)
                    self._changed.notify_all()
                    return held
                self._active.add(file.sha256)
            try:
                self._bring(shelf, file)
            finally:
                self._finish(file)

    def _bring(self, shelf: Shelf, file: File) -> None:
        """Download a file that is needed now, waiting until there is space for it."""
        deadline = time.monotonic() + SPACE_S
        while not shelf.reserve(file, urgent=True):
            held = sum(each.size for each in self._held)
            hopeless = held + needed(file) > self._cache.limit_bytes  # who waits for himself waits forever
            if hopeless or time.monotonic() > deadline:
                raise shelf.full(file)
            time.sleep(LOOK_S)
        with shelf.claim(file) as mine:
            if mine:
                download(self._remote, shelf, file, lambda: False)

    # ---- what is fetched ahead ----

    def request(self, files: Sequence[File]) -> None:
        shelf = self._open()
        with self._changed:
            wanted = {file.sha256: file for file in files if file.sha256 not in self._damaged}
            self._wanted = set(wanted)
            self._queue = deque(wanted.values())
            self._stalled = 0.0
            for sha256 in self._ahead.keys() - wanted.keys():
                shelf.mark_ahead(self._ahead.pop(sha256), False)
            while len(self._threads) < min(self._cache.downloads, len(self._queue)):
                self._threads.append(threading.Thread(target=self._run, name="gristmill-download", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()

    def _run(self) -> None:
        while (file := self._next()) is not None:
            try:
                self._fetch_ahead(self._open(), file)
            except Stopped:
                pass
            except FormatError as error:
                self._damaged[file.sha256] = error
            except OSError:  # the network, the server or the disk: whoever holds the file tries again, and meets it there
                pass
            finally:
                self._finish(file)

    def _next(self) -> File | None:
        """Wait for a file to fetch; return None when there will be no more."""
        with self._changed:
            while not self._closed:
                wait = self._stalled - time.monotonic()
                if self._queue and wait <= 0:
                    file = self._queue.popleft()
                    if file.sha256 not in self._active:
                        self._active.add(file.sha256)
                        return file
                else:
                    self._changed.wait(min(wait, IDLE_S) if self._queue else IDLE_S)
        return None

    def _fetch_ahead(self, shelf: Shelf, file: File) -> None:
        if not shelf.mark_ahead(file, True):
            if not shelf.reserve(file, urgent=False):
                with self._changed:
                    if file.sha256 in self._wanted:
                        self._queue.appendleft(file)
                    self._stalled = time.monotonic() + STALLED_S
                return
            with shelf.claim(file) as mine:
                if mine:
                    download(self._remote, shelf, file, lambda: self._closed, ahead=True)
            if not mine:
                shelf.mark_ahead(file, True)
        with self._changed:
            self._ahead[file.sha256] = file

    # ---- both ----

    def _finish(self, file: File) -> None:
        with self._changed:
            self._active.discard(file.sha256)
            self._changed.notify_all()

    def _open(self) -> Shelf:
        if self._shelf is None:
            shelf = Shelf(self._cache)
            shelf.prepare()
            self._shelf = shelf
        return self._shelf

    def close(self) -> None:
        """Let the threads end; one that waits for the network does so later, with the process at the latest.

        Called by the garbage collector too, at any point of any thread: so it waits for no lock.
        """
        self._closed = True
        if self._changed.acquire(blocking=False):
            self._changed.notify_all()
            self._changed.release()
        for file in list(self._ahead.values()):
            self._open().mark_ahead(file, False)
        deadline = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
