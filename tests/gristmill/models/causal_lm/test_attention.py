"""Attention inside windows against its definition, written out in float64; what it cannot give it refuses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from gristmill.models.causal_lm.attention import HARMLESS, Unpackable, attend, windows_forward
from gristmill.models.causal_lm.body import call_packed, make_body
from tests.gristmill.models.causal_lm.allocated import Allocated
from tests.gristmill.models.causal_lm.random_models import CONFIGS, make

HEADS, SHARED, WIDTH = 4, 2, 8
CUTS = [0, 5, 6, 30, 30, 41]


def tensors(tokens: int, *, width: int = WIDTH, value_width: int = WIDTH, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((HEADS, width), (SHARED, width), (SHARED, value_width))
    return tuple(torch.randn(tokens, *shape, generator=draw) for shape in shapes)


def by_definition(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, sliding: int, softcap: float, sinks: Any
) -> torch.Tensor:
    """One query and one head at a time, in float64."""
    out = torch.zeros(*query.shape[:2], value.shape[-1], dtype=torch.float64)
    window = torch.bucketize(torch.arange(len(query)), torch.tensor(CUTS), right=True)
    for token in range(len(query)):
        for head in range(HEADS):
            group = head // (HEADS // SHARED)
            seen = [other for other in range(token + 1) if window[other] == window[token]]
            seen = [other for other in seen if not sliding or other > token - sliding]
            logits = key[seen, group].double() @ query[token, head].double() * scale
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            shares = logits.exp()
            total = shares.sum() + (sinks[head].double().exp() if sinks is not None else 0)
            out[token, head] = (shares / total) @ value[seen, group].double()
    return out


@pytest.mark.parametrize("sliding", [0, 1, 7, 24, 100])
@pytest.mark.parametrize("softcap", [0.0, 1.5], ids=["plain", "softcap"])
@pytest.mark.parametrize("sinks", [False, True], ids=["", "sinks"])
def test_attention_is_that_of_the_definition(sliding: int, softcap: float, sinks: bool) -> None:
    query, key, value = tensors(CUTS[-1], value_width=6 if sliding == 7 else WIDTH)
    sink = torch.randn(HEADS, generator=torch.Generator().manual_seed(5)) if sinks else None
    found = attend(query, key, value, torch.tensor(CUTS, dtype=torch.int32), 24, 0.4, sliding, softcap, sink)
    expected = by_definition(query, key, value, scale=0.4, sliding=sliding, softcap=softcap, sinks=sink)
    assert torch.allclose(found.double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("sliding", [0, 9])
def test_a_window_has_the_same_bits_wherever_it_lies(sliding: int, dtype: torch.dtype) -> None:
    for length in (1, 2, 17, 64, 130):
        mine = tensors(length, width=64, value_width=64, seed=length)
        alone = None
        for before in (0, 1, 3, 33):
            others = tensors(before, width=64, value_width=64, seed=1), tensors(40, width=64, value_width=64, seed=before)
            row = [torch.cat(parts).to(dtype) for parts in zip(others[0], mine, others[1], strict=True)]
            cuts = torch.tensor([0, before, before + length, before + length + 40], dtype=torch.int32)
            found = attend(*row, cuts, 130, 0.125, sliding, 0.0, None)[before : before + length]
            alone = found if alone is None else alone
            assert torch.equal(found, alone)


def test_nothing_of_the_size_of_a_full_mask_exists() -> None:
    tokens = 4096
    query, key, value = tensors(tokens)
    cuts = torch.arange(0, tokens + 1, 64, dtype=torch.int32)
    for sliding, softcap in ((0, 0.0), (16, 0.0), (0, 2.0)):
        with Allocated() as memory:
            attend._init_fn(query, key, value, cuts, 64, 1.0, sliding, softcap, None)
        assert memory.peak < tokens * tokens / 8, "a mask of booleans has eight times this"


def called(**changes: Any) -> Any:
    rows = [each.transpose(0, 1)[None] for each in tensors(CUTS[-1])]
    layer = torch.nn.Module()
    options = {"attention_mask": None, "scaling": 0.4, "window_cuts": torch.tensor(CUTS, dtype=torch.int32), "window_longest": 24}
    return windows_forward(layer, *rows, **(options | changes))


def test_the_interface_of_transformers() -> None:
    out, weights = called(position_ids=torch.zeros(1, 41), use_cache=False, dropout=0.0, output_attentions=None)
    expected = by_definition(*tensors(CUTS[-1]), scale=0.4, sliding=0, softcap=0.0, sinks=None)
    assert weights is None and torch.allclose(out[0].double(), expected, rtol=0, atol=2e-6)
    narrow = called(scaling=None, sliding_window=3, softcap=2.0, s_aux=torch.zeros(HEADS))[0]
    expected = by_definition(*tensors(CUTS[-1]), scale=8**-0.5, sliding=3, softcap=2.0, sinks=torch.zeros(HEADS))
    assert torch.allclose(narrow[0].double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position_bias": torch.zeros(1)}, "asks for position_bias"),
        ({"alibi": torch.zeros(1), "block_indices": [1]}, "asks for alibi, block_indices"),
        ({"attention_mask": torch.zeros(1, 1, 41, 41)}, "a mask of its own"),
        ({"is_causal": False}, "not causal"),
        ({"dropout": 0.1}, "training mode"),
        ({"window_cuts": None}, "window_cuts is missing"),
    ],
    ids=["bias", "unknown", "mask", "causal", "dropout", "cuts"],
)
def test_what_would_change_the_result_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Unpackable, match=message):
        called(**given)
    assert not HARMLESS & given.keys()


def test_encoders_and_caches_are_refused() -> None:
    layer = torch.nn.Module()
    layer.is_causal = False
    rows = [each.transpose(0, 1)[None] for each in tensors(8)]
    cuts = torch.tensor([0, 8], dtype=torch.int32)
    with pytest.raises(Unpackable, match="not causal"):
        windows_forward(layer, *rows, None, window_cuts=cuts, window_longest=8)
    with pytest.raises(Unpackable, match="must be one row of equal length"):
        windows_forward(torch.nn.Module(), rows[0][:, :, :1], *rows[1:], None, window_cuts=cuts, window_longest=8)


def test_attention_is_one_operation_to_torch_compile() -> None:
    model = make(CONFIGS["gemma-3"]()).model
    body = make_body(model, torch.device("cpu"), 24)
    assert not body.alone
    ids, positions = torch.arange(41) % 97, torch.cat([torch.arange(end - begin) for begin, end in pairwise(CUTS)])
    cuts = torch.tensor(CUTS, dtype=torch.int32)
    whole = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    assert torch.equal(call_packed(whole, ids, positions, cuts, 24), call_packed(model, ids, positions, cuts, 24))
    operation = (*tensors(41), cuts, 24, 0.4, 7, 0.0, None)
    torch.library.opcheck(attend, operation, test_utils=("test_schema", "test_faketensor"))
