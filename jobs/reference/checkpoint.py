"""Checkpoints of a training: files that are whole or not there, the newest found again, old ones removed.

Reads and writes `step-<step>-<sha256>.pt` in a folder, by torch.save. A file appears under its name when all of it is on the
disk, and its name holds the hash of its bytes: what a crash or a full disk left behind is never loaded.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.reference.fsync import sync

_NAME = re.compile(r"step-(\d{8,})-([0-9a-f]{32})\.pt")
_TEMPORARY = ".writing"


def save(folder: Path, step: int, state: Mapping[str, Any], *, keep: int = 2) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`; return its path.

    Args:
        folder: is made where it is missing.
        step: steps done; a checkpoint of the same step is replaced.
        state: plain values and tensors, what `torch.load(weights_only=True)` takes.
        keep: how many to leave, at least 1.
    """
    assert keep >= 1, "the one just written would go"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"step-{step:08d}{_TEMPORARY}"
    with temporary.open("wb+") as out:
        torch.save(dict(state), out)
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256").hexdigest()
    path = folder / f"step-{step:08d}-{digest[:32]}.pt"
    os.rename(temporary, path)
    sync(folder)
    _prune(folder, path, keep)
    return path


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint whose bytes are what its name says, and its state on the CPU; None where there is none."""
    for path, digest in reversed(list(_found(folder))):
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest()[:32] != digest:
                continue
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return path, state
    return None


def _found(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, hash in its name) from the oldest step to the newest."""
    matches = [match for path in folder.glob("step-*.pt") if (match := _NAME.fullmatch(path.name))]
    for match in sorted(matches, key=lambda match: (int(match[1]), match[0])):
        yield folder / match[0], match[2]


def _prune(folder: Path, written: Path, keep: int) -> None:
    """Remove all but the newest, among them the one just written, and what was never finished."""
    others = [path for path, _ in _found(folder) if path != written]
    for path in [*others[: len(others) + 1 - keep], *folder.glob(f"step-*{_TEMPORARY}")]:
        path.unlink(missing_ok=True)
