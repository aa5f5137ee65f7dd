"""Lines for people about what goes on deep inside, such as a server that does not answer: on standard error, once a minute each.

Workers on other machines have no terminal: their lines go where `listen` says.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

EVERY_S = 60.0  # between two lines about one subject

_LOCK = threading.Lock()
_TOLD: dict[str, float] = {}


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


_say: Callable[[str], None] = _print


def listen(say: Callable[[str], None]) -> None:
    """Give the lines of this process to a function from now on."""
    global _say
    _say = say


def tell(subject: str, line: str, every: float = EVERY_S) -> None:
    """Say a line, unless one about the same subject was said within `every` seconds."""
    now = time.monotonic()
    with _LOCK:
        if now - _TOLD.get(subject, -every) < every:
            return
        _TOLD[subject] = now
    _say(line)
