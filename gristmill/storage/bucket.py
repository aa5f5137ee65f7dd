"""What the stores on object storage have in common: marks of running builds, and scratch folders on this machine's disk.

Writes objects in `live/` of the store, through `put_new`, and folders in the machine's temporary folder.
"""

from __future__ import annotations

import contextlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from gristmill.storage.scratch import held_folder, own_folder, sweep_folders


class BucketStore(ABC):
    """A prefix in a bucket: `root` is its URI, without a `/` at its end."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")

    @abstractmethod
    def put_new(self, name: str, data: bytes | Path) -> bool:
        """See `Store.put_new`."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """See `Store.size`."""

    @abstractmethod
    def sizes(self, folder: str) -> dict[str, int]:
        """See `Store.sizes`."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """See `Store.remove`."""

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return self.size(name) is not None

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """See `Store.alive`: an object in `live/`."""
        name = f"live/{uuid.uuid4().hex}"
        self.put_new(name, b"a build is running")
        try:
            yield
        finally:
            self.remove(name)

    def live(self) -> Sequence[str]:
        """See `Store.live`."""
        return [f"live/{name}" for name in self.list("live")]

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `Store.scratch`: in the temporary folder of this machine. What was killed here goes first."""
        with own_folder() as parent:
            sweep_folders(parent)
            with held_folder(parent) as folder:
                yield folder

    def sweep(self) -> None:
        """See `Store.sweep`: nothing is left in the bucket but unfinished uploads, which a lifecycle rule ends."""
        with own_folder() as parent:
            sweep_folders(parent)

    def uri(self, name: str) -> str:
        """See `Store.uri`."""
        return f"{self.root}/{name}"

    def list(self, folder: str) -> list[str]:
        """See `Store.list`."""
        return sorted(self.sizes(folder))
