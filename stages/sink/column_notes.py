"""What the manifest notes of the columns of a model or policy: once, for all shards of a build.

Reads the `about` of columns' fields, and what the parts of a build carry of it; returns the one object, or says in what they
differ. The files do not carry it: their bytes depend on the values, not on where a model lay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from gristmill.errors import InputError
from gristmill.json_values import Plain

ABOUT = b"about"  # in the metadata of a column's field: a JSON object
MOST = 200  # characters of an object in a message


def bare(field: pa.Field) -> pa.Field:
    """Return the field of a column as its file has it."""
    return field.with_metadata({key: value for key, value in (field.metadata or {}).items() if key != ABOUT} or None)


def notes_of(fields: Iterable[pa.Field]) -> dict[str, Plain]:
    """Return what the makers of columns note of them: column → object, without columns that have no notes."""
    notes = {field.name: json.loads(field.metadata[ABOUT]) for field in fields if ABOUT in (field.metadata or {})}
    for name, content in notes.items():
        assert isinstance(content, dict), f"about of column {name!r} is {type(content).__name__}, expected an object"
    return notes


def agreed(name: str, parts: Iterable[Mapping[str, Plain]]) -> Mapping[str, Plain]:
    """Return the notes of the columns of `name`: column → object.

    Raises:
        InputError: shards were made in different ways that the config does not decide, as by two versions of torch.
    """
    first, *rest = parts
    for other in rest:
        if other != first:
            raise InputError(
                f"columns of {name!r} were not made in one way in all shards ({_difference(first, other)}): some are of an "
                "earlier run or another machine; run with what those had, or give the model another name, to have all made again"
            )
    return first


def _difference(one: Any, other: Any) -> str:  # noqa: ANN401 - plain data
    """Return what differs first, with the keys that lead there."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                inner = _difference(one.get(key), other.get(key))
                return f"{key}{':' if isinstance(one.get(key), Mapping) else ''} {inner}"
    return " and ".join(json.dumps(each)[:MOST] for each in (one, other))
