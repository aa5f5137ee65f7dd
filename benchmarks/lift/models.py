"""The models of the experiment, by size: those of `jobs.reference.llama`, and two small enough for a CPU; and their logits.

Reads and writes nothing. Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from jobs.reference.llama import SIZES, Shape, make_llama

SHAPES: Mapping[str, Shape] = {
    "tiny": Shape(hidden=64, layers=1, heads=2, kv_heads=2, intermediate=128),
    "1m": Shape(hidden=128, layers=3, heads=4, kv_heads=4, intermediate=384),
    **{str(name): shape for name, shape in SIZES.items()},
}


def make_model(size: str, vocab_size: int, *, length: int, seed: int) -> nn.Module:
    """Return a decoder of transformers with random weights, in float32 on the CPU."""
    made: nn.Module = make_llama(SHAPES[size], vocab_size, length=length, seed=seed)
    return made


def logits_of(model: Callable[..., Any], ids: Tensor) -> Tensor:
    """Return the logits of the token after each of (rows, length) int64 ids."""
    found: Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def best_device() -> torch.device:
    """Return CUDA where torch sees it, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    """Return what to call it in a table."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"a CPU, {torch.get_num_threads()} threads"
