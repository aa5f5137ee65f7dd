"""Attention that stays inside windows: many windows in one row of tokens, each causal and blind to the others.

Reads queries, keys and values of a packed row and where its windows begin; nothing of the size [row, row] ever exists.
transformers calls it through its attention interface, under the name `NAME`. It gives a layer's attention as transformers' own
`eager` does: grouped key/value heads, scaling, a sliding window, a soft cap on logits (Gemma 2), attention sinks (gpt-oss).
Whatever else a model asks of its attention is refused: `Unpackable`.

On CUDA in half precision it is `torch.nn.attention.varlen` (FlashAttention, Dao 2023, arXiv 2307.08691) with one split, so that
a window's bits depend on nothing beside it; everywhere else torch's attention one window at a time, each in its own shape.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gristmill.errors import InputError

NAME = "gristmill_windows"

# Keywords of the interface that change nothing here: where tokens are (rotary angles are in queries and keys already), what
# `eager` is told for other purposes, and those handled by name below.
HARMLESS = frozenset(
    {"position_ids", "position_embeddings", "use_cache", "cache_position", "past_key_values", "output_attentions"}
    | {"output_hidden_states", "output_router_logits", "return_dict", "logits_to_keep", "num_items_in_batch"}
)


class Unpackable(InputError):
    """A model whose attention cannot be kept inside windows of a packed row."""


class Heads(NamedTuple):
    """Queries, keys and values of one window; [heads, tokens, d], those of keys and values fewer heads where they are shared."""

    query: Tensor
    key: Tensor
    value: Tensor


def windows_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    window_cuts: Tensor | None = None,
    window_longest: int = 0,
    **others: Any,  # noqa: ANN401 - transformers'
) -> tuple[Tensor, None]:
    """Attend inside windows; the signature is that of transformers' attention functions.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, d]; `key` and `value` [1, key/value heads, tokens, d or another width].
        attention_mask: None: masks other than causal ones inside windows cannot be given.
        window_cuts: int32 [windows + 1], begins of windows and the end, from the call of the model.
        window_longest: the longest window's tokens, or more.

    Returns:
        [1, tokens, heads, width of value] and None.

    Raises:
        Unpackable: anything that would change the result and that this does not do.
    """
    if window_cuts is None:
        raise Unpackable("the model does not hand on to its attention what it is called with: window_cuts is missing")
    asked = sorted(name for name, given in others.items() if name not in HARMLESS and given is not None and given is not False)
    if asked:
        raise Unpackable(f"the model's attention asks for {', '.join(asked)}")
    if attention_mask is not None:
        raise Unpackable("the model gives its attention a mask of its own")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if not causal:
        raise Unpackable("the model's attention is not causal: it sees the tokens it should predict")
    if dropout:
        raise Unpackable("the model is in training mode: it drops out at random")
    if query.shape[0] != 1 or query.shape[2] != key.shape[2]:
        raise Unpackable(f"queries {list(query.shape)} and keys {list(key.shape)}: must be one row of equal length")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]
    out = attend(*rows, window_cuts, window_longest, scale, sliding_window or 0, softcap or 0.0, s_aux)
    return out[None], None


def attention_of_windows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cuts: Tensor,
    longest: int,
    scale: float,
    sliding: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """Return the attention of each window, [tokens, heads, width of value].

    Args:
        query: [tokens, heads, d]; `key` and `value` [tokens, key/value heads, d or another width].
        cuts: int32 [windows + 1].
        longest: the longest window's tokens, or more.
        scale: factor of query · key.
        sliding: how many tokens a token sees, itself included; 0: all before it.
        softcap: bound of the tanh on scaled query · key; 0: none.
        sinks: [heads], a logit that takes part in each softmax and has no value.
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and _flash(query, value, softcap, sinks):
        from torch.nn.attention.varlen import varlen_attn

        left = sliding - 1 if 0 < sliding < longest else -1
        rows = (each.contiguous() for each in (query, key, value))
        out: Tensor = varlen_attn(
            *rows, cuts, cuts, longest, longest, scale=scale, window_size=(left, 0), enable_gqa=True, num_splits=1
        )
        return out
    out = query.new_zeros((*query.shape[:2], value.shape[-1]))
    for begin, end in pairwise(cuts.tolist()):
        if begin < end:
            span = slice(begin, end)
            heads = Heads(*(each[span].transpose(0, 1) for each in (query, key, value)))
            out[span] = _one(heads, scale, sliding, softcap, sinks).transpose(0, 1)
    return out


def _shape_of_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cuts: Tensor,
    longest: int,
    scale: float,
    sliding: int,
    softcap: float,
    sinks: Tensor | None,
) -> Tensor:
    """Return a tensor of the result's shape, for torch.compile."""
    return query.new_empty((*query.shape[:2], value.shape[-1]))


def _flash(query: Tensor, value: Tensor, softcap: float, sinks: Tensor | None) -> bool:
    width = query.shape[-1]
    return not softcap and sinks is None and width == value.shape[-1] and width % 8 == 0 and width <= 256


def _one(heads: Heads, scale: float, sliding: int, softcap: float, sinks: Tensor | None) -> Tensor:
    """Return the attention of one window, [heads, tokens, width]; a sliding window goes block of queries by block."""
    tokens = heads.query.shape[1]
    block = min(sliding or tokens, tokens)
    parts = []
    for begin in range(0, tokens, block):
        end = min(begin + block, tokens)
        seen = max(0, begin - block + 1)
        some = Heads(heads.query[:, begin:end], heads.key[:, seen:end], heads.value[:, seen:end])
        mask = None if begin == 0 else _band(begin, end, seen, block, heads.query.device)
        if softcap or sinks is not None:
            parts.append(_explicit(some, scale, softcap, sinks, mask))
        else:
            parts.append(_plain(some, scale, mask))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _band(begin: int, end: int, seen: int, sliding: int, device: torch.device) -> Tensor:
    """Return which keys `seen` to `end` each query `begin` to `end` sees: itself and the `sliding` - 1 before it."""
    back = torch.arange(begin, end, device=device)[:, None] - torch.arange(seen, end, device=device)
    return (back >= 0) & (back < sliding)


def _plain(heads: Heads, scale: float, mask: Tensor | None) -> Tensor:
    out: Tensor = F.scaled_dot_product_attention(
        heads.query[None],
        heads.key[None],
        heads.value[None],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=heads.query.shape[0] != heads.key.shape[0],
    )
    return out[0]


def _explicit(heads: Heads, scale: float, softcap: float, sinks: Tensor | None, mask: Tensor | None) -> Tensor:
    """Return attention with what torch's own lacks; the softmax is in float32."""
    query = heads.query
    key, value = (each.repeat_interleave(query.shape[0] // each.shape[0], 0) for each in heads[1:])
    logits = query @ key.transpose(1, 2) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is None:
        mask = torch.ones(logits.shape[1:], dtype=torch.bool, device=logits.device).tril()
    logits = logits.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        logits = torch.cat([logits, sinks.to(logits.dtype)[:, None, None].expand(-1, logits.shape[1], 1)], -1)
    shares = logits.softmax(-1, dtype=torch.float32)[..., : key.shape[1]]
    out: Tensor = shares.to(query.dtype) @ value
    return out


# One operation, which torch.compile does not look into.
attend = torch.library.custom_op("gristmill::attend", attention_of_windows, mutates_args=())
attend.register_fake(_shape_of_attention)
