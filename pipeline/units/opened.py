"""What stages opened in this process: a model is loaded once, whatever asks for it how often.

Writes lock files into a private folder of the machine's temporary one.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from gristmill.errors import GristmillError, UnitFailed
from gristmill.private import fresh_folder, private_folder
from pipeline.planning.asking import line_of
from pipeline.planning.code import is_ours
from pipeline.planning.fingerprint import aside, describe, digest, parameters
from pipeline.stage import AnyMap, Stage, Transform

LIMIT = 32  # stages; the oldest makes room

_OPENED: dict[str, object] = {}

Opened = TypeVar("Opened", bound=Callable[..., object])


def opened(stage: Stage, how: Callable[[], Opened], extra: str = "", method: str = "open") -> Opened:
    """Return what `how` opens, remembered by the stage's parameters, its files' content and `extra`.

    Raises:
        UnitFailed: as `function_of`.
    """
    key = digest(type(stage).__module__, describe(stage), aside(stage), extra)
    return _remembered(key, lambda: function_of(stage, how, method))


def opened_alone(stage: AnyMap) -> Transform:
    """Return a stage of a pool opened, while no other process of this machine opens it.

    The first reads the weights from afar or from the disk, the others find them in its cache. It is remembered by its parameters
    alone: hashing the weights in each process would take as long as reading them, and such a process serves one build.
    """
    key = digest("alone", type(stage).__module__, type(stage).__name__, parameters(stage))
    return _remembered(key, lambda: _locked(key, lambda: function_of(stage, stage.open, "open")))


def function_of(stage: Stage, how: Callable[[], Opened], method: str) -> Opened:
    """Return the function that a method of a stage gives; `how` calls it.

    Raises:
        UnitFailed: it gives no function, it lacks a file, or it ends the process, which a new one would do again; it is of
            a stage that is not this project's, and raises.
    """
    try:
        found = how()
    except (FileNotFoundError, PermissionError) as error:
        raise UnitFailed(f"{method}() of {_place(stage)} raised {type(error).__name__}: {error}") from error
    except (GristmillError, OSError, MemoryError):
        raise
    except Exception as error:
        if is_ours(type(stage)):
            raise
        kind, line = type(error).__name__, line_of(type(stage), error)
        raise UnitFailed(f"{method}() of stage {type(stage).__name__} raised {kind}: {error} ({line}); mend it") from error
    except SystemExit as error:
        raise UnitFailed(f"{method}() of {_place(stage)} ended the process (SystemExit: {error.code}); raise an error") from error
    if not callable(found):
        forgotten = "; is its `return` missing?" if found is None else ""
        raise UnitFailed(
            f"{method}() of {_place(stage)} returned {found!r:.60}, expected the function that does the work{forgotten}"
        )
    return found


def _place(stage: Stage) -> str:
    """Return the class of a stage, with the file that it is in."""
    cls = type(stage)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"stage {cls.__name__}" + (f" ({file})" if file else "")


def _remembered(key: str, how: Callable[[], Opened]) -> Opened:
    if key not in _OPENED:
        while len(_OPENED) >= LIMIT:
            del _OPENED[next(iter(_OPENED))]
        _OPENED[key] = how()
    return cast(Opened, _OPENED[key])


def _locked(key: str, how: Callable[[], Opened]) -> Opened:
    wanted = Path(tempfile.gettempdir(), f"gristmill-{os.geteuid()}")  # on the machine's own disk: some homes know no locks
    folder = private_folder(wanted) or fresh_folder("locks", str(wanted))
    with (folder / f"{key}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return how()
