"""How long to wait before a unit, or a table at a pool, is tried again: the one policy of all engines."""

from __future__ import annotations

from gristmill.storage.retry import Backoff

UNITS = Backoff(first_s=0.5, longest_s=30.0)  # a store has had its own attempts by then


def backoff(times: int) -> float:
    """Return the seconds to wait before an attempt after so many that failed.

    >>> [backoff(times) for times in (1, 2, 3, 10)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return UNITS.after(times)
