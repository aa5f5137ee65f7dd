"""How the trainer's loops are compiled: for callers in Python, or for one another only, which takes a sixth less time.

No reference counts: the loops make no arrays. Numba sees that a cached loop is outdated by the age of the file that it is in, not
of the files that it calls: after a change in one of them, remove `__pycache__`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])
Int = int | np.int64


def outer(function: Function) -> Function:
    """Compile for callers in Python."""
    return cast(Function, njit(cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inner(function: Function) -> Function:
    """Compile for callers that are compiled."""
    return cast(Function, njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inlined(function: Function) -> Function:
    """Compile as a part of each caller."""
    return cast(Function, njit(inline="always", _nrt=False)(function))
