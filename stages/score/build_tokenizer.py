"""The tokenizer that a build's ids were made with, as stages name it that need to know the bytes of tokens.

Reads a `tokenizer.json`, or the folder that holds one: that of `encode`. Gives the table of its tokens' bytes, and checks by
sha256 that ids are of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.store import open_read
from stages.score.token_bytes import TokenBytes, parse_token_bytes

NAME = "tokenizer.json"


@dataclass(frozen=True)
class BuildTokenizer:
    """A tokenizer's file: where it lies, its sha256 (hex), its text, and the bytes of its tokens."""

    path: str
    sha256: str
    text: str
    table: TokenBytes

    def check_made(self, ids: pa.Field, where: str) -> None:
        """Raise InputError unless this tokenizer made the ids of this field; `where` begins messages."""
        found = (ids.metadata or {}).get(b"tokenizer_sha256", b"").decode()
        if found != self.sha256:
            raise InputError(
                f"{where}: tokenizer {self.path!r} has sha256 {self.sha256}, the tokens were made by one with "
                f"{found or 'none given'}; name the tokenizer that `encode` has"
            )


def file_of(tokenizer: str) -> str:
    """Return the path of the file."""
    return tokenizer if tokenizer.endswith(".json") else f"{tokenizer.rstrip('/')}/{NAME}"


def read(tokenizer: str) -> BuildTokenizer:
    """Read a tokenizer.

    Raises:
        InputError: there is none, or its tokens do not say their bytes.
    """
    path = file_of(tokenizer)
    try:
        with open_read(path) as file:
            data = file.read()
    except FileNotFoundError as error:
        raise InputError(f"tokenizer {path!r} does not exist; name the folder that `encode` has, or its {NAME}") from error
    except NotADirectoryError as error:
        raise InputError(f"tokenizer {tokenizer!r} is neither a {NAME} nor a folder that holds one") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"tokenizer {path!r} is not text: {error}") from error
    return BuildTokenizer(path, hashlib.sha256(data).hexdigest(), text, parse_token_bytes(text, path))
