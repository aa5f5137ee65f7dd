"""How a model's losses are got from transformers alone: padded batches of 32 documents, whole logits, cross entropy.

In the order in which documents arrive, or sorted by length. It computes losses only; ours computes entropies besides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from benchmarks._scoring_models import Documents

BATCH = 32


def in_batches(documents: Documents, *, by_length: bool) -> list[npt.NDArray[np.int64]]:
    """Return the numbers of the documents of each batch."""
    lengths = documents.lengths()
    order = np.argsort(lengths, kind="stable") if by_length else np.arange(len(lengths))
    return [order[first : first + BATCH] for first in range(0, len(order), BATCH)]


def waste(documents: Documents, *, by_length: bool) -> float:
    """Return how many positions are computed for a token."""
    lengths = documents.lengths()
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in in_batches(documents, by_length=by_length))
    return padded / int(lengths.sum())


def losses(model: Any, documents: Documents, *, by_length: bool) -> npt.NDArray[np.float32]:  # noqa: ANN401 - transformers'
    """Return the loss of each token, NaN for the first of each document."""
    device = model.lm_head.weight.device
    found = np.full(len(documents.ids), np.nan, np.float32)
    begins, lengths = documents.bounds[:-1], documents.lengths()
    with torch.inference_mode():
        for batch in in_batches(documents, by_length=by_length):
            longest = int(lengths[batch].max())
            places = np.arange(longest)
            inside = places < lengths[batch][:, None]
            ids = np.where(inside, documents.ids[np.minimum(begins[batch][:, None] + places, len(found) - 1)], 0).astype(np.int64)
            given, mask = torch.from_numpy(ids).to(device), torch.from_numpy(inside.astype(np.int64)).to(device)
            logits = model(input_ids=given, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            nll = F.cross_entropy(logits.flatten(0, 1), given[:, 1:].flatten(), reduction="none").view(len(batch), -1).cpu()
            del logits
            counted = inside[:, 1:]
            found[(begins[batch][:, None] + places[1:])[counted]] = nll.numpy()[counted]
    return found
