"""The tokenizer that a build's ids were made with, for those who need to know the bytes of tokens.

Reads a `tokenizer.json` or a `gristmill-tokenizer.json`, or the folder that holds one: that of `encode`. Gives the table of its
tokens' bytes, and checks by sha256 that ids are of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gristmill.errors import InputError
from gristmill.storage.store import open_read
from gristmill.tokenizer.own_format import is_own, parse_own
from gristmill.tokenizer.token_bytes import TokenBytes, make_token_bytes, parse_token_bytes
from gristmill.tokenizer.tokenizer_file import OWN, STANDARD


@dataclass(frozen=True)
class BuildTokenizer:
    """A tokenizer's file: where it lies, its sha256 (hex), its text as that of a tokenizer.json, and the bytes of its tokens."""

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
    """Return the path of the file: the one named, or the one that the folder holds."""
    if tokenizer.endswith(".json"):
        return tokenizer
    standard, own = (f"{tokenizer.rstrip('/')}/{name}" for name in (STANDARD, OWN))
    return own if Path(own).is_file() and not Path(standard).is_file() else standard


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
        raise InputError(f"tokenizer {path!r} does not exist; name the folder that `encode` has, or its {STANDARD}") from error
    except NotADirectoryError as error:
        raise InputError(f"tokenizer {tokenizer!r} is neither a {STANDARD} nor a folder that holds one") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"tokenizer {path!r} is not text: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if is_own(data):
        return BuildTokenizer(path, sha256, _standard(text), make_token_bytes(parse_own(text, path).ordinary()))
    return BuildTokenizer(path, sha256, text, parse_token_bytes(text, path))


def _standard(text: str) -> str:
    """Return a tokenizer.json with the tokens of a gristmill-tokenizer.json, for their bytes; it does not encode."""
    data = json.loads(text)
    special = [{"id": i, "content": name, "special": True} for name, i in data["special_tokens"].items()]
    pieces = {piece: i for i, piece in enumerate(data["tokens"]) if piece is not None}
    return json.dumps(
        {"model": {"type": "BPE", "vocab": pieces}, "pre_tokenizer": {"type": "ByteLevel"}, "added_tokens": special}
    )
