"""How loops over buffers are compiled: numba, kept on disk, compiled anew when any of them changes.

Reads the sources of the compiled loops; the machine code lies under the user's cache folder (or NUMBA_CACHE_DIR). Numba itself
notices only a change of the file that a function is in, not of the functions that it calls, and would go on with old ones;
so the folder's name is a hash over all files with compiled loops: those that import this one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba
import numpy as np
from numba import njit

__all__ = ["Int", "compiled", "inlined", "inner", "njit", "outer"]

Function = TypeVar("Function", bound=Callable[..., object])
Int = int | np.int64

_MARK = f"from {__name__} import".encode()


def _cache() -> str:
    """Return a folder for this state of the sources that can be written."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted([Path(__file__), *(root / "stages").rglob("*.py")]):
        text = file.read_bytes()
        if _MARK in text or file == Path(__file__):
            digest.update(f"{file.relative_to(root)}\n{len(text)}\n".encode() + text)
    name = f"gristmill/{digest.hexdigest()[:16]}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        return str(home)
    except OSError:  # no home, or one that cannot be written
        return os.path.join(tempfile.gettempdir(), f"{name.replace('/', '-')}-{os.getuid()}")


numba.config.CACHE_DIR = numba.config.CACHE_DIR or _cache()


def compiled(function: Function) -> Function:
    """Compile for callers in Python and in compiled code."""
    return cast(Function, njit(cache=True, nogil=True)(function))


def outer(function: Function) -> Function:
    """Compile for callers in Python; makes no arrays, so that nothing is counted."""
    return cast(Function, njit(cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inner(function: Function) -> Function:
    """Compile for callers that are compiled, which takes a sixth less time; makes no arrays."""
    return cast(Function, njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inlined(function: Function) -> Function:
    """Compile as a part of each caller; makes no arrays."""
    return cast(Function, njit(inline="always", _nrt=False)(function))
