"""How long to wait before a unit, or a table at a pool, is tried again: the one policy of all engines."""

from __future__ import annotations

FIRST_S = 0.5
LONGEST_S = 30.0


def backoff(times: int) -> float:
    """Return the seconds to wait before an attempt after so many that failed.

    >>> [backoff(times) for times in (1, 2, 3, 10)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(LONGEST_S, FIRST_S * 2.0 ** (times - 1))
