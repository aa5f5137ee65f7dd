"""How many random examples a test tries: in `make test` a third of those it names, all with `HYPOTHESIS_PROFILE=thorough`.

No example has a deadline: a loop is compiled in the first.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from hypothesis import HealthCheck, settings

FEW = 10  # a test that names so many or fewer always tries them
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def of(most: int, *, thorough: bool = THOROUGH) -> int:
    """Return how many of `most` examples are tried.

    >>> of(90, thorough=True), of(90, thorough=False), of(12, thorough=False), of(6, thorough=False)
    (90, 30, 10, 6)
    """
    return most if thorough else max(most // 3, min(most, FEW))


def examples(most: int, suppress_health_check: Collection[HealthCheck] = ()) -> settings:
    """Return the settings of a test by `given` that names `most` examples."""
    return settings(max_examples=of(most), deadline=None, suppress_health_check=suppress_health_check)
