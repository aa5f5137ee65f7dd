"""What the manifest says of the columns of a model or policy: it is said once, of all shards of a build.

Reads what the parts of a build carry; returns the one object, or says in what they differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import InputError

MOST = 200  # characters of an object in a message


def agreed(name: str, parts: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what is said of the columns of `name`: column → object.

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
