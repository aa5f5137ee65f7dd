"""A batch of numpy arrays as one of torch tensors.

Reads: a `Batch`. Writes: nothing. Imports torch, so it is imported by those who want tensors, when they do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gristmill.reader.batch import IGNORED, Batch


def to_torch(batch: Batch, *, pin_memory: bool = False) -> Batch:
    """Return a numpy batch as torch tensors.

    `input_ids` and `labels` become int64, labels -100 where `loss_mask` is zero; all else keeps its type. Nothing is copied that
    has its type already, so the tensors share memory with the arrays.

    Args:
        batch: of numpy arrays.
        pin_memory: copy into page-locked memory, for copies to an accelerator that do not wait; nothing where there is none.
    """
    pin = pin_memory and torch.accelerator.is_available()

    def tensor(array: npt.NDArray[Any] | None) -> Tensor | None:
        if array is None:
            return None
        made = torch.from_numpy(array if array.flags.writeable else array.copy())
        return made.pin_memory() if pin else made

    labels = batch.labels
    if labels is not None and labels.dtype != np.int64:
        labels = labels.astype(np.int64)
        labels[batch.loss_mask == 0] = IGNORED
    return Batch(
        samples=tensor(batch.samples),
        sources=tensor(batch.sources),
        sequences=tensor(batch.sequences),
        input_ids=tensor(batch.input_ids.astype(np.int64, copy=False)),
        labels=tensor(labels),
        loss_mask=tensor(batch.loss_mask),
        columns={name: tensor(array) for name, array in batch.columns.items()},
        cu_seqlens=tensor(batch.cu_seqlens),
        position_ids=tensor(batch.position_ids),
        document_ids=tensor(batch.document_ids),
    )
