"""How long work on a tokenizer tells how far it is: a function that is called now and then."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it is done, of how much (0 where nobody knows), and the unit."""


def silent(what: str, done: int, total: int, unit: str) -> None:
    """Report nothing."""


def under(name: str, progress: Progress) -> Progress:
    """Return a progress that puts a name before what is being done."""
    return lambda what, done, total, unit: progress(f"{name}: {what}", done, total, unit)
