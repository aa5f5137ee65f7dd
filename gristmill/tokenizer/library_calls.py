"""Calls of the Hugging Face `tokenizers` library, whose errors become ours in this one place.

The library raises plain `Exception` for a file or a pattern that it refuses, and a panic in its Rust code derives from
`BaseException` alone. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gristmill.errors import ENDINGS


@contextmanager
def library_call(error_of: Callable[[BaseException], Exception]) -> Iterator[None]:
    """Raise what the library raises as another error; what ends the process or a generator passes as it is.

    Args:
        error_of: returns the error to raise, given the library's.
    """
    try:
        yield
    except ENDINGS:
        raise
    except BaseException as error:  # the library raises nothing narrower, and panics
        raise error_of(error) from error
