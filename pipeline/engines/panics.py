"""What worker processes say on standard error, passed on without the floods of libraries that panic.

Rust prints each panic with its backtrace before Python can catch it; a document that panics is on record in the quarantine, and a
crawl has thousands of them. The first panic at each place of a library's code is passed on, in two lines; all else as it is, but
for empty lines, what steers a terminal (libraries say words of pages), and secrets in URLs.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from typing import IO, Literal

from gristmill.secrets import masked
from pipeline.visible import visible

PLACES = 100  # at which panics are passed on by one process

_PANIC = re.compile(rb"^thread '.*' (?:\(\d+\) )?panicked at (?P<place>\S+?):?$")
_BACKTRACE = re.compile(rb"^(?:stack backtrace:|note: .*(?:backtrace|BACKTRACE).*|\s+\d+: .*|\s+at .*)$")


class Panics:
    """The places in code whose panics were told; one for all children of a process."""

    def __init__(self) -> None:
        self._told: set[bytes] = set()

    def without_repeats(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield those of `lines` that a person should see, each as soon as it is known."""
        expected: Literal["anything", "message", "backtrace"] = "anything"
        told = True
        for line in lines:
            text = line.rstrip(b"\r\n")
            panic = _PANIC.match(text)
            if not text:
                continue  # Rust prints one before each panic
            if panic is not None:
                told = panic["place"] in self._told or len(self._told) >= PLACES
                self._told.add(panic["place"])
                expected = "message"
            elif expected == "message":
                expected = "backtrace"
            elif expected == "backtrace" and _BACKTRACE.match(text):
                continue
            else:
                expected, told = "anything", False
            if not told:
                yield line


_PANICS = Panics()


def pass_on(stream: IO[bytes]) -> threading.Thread:
    """Copy a child's standard error to ours until it closes, in a thread that is returned."""

    def copy() -> None:
        with stream:
            for line in _PANICS.without_repeats(stream):
                os.write(2, visible(masked(line.decode(errors="backslashreplace"))).encode())

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread
