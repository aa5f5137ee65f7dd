"""Arguments that users give, checked. Reads and writes nothing."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, SupportsIndex

if TYPE_CHECKING:
    import pyarrow as pa


def whole(name: str, value: SupportsIndex, least: int | None = None) -> int:
    """Return a whole number as a Python int, which JSON can hold; numpy's are taken too, bools and floats are not.

    Raises:
        ValueError: it is none, or below `least`; the message begins with `name`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{name} is {value!r}; it must be a whole number")
    number = operator.index(value)
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; it must be at least {least}")
    return number


def no_nulls(name: str, column: pa.Array | pa.ChunkedArray) -> None:
    """Raise ValueError where a column has nulls; the message begins with `name` and says which row is the first."""
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise ValueError(
            f"{name}[{row}] is null, one of {column.null_count} of {len(column)}; fill in what is null or leave it out"
        )


def one_of(name: str, value: object, allowed: tuple[str, ...], more: str = "") -> None:
    """Raise ValueError unless `value` is one of the allowed texts; `more` is what else the argument may be."""
    if not isinstance(value, str) or value not in allowed:
        listed = ", ".join(f'"{each}"' for each in allowed)
        raise ValueError(f"{name} is {value!r}; it can be {listed}{more}")
