"""Sums over parts of a vocabulary that add up to one softmax: what the head's loops give, kernel or not, and the losses of them.

Reads and makes tensors on one device. Each part of the vocabulary gives a maximum, a sum of exponentials and a sum of those times
their logits (Milakov and Gimelshein 2018, arXiv 1805.02867).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Shares of the vocabulary in the kernel: with 1,024 rows, 128 programs. Not more for fewer rows: bits would depend on how many.
SPLITS = 16


@dataclass(frozen=True)
class Parts:
    """What parts of the vocabulary say of each row: float32 [rows, parts], but for `target`.

    Attributes:
        top: the largest logit z of the part.
        total: sum of exp(z - top).
        moment: sum of exp(z - top) * (z - top); None without entropy.
        target: float32 [rows], the target's logit; NaN where there is no target.
    """

    top: Tensor
    total: Tensor
    moment: Tensor | None
    target: Tensor


def combine(parts: Parts) -> tuple[Tensor, Tensor | None]:
    """Return losses and entropies from what the parts say; the sums over them are float64."""
    top = parts.top.amax(1, keepdim=True)
    below = (parts.top - top).double()
    factors = below.exp()
    total = (parts.total * factors).sum(1)
    log_total = total.log()
    nll = (top[:, 0].double() - parts.target + log_total).float()
    if parts.moment is None:
        return nll, None
    moment = ((parts.moment + parts.total * below) * factors).sum(1)
    return nll, torch.where(parts.target.isnan(), torch.nan, log_total - moment / total).float()
