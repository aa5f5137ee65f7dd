"""Values made ahead of time by a thread of this process. Reads and writes nothing itself.

Two queues of the interpreter's own carry everything, so a value costs the caller a microsecond or two: the thread takes a
free slot, makes the next value and puts it out; who takes a value gives its slot back.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetched(Iterator[T], Generic[T]):
    """Iterate over `make(0)`, `make(1)`, … with up to `depth` values made ahead.

    Args:
        make: called in a thread of its own, one call at a time; raising StopIteration ends the values, and what else it raises is
            raised where the value would have come.
        depth: values made ahead, at least 1.

    Attributes:
        process: id of the process that has the thread; in a forked child there are no more values than were ready.
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        self.process = os.getpid()
        self._ready: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._free.put(None)
        stopped = threading.Event()
        arguments = (make, self._ready, self._free, stopped)
        thread = threading.Thread(target=_work, args=arguments, name="gristmill prefetch", daemon=True)
        thread.start()
        # Also when the process ends: a thread that reads while the interpreter goes away takes it down.
        self._close = weakref.finalize(self, _stop, self._free, stopped, thread)

    def __next__(self) -> T:
        """Return the next value; wait for it if need be."""
        value, error = self._ready.get()
        if error is not None:
            self._ready.put((None, error))  # whoever asks again gets it again
            raise error
        self._free.put(None)
        return value  # type: ignore[return-value]  # there is a value where there is no error

    def close(self) -> None:
        """Let the thread end after the value that it is making, and wait for that."""
        self._close()


def _stop(free: SimpleQueue[None], stopped: threading.Event, thread: threading.Thread) -> None:
    stopped.set()
    free.put(None)
    if thread is not threading.current_thread():  # who may be the last that refers to the values
        thread.join()


def _work(
    make: Callable[[int], T],
    ready: SimpleQueue[tuple[T | None, Exception | None]],
    free: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
    number = 0
    while True:
        free.get()
        if stopped.is_set():
            return
        try:
            value = make(number)
        except Exception as error:  # noqa: BLE001  raised again in the thread that asks for the value
            ready.put((None, error))
            return
        ready.put((value, None))
        number += 1
