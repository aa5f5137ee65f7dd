"""How much memory a piece of torch code takes: what its tensors hold at once, to the byte."""

from __future__ import annotations

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocated(TorchDispatchMode):
    """Within it, `peak` follows the most bytes of tensors made there that were alive at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: list[tuple[StorageWeakRef, int]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled within it: guarding it against torch's compiler would import that, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made; views and what it wrote into are not new."""
        given = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if torch.is_tensor(each)}
        made = func(*args, **(kwargs or {}))
        for storage in [each.untyped_storage() for each in tree_leaves(made) if torch.is_tensor(each)]:
            if storage.data_ptr() not in given:
                self._alive.append((StorageWeakRef(storage), storage.nbytes()))
        self._alive = [(ref, size) for ref, size in self._alive if not ref.expired()]
        self.peak = max(self.peak, sum(size for _, size in self._alive))
        return made
