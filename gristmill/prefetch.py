"""Values made ahead of time by a thread of this process. Reads and writes nothing itself.

Two queues of the interpreter's own carry everything, so a value costs the caller a microsecond or two: the thread takes a
free slot, makes the next value and puts it out; who takes a value gives its slot back.
"""

from __future__ import annotations

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
    """

    def __init__(self, make: Callable[[int], T], depth: int) -> None:
        self._ready: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()
        self._free: SimpleQueue[bool] = SimpleQueue()
        for _ in range(depth):
            self._free.put(True)
        self._thread = threading.Thread(
            target=_work, args=(make, self._ready, self._free), name="gristmill prefetch", daemon=True
        )
        self._thread.start()
        self._close = weakref.finalize(self, self._free.put, False)

    def __next__(self) -> T:
        """Return the next value; wait for it if need be."""
        value, error = self._ready.get()
        if error is not None:
            self._ready.put((None, error))  # whoever asks again is told again
            raise error
        self._free.put(True)
        return value  # type: ignore[return-value]  # there is a value where there is no error

    def close(self) -> None:
        """Let the thread end after the value that it is making, and wait for that."""
        self._close()
        self._thread.join()


def _work(make: Callable[[int], T], ready: SimpleQueue[tuple[T | None, Exception | None]], free: SimpleQueue[bool]) -> None:
    number = 0
    while free.get():
        try:
            value = make(number)
        except Exception as error:  # noqa: BLE001  raised again in the thread that asks for the value
            ready.put((None, error))
            return
        ready.put((value, None))
        number += 1
