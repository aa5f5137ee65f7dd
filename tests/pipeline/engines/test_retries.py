"""How long is waited between attempts: longer each time, up to a bound."""

from __future__ import annotations

import itertools

from pipeline.engines.retries import UNITS, backoff


def test_the_waits_double_up_to_the_longest() -> None:
    waits = [backoff(times) for times in range(1, 2000)]
    assert waits[0] == UNITS.first_s and waits[-1] == UNITS.longest_s
    assert all(after == min(2 * before, UNITS.longest_s) for before, after in itertools.pairwise(waits))
