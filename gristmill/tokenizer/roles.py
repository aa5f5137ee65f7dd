"""Which special tokens begin and end a document and fill rows up, as the `tokenizer_config.json` beside a tokenizer's file says.

Reads that file; writes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from gristmill.errors import InputError
from gristmill.json_values import Json, shown

CONFIG = "tokenizer_config.json"
ROLES = ("bos_token", "eos_token", "pad_token")
"""What a `tokenizer_config.json` names."""


def read_roles(file: Path) -> dict[str, str]:
    """Return which special tokens a `tokenizer_config.json` names, by `ROLES`; nothing where there is no such file.

    Raises:
        InputError: it is no JSON object, or a role is neither text, nor an object with text as its `content`, nor null.
    """
    if not file.is_file():
        return {}
    try:
        config: Json = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(file)!r} cannot be read as a {CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{str(file)!r} is {shown(config)}; a {CONFIG} is an object")
    names: dict[str, str] = {}
    for role in ROLES:
        match config.get(role):
            case None:
                pass
            case str(name) | {"content": str(name)}:
                names[role] = name
            case other:
                raise InputError(
                    f"{str(file)!r}: key {role} is {shown(other)}; it must be text, an object with text as 'content', or null"
                )
    return names
