"""The content of the files that a stage names, as hashes: what of them is in its fingerprint.

Reads the files, each once in a process unless it changes; writes nothing.
"""

from __future__ import annotations

import functools
import hashlib
import os

from gristmill.errors import InputError
from gristmill.storage.store import open_read
from pipeline.stage import Stage


def contents(stage: Stage) -> dict[str, str]:
    """Return the sha256 of each file that a stage names, by its place among them."""
    return {str(number): _content(path) for number, path in enumerate(stage.files())}


def _content(path: str) -> str:
    try:
        status = os.stat(path) if "://" not in path else None
    except FileNotFoundError as error:
        raise InputError(f"{path!r} does not exist (looked in {os.getcwd()!r})") from error
    return _sha256(path, (status.st_size, status.st_mtime_ns) if status else None)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, stamp: tuple[int, int] | None) -> str:
    hasher = hashlib.sha256()
    with open_read(path) as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
