"""Folders of one user alone, for what is executed or locked: nobody else can put anything there.

Makes folders; writes nothing else. Who may write where compiled code is read from can have it run by others, and a file of a
known name in a folder that all may write to, such as /tmp, can be a link to somewhere else (CWE-377, CWE-379).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

_LOG = logging.getLogger(__name__)


def private_folder(path: Path) -> Path | None:
    """Return the folder at `path`, made if it is missing; None unless it is this user's alone.

    That is: a folder and no link to one, owned by this user, mode 0700, where nobody else can rename it. One that is there with
    another mode may hold what others have put there, so its mode is not mended.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found, above = path.lstat(), path.parent.stat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and found.st_mode & 0o777 == 0o700
        # Whoever owns the folder above, or may write there, can put another in its place; not where it is sticky, as /tmp is.
        stays = above.st_uid in (0, os.geteuid()) and (not above.st_mode & stat.S_IWOTH or above.st_mode & stat.S_ISVTX)
        return path if own and stays and os.access(path, os.W_OK) else None
    except OSError:  # no home, one that cannot be written, a file where a folder is meant
        return None


@cache
def fresh_folder(purpose: str, instead_of: str) -> Path:
    """Return a new folder of this user alone, one a process and purpose, that goes when the process ends; say why."""
    made = Path(tempfile.mkdtemp(prefix="gristmill-"))
    atexit.register(_removed, made, os.getpid())
    _LOG.warning(
        "%s is not a folder that only this user may enter (a folder, no link; owned; mode 0700): %s are kept in %s for this run; "
        "delete it, or let it be made anew",
        instead_of,
        purpose,
        made,
    )
    return made


def _removed(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child has inherited this
        shutil.rmtree(folder, ignore_errors=True)
