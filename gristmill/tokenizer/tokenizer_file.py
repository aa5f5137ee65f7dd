"""The file of a tokenizer: which of a folder it is, and what is in it.

Reads one file, once; what it says is parsed by `files`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import InputError

OWN, STANDARD, RANKS = "gristmill-tokenizer.json", "tokenizer.json", "tokenizer.tiktoken"


@dataclass(frozen=True)
class TokenizerFile:
    """A file that was read. `where`: what messages call it. `data`: all its bytes."""

    where: str
    data: bytes

    @classmethod
    def read(cls, path: str | Path) -> TokenizerFile:
        """Read the file that `path` is or holds.

        Raises:
            InputError: see `find_file`.
        """
        return cls(str(path), find_file(path).read_bytes())

    @property
    def sha256(self) -> str:
        """Return the hash of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


def find_file(path: str | Path) -> Path:
    """Return the file of a tokenizer that `path` is, or holds.

    Raises:
        InputError: there is none, or two.
    """
    place = Path(path)
    found = [file for file in (place / STANDARD, place / OWN) if file.is_file()] if place.is_dir() else [place]
    if len(found) > 1:
        raise InputError(f"tokenizer {str(path)!r} holds {STANDARD} and {OWN}; give one of these files")
    file = found[0] if found else place / STANDARD
    if not file.is_file():
        raise InputError(
            f"tokenizer {str(path)!r}: {file} does not exist; give a folder with a {STANDARD} or that file, "
            "or make one: python -m jobs train-tokenizer jobs/recipes/tokenizer-superbpe-8k.yaml"
        )
    return file
