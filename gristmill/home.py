"""Where the reader keeps what it can make or fetch again: a folder of the user's. Reads the environment; writes nothing."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return `$GRISTMILL_CACHE`, else `gristmill` in the user's cache folder; None for a user without a home."""
    given = os.environ.get("GRISTMILL_CACHE")
    if given:
        return Path(given).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    if caches:
        return Path(caches) / "gristmill"
    try:
        return Path.home() / ".cache" / "gristmill"
    except RuntimeError:  # neither $HOME nor an entry of the user in the system's list
        return None
