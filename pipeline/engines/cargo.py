"""Code that travels: the files of stages that are neither this project's nor installed, from the driver to where units run.

`pack` reads the files; `Cargo.unload` writes them into a private folder of the machine, named by their hash, and lets Python find
them there before anything else. It must be unloaded before the stages are unpickled. Knows no engine.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gristmill.private import fresh_folder, private_folder
from pipeline.fitted import working
from pipeline.planning.code import Unit, files_of, hash_of, load_file, units_of
from pipeline.stage import Stage

_FILES = "files"  # the folder of single files, which is not on Python's path; beside `path`, which is
_PATH = "path"


@dataclass(frozen=True)
class Cargo:
    """Files by their paths in the folder that they are unloaded into, and the hash of all of them."""

    key: str
    files: Mapping[str, bytes]

    def unload(self) -> None:
        """Have the code on this machine, written once, and importable in this process."""
        folder = self._folder()
        place = str(folder / _PATH)
        if place not in sys.path:
            sys.path.insert(0, place)
            importlib.invalidate_caches()
        for name in self.files:
            if name.startswith(f"{_FILES}/"):
                load_file(folder / name)

    def _folder(self) -> Path:
        wanted = Path(tempfile.gettempdir(), f"gristmill-{os.geteuid()}")
        home = private_folder(wanted) or fresh_folder("stages", str(wanted))
        folder = home / f"code-{self.key}"
        if folder.is_dir():
            return folder
        made = Path(tempfile.mkdtemp(dir=home))
        for name, content in self.files.items():
            path = made / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (made / _PATH).mkdir(exist_ok=True)
        try:
            made.rename(folder)
        except OSError:  # another process of the machine was first: it is not empty
            shutil.rmtree(made)
        return folder


def travelling(stages: Iterable[Stage]) -> tuple[Unit, ...]:
    """Return the units of code of these stages that a machine cannot be expected to have."""
    return tuple(dict.fromkeys(unit for stage in stages for unit in units_of(type(working(stage))) if not unit.installed))


def pack(stages: Iterable[Stage]) -> Cargo | None:
    """Return the code of these stages that has to travel; None when there is none.

    Raises:
        InputError: a class has no file, or a unit of code is too large.
    """
    units = travelling(stages)
    if not units:
        return None
    files = {f"{_place(unit)}/{name}": path.read_bytes() for unit in units for name, path in files_of(unit).items()}
    key = hashlib.sha256("".join(f"{unit.name} {hash_of(unit)}\n" for unit in units).encode()).hexdigest()[:32]
    return Cargo(key, files)


def _place(unit: Unit) -> str:
    """Return the folder of a unit's files: a package's own, that which a module is in, or one for a single file."""
    if unit.loaded:
        return f"{_FILES}/{unit.name}"
    parts = unit.name.split(".")
    return "/".join([_PATH, *(parts if unit.path.is_dir() else parts[:-1])])
