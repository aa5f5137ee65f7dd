"""Keep pyarrow from importing pandas in a process that has no other use for it: 0.4 s and 30 MB each, where it is installed.

Before it makes its first array of a list, pyarrow imports pandas to see whether the list is a Series. Reads and writes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

import pyarrow as pa

PANDAS = "pandas"


def pandas_later() -> None:
    """Let pyarrow look for pandas when something else, a stage for instance, imports it; at once where something has."""
    if PANDAS in sys.modules:
        return
    finder = _Later()
    sys.meta_path.insert(0, finder)
    pa.array([None])
    finder.hidden = False


class _Later(MetaPathFinder):
    """Hides pandas; later finds it as Python does, and tells pyarrow when it has been imported."""

    hidden = True

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of pandas; None for all else."""
        if name != PANDAS:
            return None
        if self.hidden:
            raise ModuleNotFoundError(name=name)
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            execute(module)
            again = pa.lib._pandas_api.pd  # pyarrow looks again when it is asked for it
            assert again is module

        spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec
