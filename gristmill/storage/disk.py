"""What lies in the folders of a local disk, for `matching`.

Reads listings and the status of files, through links; opens nothing, so a FIFO is no trap.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from gristmill.errors import InputError
from gristmill.storage.matching import FILE, FOLDER, Entry

_OTHERS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class Disk:
    """The folders of this machine."""

    def entries(self, folder: str) -> Mapping[str, Entry]:
        """See `Folders.entries`. Raises InputError for a folder that may not be listed."""
        try:
            names = os.listdir(folder or ".")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise InputError(f"{folder!r}: the folder cannot be listed ({error.strerror}); allow it, or give another") from error
        found = {name: self.entry(folder + name) for name in names}
        return {name: entry for name, entry in found.items() if entry is not None}

    def entry(self, path: str) -> Entry | None:
        """See `Folders.entry`."""
        try:
            status = os.stat(path or ".")
        except (FileNotFoundError, NotADirectoryError):
            return Entry(path, f"a link to {os.readlink(path)!r}, which does not exist") if os.path.islink(path) else None
        except OSError as error:  # a link that leads to itself, no right to go through a folder, a name that is too long
            return Entry(path, f"not to be opened ({error.strerror})")
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            return Entry(path, FOLDER, real=f"{status.st_dev}-{status.st_ino}")
        if kind != stat.S_IFREG:
            return Entry(path, _OTHERS.get(kind, "no file"))
        return Entry(path, FILE, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")
