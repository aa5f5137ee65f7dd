"""Columns of a table or keys of an object that go along with a document: which, under what names, as what types.

Reads the parameter `carry` of the sources `jsonl` and `parquet`; makes values of the types it names. The type of a column is a
parameter like any other, never guessed from the rows at hand: all shards of a build have one schema, whatever a file holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.schema import DOCUMENT, DROP, ERROR
from stages.source.rows import parse_date

TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "date32": pa.date32(),
    "binary": pa.binary(),
}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, tz=([^\]]+))?\]")
_LIST = re.compile(r"list<(.+)>")
_TEXTS = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


@dataclass(frozen=True, kw_only=True)
class Carried:
    """One column that goes along: `column` is its name in the file where that is another, `type` that of its values."""

    column: str | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        if self.type is not None:
            type_of(self.type)


Carry = tuple[str, ...] | dict[str, str | Carried]


def carried(carry: Carry) -> dict[str, Carried]:
    """Return what goes along, by the name that documents have it under.

    Raises:
        ValueError: a name that documents have already, one that is there twice, or a type that is none; begins with `carry`.
    """
    if isinstance(carry, Mapping):
        given = {name: Carried(type=each) if isinstance(each, str) else each for name, each in carry.items()}
    else:
        given = {name: Carried() for name in carry}
        if len(given) < len(carry):
            raise ValueError(f"carry names {next(name for name in carry if carry.count(name) > 1)!r} twice")
    for name in given:
        if name in (*DOCUMENT.names, DROP, ERROR):
            raise ValueError(
                f"carry: documents have {name!r} already; give it another name: carry: {{source_{name}: {{column: {name}}}}}"
            )
        if not name:
            raise ValueError("carry: '' names no column")
    return given


def type_of(name: str) -> pa.DataType:
    """Return the Arrow type of this name. Raises ValueError (which begins with `type`) for one that is not carried."""
    if name in TYPES:
        return TYPES[name]
    if (found := _TIMESTAMP.fullmatch(name)) is not None:
        return pa.timestamp(found[1], tz=found[2])
    if (found := _LIST.fullmatch(name)) is not None:
        return pa.list_(type_of(found[1]))
    raise ValueError(
        f"type {name!r} is not carried; allowed are {', '.join(TYPES)}, timestamp[s], timestamp[us, tz=UTC], list<…>"
    )


def name_of(kind: pa.DataType) -> str:
    """Return the name of the type that a column of a table is carried as; `string`, with JSON in it, for structs and the like."""
    if pa.types.is_dictionary(kind):
        return name_of(kind.value_type)
    if kind in _BYTES:
        return "binary"
    if pa.types.is_timestamp(kind):
        return str(kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = name_of(kind.value_type)
        return f"list<{inner}>" if inner != "string" or kind.value_type in _TEXTS else "string"
    return next((name for name, other in TYPES.items() if other == kind), "string")


# ---- values ----


def from_json(value: object, kind: pa.DataType) -> Any:  # noqa: ANN401 - a value of the type
    """Return a value of JSON as one of the type; what is not text is JSON in a column of texts.

    Raises:
        ValueError: it is none; the message says what it is instead.
    """
    if value is None:
        return None
    if kind == pa.string():
        return _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False))
    if pa.types.is_list(kind) and isinstance(value, list):
        return [from_json(item, kind.value_type) for item in value]
    if pa.types.is_boolean(kind) and isinstance(value, bool):
        return value
    if pa.types.is_integer(kind) and _is_whole(value):
        return _in_range(int(value), kind)  # type: ignore[call-overload]
    if pa.types.is_floating(kind) and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if (pa.types.is_timestamp(kind) or pa.types.is_date(kind)) and isinstance(value, str):
        return _time(value, kind)
    shown = json.dumps(value, ensure_ascii=True)
    raise ValueError(f"{shown if len(shown) <= 40 else shown[:40] + '…'} is no {name_of(kind)}")


def from_arrow(column: pa.Array, kind: pa.DataType) -> list[Any]:
    """Return the values of a column as scalars of the type; for those that are none of it a ValueError in their place."""
    if kind == pa.string() and column.type not in (*_TEXTS, *_BYTES):
        return [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in column.to_pylist()]
    if kind == pa.string():
        return [None if value is None else _tried(value.decode) for value in column.cast(pa.large_binary()).to_pylist()]
    try:
        return [value if value.is_valid else None for value in column.cast(kind)]
    except (pa.ArrowException, NotImplementedError):
        return [_tried(partial(value.cast, kind)) if value.is_valid else None for value in column]


def _tried(make: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it makes, or the error
    try:
        return make()
    except (pa.ArrowException, NotImplementedError, UnicodeDecodeError) as error:
        return ValueError(str(error).splitlines()[0][:120])


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half of a character at {error.start} is no text") from error
    return value


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _in_range(value: int, kind: pa.DataType) -> int:
    signed = pa.types.is_signed_integer(kind)
    least, most = (-(1 << kind.bit_width - 1), (1 << kind.bit_width - 1) - 1) if signed else (0, (1 << kind.bit_width) - 1)
    if not least <= value <= most:
        shown = str(value) if math.fabs(value) < 1e30 else "an integer of more than 30 digits"
        raise ValueError(f"{shown} is no {name_of(kind)}")
    return value


def _time(value: str, kind: pa.DataType) -> datetime | date:
    found = parse_date(value)
    if found is None:
        raise ValueError(f"{value[:40]!a} is no time of ISO 8601")
    return found.date() if pa.types.is_date(kind) else found if kind.tz else found.replace(tzinfo=None)
