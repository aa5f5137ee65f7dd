"""What `json.loads` returns: its type, and a value in words for messages. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""Any decoded JSON."""

JsonObject: TypeAlias = dict[str, Json]
"""A decoded object."""

Plain: TypeAlias = "Mapping[str, Plain] | Sequence[Plain] | str | int | float | bool | None"
"""What `json.dumps` takes and nobody changes: as `Json`, but tuples and read-only mappings are lists and objects, too."""


def shown(value: object, most: int = 40) -> str:
    """Return a decoded value in words, for the "found" of a message: `null`, `the number 3`, `a list of 2`, `the text 'a'`.

    Args:
        value: what `json.loads` returned.
        most: characters of a text that are shown.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text {value if len(value) <= most else value[:most] + '…'!r}"
    if isinstance(value, Mapping):
        keys = [repr(key) for key in value]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return f"an object with {', '.join(keys[:3])}{more}" if keys else "an empty object"
    assert isinstance(value, Sequence), f"{type(value).__name__} is no JSON"
    return f"a list of {len(value)}"
