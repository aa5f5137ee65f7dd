"""One file of a build, as its manifest names it. Reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One file of a build: its name in the build's folder, its size and sha256; `zst`: the size of its copy NAME.zst, if any."""

    name: str
    bytes: int
    sha256: str
    zst: int | None = None
