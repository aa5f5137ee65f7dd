"""The code of stages: which is this project's, named by versions, and which is somebody else's, named by the hash of its files.

Reads the files of packages and modules, and loads a single file as a module. A **unit of code** is a package at the top with all
files below it, or the one file of a module that is in no package. A stage's code is the unit that its class is in, with all that
this imports, anywhere in its files, and that pip has not installed: what pip has installed is `Stage.libraries()`.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gristmill.errors import InputError

OURS = ("gristmill", "pipeline", "stages", "jobs")  # packages whose stages have a version that is raised by hand
LARGEST = 64 << 20  # bytes of a unit of code: beyond that data lies in it, which belongs into files that a stage names
_SKIPPED = ("__pycache__",)
_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))

_LOADED: dict[str, Path] = {}  # modules that are single files outside of Python's path, by their names


@dataclass(frozen=True)
class Unit:
    """A unit of code: the name by which it is imported, and its folder or its one file."""

    name: str
    path: Path

    @property
    def loaded(self) -> bool:
        """Tell whether it is a single file that `load_file` has loaded."""
        return self.name in _LOADED

    @property
    def installed(self) -> bool:
        """Tell whether `is_installed` holds of its path."""
        return is_installed(self.path)


def is_installed(path: Path) -> bool:
    """Tell whether pip has put a file or folder where it is, or it came with Python."""
    path = path.resolve()
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts) or any(
        path.is_relative_to(folder) for folder in _INSTALLED
    )


def is_ours(cls: type) -> bool:
    """Tell whether a class is of this project."""
    return cls.__module__.partition(".")[0] in OURS


def identity(cls: type) -> str:
    """Return the name of a class in fingerprints: of this project's its own, of all others `module:Class`.

    So a class of this project can move to another module; that no two stages or parameters of it share a name is tested.
    """
    return cls.__qualname__ if is_ours(cls) else f"{cls.__module__}:{cls.__qualname__}"


def units_of(cls: type) -> tuple[Unit, ...]:
    """Return the units of code of a class, of those that it derives from, and of all that these import.

    This project's and Python's own are left out, and what the installed ones import.

    Raises:
        InputError: a class has no file, or a unit is too large.
    """
    modules = (each.__module__ for each in cls.__mro__ if not is_ours(each))
    found = dict.fromkeys(unit_of(module) for module in modules if module.partition(".")[0] not in sys.stdlib_module_names)
    todo = list(found)
    while todo:
        for unit in _imported(todo.pop()):
            if unit not in found:
                found[unit] = None
                todo.append(unit)
    return tuple(found)


@functools.lru_cache(maxsize=64)
def _imported(unit: Unit) -> tuple[Unit, ...]:
    """Return the units that the files of one import and that nobody has installed."""
    if unit.installed:
        return ()
    found = dict[Unit, None]()
    for path in files_of(unit).values():
        for name in _names_imported(path) if path.suffix == ".py" else ():
            other = _find(name)
            if other is not None and other != unit and not other.installed:
                found[other] = None
    return tuple(found)


def _names_imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, but this project's, Python's and relative ones."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError):  # a template, or for another Python: nothing here can import it
        return
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.partition(".")[0] not in (*OURS, *sys.stdlib_module_names):
                yield name


def unit_of(module: str) -> Unit:
    """Return the unit of code that a module is in.

    Raises:
        InputError: it has no file, as a class that was typed in.
    """
    found = _find(module)
    if found is None:
        raise InputError(f"module {module!r} has no file, so its code has no hash; put the stage into a file or a package")
    return found


def _find(module: str) -> Unit | None:
    if module in _LOADED:
        return Unit(module, _LOADED[module])
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        try:
            file = _file_of(name)
        except (ImportError, ValueError):  # a part of it is no package; `__main__` has no spec
            return None
        if file is not None:  # a folder without __init__.py has none: others may have modules in it too
            return Unit(name, file.parent if file.name == "__init__.py" else file)
    return None


def _file_of(name: str) -> Path | None:
    module = sys.modules.get(name)
    if module is None:
        found = importlib.util.find_spec(name)
        return Path(found.origin) if found is not None and found.has_location and found.origin else None
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if file else None


def files_of(unit: Unit) -> dict[str, Path]:
    """Return the files of a unit by their paths in it, sorted: all but caches and names that begin with a dot.

    Raises:
        InputError: they are larger than `LARGEST` together.
    """
    if unit.path.is_file():
        return {unit.path.name: unit.path}
    found = {}
    for path in sorted(unit.path.rglob("*")):
        parts = path.relative_to(unit.path).parts
        if not any(part in _SKIPPED or part.startswith(".") for part in parts) and path.is_file():
            found["/".join(parts)] = path
    size = sum(path.stat().st_size for path in found.values())
    if size > LARGEST:
        raise InputError(
            f"package {unit.name!r} ({unit.path}) has {size:,} bytes of files, at most {LARGEST:,} are allowed; move data out of "
            "it and let the stage name it in files()"
        )
    return found


@functools.lru_cache(maxsize=64)
def hash_of(unit: Unit) -> str:
    """Return 32 hex digits over the files of a unit and their paths in it, as they are when a process first asks."""
    total = hashlib.sha256()
    for name, path in files_of(unit).items():
        total.update(f"{name}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:32]


def load_file(path: Path) -> ModuleType:
    """Return the module that a Python file makes, under a name of its own: `stem@hash`; the same content is one module.

    The folder of the file does not come onto Python's path.

    Raises:
        OSError: it cannot be read.
        Exception: whatever it raises.
    """
    name = f"{path.stem.replace('.', '_')}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while they are made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _LOADED[name] = path.absolute()
    return module


def loaded_files() -> tuple[str, ...]:
    """Return the paths of all files that `load_file` has loaded here, for a process that is to have them too."""
    return tuple(map(str, _LOADED.values()))
