"""Stages of the user's own: `module:Class`, or `path/to/file.py:Class`, in a config or on the command line.

Reads and imports what the name says, from the current directory or Python's path; gives the class once it is known to be a stage
that a config can make. Every mistake raises one UserError with what was found, what is allowed and what to do.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from gristmill.errors import UserError
from jobs.config.parameters import describe, parameters
from jobs.config.yaml_nodes import suggest
from pipeline.planning.code import is_installed, is_ours, load_file
from pipeline.stage import AskingMap, Exchange, Filter, Fit, FlatMap, Map, Sink, Source, Stage

KINDS: tuple[type[Stage], ...] = (Source, Map, FlatMap, AskingMap, Filter, Exchange, Fit, Sink)
DECORATOR = "@dataclass(frozen=True, kw_only=True)"


def is_own(name: str) -> bool:
    """Tell whether a name is of the user's own."""
    return ":" in name


def account(name: str) -> str:
    """Return the name under which a build keeps account of a stage: of the user's own that of the class."""
    return name.rpartition(":")[2]


def own_stage(name: str, known: Mapping[str, type[Stage]]) -> type[Stage]:
    """Return the class that a name such as `mypkg.filters:Digits` stands for.

    Args:
        name: with a colon.
        known: this project's stages, which have names of their own.

    Raises:
        UserError: the module or the class is not there, cannot be imported, or is no stage that a config can make.
    """
    where, _, wanted = name.rpartition(":")
    module = _file(where) if where.endswith(".py") else _module(where)
    found = vars(module).get(wanted)
    if found is None:
        there = [key for key, value in vars(module).items() if _is_kind(value) and value not in KINDS]
        has = f"it has {', '.join(there)}" if there else "it has no stage at all"
        raise UserError(f"{where!r} has no {wanted!r};{suggest(wanted, there)} {has}")
    problem = _problem(found, known)
    if problem is not None:
        raise UserError(f"{name!r} {problem}")
    assert isinstance(found, type) and issubclass(found, Stage)
    return found


def _file(where: str) -> ModuleType:
    path = Path(where).expanduser()
    if not path.is_file():
        beside = [str(each) for each in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise UserError(
            f"there is no file {where!r} (looked in {os.getcwd()!r});{suggest(where, beside)} give module:Class, or file.py:Class"
        )
    try:
        return load_file(path)
    except Exception as error:
        raise UserError(f"{where!r} cannot be imported: {_with_place(error)}; {_remedy(error)}") from error


def _module(where: str) -> ModuleType:
    top = where.partition(".")[0]
    if not all(part.isidentifier() for part in where.split(".")):
        raise UserError(
            f"{where!r} is no module; a stage of your own is module:Class, such as mypkg.filters:Digits, or file.py:Class"
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if where != missing and not where.startswith(f"{missing}."):
            raise UserError(f"module {where!r} cannot be imported: {_with_place(error)}; install what it needs") from error
        looked = f"looked in {os.getcwd()!r} and on Python's path"
        raise UserError(
            f"there is no module {missing!r} ({looked});{suggest(where, _modules(top))} give module:Class, or file.py:Class"
        ) from error
    except Exception as error:
        raise UserError(f"module {where!r} cannot be imported: {_with_place(error)}; {_remedy(error)}") from error


def _modules(top: str) -> list[str]:
    """Return what could have been meant: the modules of the package, or those of the current directory."""
    package = sys.modules.get(top)
    if package is not None and hasattr(package, "__path__"):
        return [each.name for each in pkgutil.walk_packages(package.__path__, f"{top}.", onerror=lambda name: None)]
    return [each.name for each in pkgutil.iter_modules([os.getcwd()])]


def _with_place(error: Exception) -> str:
    """Return an error of an import with the place that raised it: the innermost that nobody has installed."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_file() and not is_installed(Path(frame.filename))]
    last = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"


def _remedy(error: Exception) -> str:
    if isinstance(error, ImportError):
        return (
            "its folder is not on Python's path: install what it imports, put that into the current directory, or make a package"
        )
    return "mend it"


def _is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, KINDS)


def _problem(found: object, known: Mapping[str, type[Stage]]) -> str | None:
    """Say why something is no stage that a config can make; None when it is one."""
    kinds = ", ".join(kind.__name__ for kind in KINDS)
    if not isinstance(found, type) or not issubclass(found, Stage):
        what = "a class" if isinstance(found, type) else "a function" if callable(found) else f"the value {found!r:.60}"
        return f"is {what} that is no stage; a stage is a class that derives from one of {kinds} of pipeline.stage"
    if is_ours(found):
        ours = [key for key, cls in known.items() if cls is found]
        return (
            f"is a stage of this project; write {ours[0]!r}"
            if ours
            else "is a kind of stages; derive a class of your own from it"
        )
    if not issubclass(found, KINDS):
        return f"derives from no kind of stages; derive it from one of {kinds}"
    made = vars(found).get("__dataclass_params__")
    if made is None or not made.frozen or not all(field.kw_only for field in dataclasses.fields(found)):
        return f"is no frozen dataclass with keywords alone; write {DECORATOR} above it"
    kind = next(kind for kind in KINDS if issubclass(found, kind))
    missing = [name for name in _methods(kind) if getattr(found, name) is getattr(kind, name)]
    if missing:
        return f"has no {missing[0]}(), which each {kind.__name__} must have: see pipeline.stage"
    return _odd_parameter(found)


def _methods(kind: type[Stage]) -> list[str]:
    """Return the methods of a kind that its stages must have: those that only raise NotImplementedError."""
    return [
        name for name, method in inspect.getmembers(kind, inspect.isfunction) if "NotImplementedError" in method.__code__.co_names
    ]


def _odd_parameter(found: type[Stage]) -> str | None:
    try:
        hints = typing.get_type_hints(found)
    except NameError as error:
        return f"has a type hint that cannot be read: {error}"
    for name in parameters(found):
        try:
            describe(hints[name])
        except TypeError as error:
            allowed = "allowed are str, int, float, bool, None, tuples, dicts, Literal and dataclasses"
            return f"has the parameter {name!r}: {error}; {allowed}"
    return None
