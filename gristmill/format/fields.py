"""Values out of decoded JSON, checked: an error says where, what was found and what is allowed.

Reads objects that `json.loads` returned; writes nothing.
"""

from __future__ import annotations

import re
from typing import Any

from gristmill.errors import FormatError
from gristmill.json_values import shown

FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a plain name in the same folder
SHA256 = re.compile(r"[0-9a-f]{64}")

KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}
"""What JSON has, in words."""


def get(content: object, key: str, kind: type, where: str) -> Any:  # noqa: ANN401  the type is `kind`
    """Return `content[key]`, a `kind`; numbers are not negative. Raises FormatError that begins with `where`."""
    if not isinstance(content, dict):
        raise FormatError(f"{where}: expected an object, found {shown(content)}")
    value = content.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if key not in content else shown(value)
        raise FormatError(f"{where}: {key!r} must be {KINDS[kind]}, found {found}")
    if isinstance(value, int) and value < 0:
        raise FormatError(f"{where}: {key!r} is {value}, must not be negative")
    return value


def absent(content: object, key: str) -> bool:
    """Tell whether the object has no such key, or null there."""
    return isinstance(content, dict) and content.get(key) is None


def number(content: object, key: str, where: str) -> int | None:
    """Return a number, or None where there is none. Raises FormatError."""
    return None if absent(content, key) else int(get(content, key, int, where))


def matching(content: object, key: str, pattern: re.Pattern[str], where: str) -> str:
    """Return a text that matches the pattern as a whole. Raises FormatError."""
    value = get(content, key, str, where)
    if not pattern.fullmatch(value):
        raise FormatError(f"{where}: {key!r} is {value!r}, must match {pattern.pattern}")
    return str(value)


def required(content: object, key: str, where: str) -> None:
    """Raise FormatError unless the key is there: builds from before there was such a key do not have it."""
    if not isinstance(content, dict) or key not in content:
        raise FormatError(f"{where}: has no {key!r}; it was made by an earlier gristmill: delete it and run the build again")
