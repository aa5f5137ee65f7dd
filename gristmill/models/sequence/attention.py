"""Attention in both directions that stays inside documents: many documents in one row of tokens, each blind to the others.

Reads queries, keys and values of a packed row and where its documents begin; nothing of the size [row, row] ever exists.
transformers calls it through its attention interface, under the name `NAME`. It gives a layer's attention as transformers' own
`eager` does: grouped key/value heads, scaling, a sliding window on both sides. Whatever else a model asks of its attention is
refused: `Unpackable`.

On CUDA in half precision it is `torch.nn.attention.varlen` with one split, so that a document's bits depend on nothing beside it;
everywhere else torch's attention one document at a time, each in its own shape.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.models.causal_lm.attention import HARMLESS, Unpackable

NAME = "gristmill_documents"
ALSO_HARMLESS = HARMLESS | {"deterministic", "is_causal"}  # how FlashAttention goes backwards; given here by the module


def documents_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    document_cuts: Tensor | None = None,
    document_longest: int = 0,
    **others: Any,  # noqa: ANN401 - transformers'
) -> tuple[Tensor, None]:
    """Attend inside documents; the signature is that of transformers' attention functions.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, d]; `key` and `value` [1, key/value heads, tokens, d].
        attention_mask: None: no mask can be given.
        sliding_window: a token sees those fewer than this many places away, on both sides; None: all of its document.
        document_cuts: int32 [documents + 1], begins of documents and the end, from the call of the model.
        document_longest: the longest document's tokens, or more.

    Returns:
        [1, tokens, heads, d] and None.

    Raises:
        Unpackable: anything that would change the result and that this does not do.
    """
    if document_cuts is None:
        raise Unpackable("the model does not hand on to its attention what it is called with: document_cuts is missing")
    named = (name for name, given in others.items() if given is not None and given is not False)
    asked = sorted(name for name in named if name not in ALSO_HARMLESS)
    if asked:
        raise Unpackable(f"the model's attention asks for {', '.join(asked)}")
    if attention_mask is not None:
        raise Unpackable("the model gives its attention a mask of its own")
    if getattr(module, "is_causal", False):
        raise Unpackable("the model's attention is causal")
    if dropout:
        raise Unpackable("the model is in training mode: it drops out at random")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise Unpackable(f"queries {list(query.shape)} and keys {list(key.shape)}: must be one row of equal length")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    reach = 0 if sliding_window is None else sliding_window - 1
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] % 8 == 0:
        out = _varlen(query, key, value, document_cuts, document_longest, scale, reach)
    else:
        out = _each(query, key, value, document_cuts, scale, reach)
    return out[None], None


def _varlen(query: Tensor, key: Tensor, value: Tensor, cuts: Tensor, longest: int, scale: float, reach: int) -> Tensor:
    """Return the attention of all documents by one kernel, [tokens, heads, d]; `reach` 0 is no window."""
    from torch.nn.attention.varlen import varlen_attn

    rows = (each[0].transpose(0, 1).contiguous() for each in (query, key, value))
    sides = (reach, reach) if reach else (-1, -1)
    out: Tensor = varlen_attn(*rows, cuts, cuts, longest, longest, scale=scale, window_size=sides, enable_gqa=True, num_splits=1)
    return out


def _each(query: Tensor, key: Tensor, value: Tensor, cuts: Tensor, scale: float, reach: int) -> Tensor:
    """Return the same, one document at a time."""
    out = query.new_empty((query.shape[2], query.shape[1], value.shape[-1]))
    for begin, end in pairwise(cuts.tolist()):
        one, two, three = (each[:, :, begin:end] for each in (query, key, value))
        mask = None
        if 0 < reach < end - begin - 1:
            places = torch.arange(end - begin, device=query.device)
            mask = (places[:, None] - places).abs() <= reach
        shared = query.shape[1] != key.shape[1]
        found = F.scaled_dot_product_attention(one, two, three, attn_mask=mask, scale=scale, enable_gqa=shared)
        out[begin:end] = found[0].transpose(0, 1)
    return out
