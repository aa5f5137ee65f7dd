"""How loops over buffers are compiled: numba, kept on disk, compiled anew when any of them changes.

Reads the sources of the compiled loops; the machine code lies under the user's cache folder, in one that nobody else may
enter (or in NUMBA_CACHE_DIR): numba runs what it finds there, from pickles too. Numba itself
notices only a change of the file that a function is in, not of the functions that it calls, and would go on with old ones;
so the folder's name is a hash over all files with compiled loops: those that import this one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import njit
from numba.extending import intrinsic

from gristmill.private import fresh_folder, private_folder

__all__ = ["Int", "Primitive", "compiled", "inlined", "inner", "njit", "outer", "primitive"]

Function = TypeVar("Function", bound=Callable[..., object])
Int = int | np.int64
Primitive = Callable[..., np.uint64]

_MARK = f"from {__name__} import".encode()


def _cache() -> str:
    """Return a folder for this state of the sources that can be written, by this user alone."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted([*(root / "gristmill").rglob("*.py"), *(root / "stages").rglob("*.py")]):
        text = file.read_bytes()
        if _MARK in text or file == Path(__file__):
            digest.update(f"{file.relative_to(root)}\n{len(text)}\n".encode() + text)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # stays ~ for a user without a home
    wanted = Path(caches, "gristmill", f"compiled-{digest.hexdigest()[:16]}")
    kept = private_folder(wanted) if wanted.is_absolute() else None
    if kept is None:
        kept = fresh_folder("compiled loops", str(wanted))
        os.environ["NUMBA_CACHE_DIR"] = str(kept)  # for the processes that this one starts
    return str(kept)


numba.config.CACHE_DIR = numba.config.CACHE_DIR or _cache()


def compiled(function: Function) -> Function:
    """Compile for callers in Python and in compiled code."""
    return cast(Function, njit(cache=True, nogil=True, no_cfunc_wrapper=True)(function))


def outer(function: Function) -> Function:
    """Compile for callers in Python; makes no arrays, so that nothing is counted."""
    return cast(Function, njit(cache=True, nogil=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inner(function: Function) -> Function:
    """Compile for callers that are compiled, which takes a sixth less time; makes no arrays."""
    return cast(Function, njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(function))


def inlined(function: Function) -> Function:
    """Compile as a part of each caller; makes no arrays."""
    return cast(Function, njit(inline="always", _nrt=False)(function))


def primitive(typing: Any) -> Primitive:  # noqa: ANN401 - numba has no types
    """Return a function for compiled callers alone, given how it is typed and generated."""
    return cast(Primitive, intrinsic(typing))
