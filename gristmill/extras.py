"""Packages that an extra of this project installs, asked for where they are first needed. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Say of a package that is not installed which extra installs it; to be put around imports.

    Raises:
        ModuleNotFoundError: with the name of the package, as the import raises it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "gristmill":
            raise
        raise ModuleNotFoundError(f"{error}; install it with: pip install 'gristmill[{extra}]'", name=error.name) from error
