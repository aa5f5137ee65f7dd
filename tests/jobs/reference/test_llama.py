"""Llamas by size: what the names mean, and that a seed means the same weights."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from jobs.reference.llama import SIZES, Shape, Size, make_llama, shape_of

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48)


def test_the_names_are_those_that_a_recipe_allows() -> None:
    assert tuple(SIZES) == get_args(Size)


@pytest.mark.parametrize(
    ("size", "vocabulary", "body", "all_of_it"),
    [
        ("15m", 8_192, 12_589_440, 15_735_168),
        ("30m", 8_192, 26_551_808, 30_746_112),
        ("135m", 49_152, 106_203_456, 134_515_008),  # SmolLM2-135M says of itself: 134,515,008
        ("1b", 32_000, 968_976_384, 1_100_048_384),  # TinyLlama: 1,100,048,384
    ],
)
def test_sizes_have_as_many_parameters_as_they_say(size: Size, vocabulary: int, body: int, all_of_it: int) -> None:
    with torch.device("meta"):
        model = make_llama(size, vocabulary, length=64, seed=0)
    outside = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    assert sum(weight.numel() for weight in model.parameters()) == all_of_it == SIZES[size].parameters(vocabulary)
    assert sum(weight.numel() for weight in model.parameters() if id(weight) not in outside) == body == SIZES[size].body
    assert (len(outside) == 1) == SIZES[size].tied


def test_a_seed_means_the_same_weights_whatever_was_drawn_before() -> None:
    first = make_llama(TINY, 65, length=16, seed=3)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    again = make_llama(TINY, 65, length=16, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    other = make_llama(TINY, 65, length=16, seed=4)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_what_writes_into_the_residual_stream_begins_smaller() -> None:
    shape = Shape(hidden=128, layers=8, heads=2, kv_heads=1, intermediate=128, tied=False)
    model = make_llama(shape, 500, length=16, seed=0, bos_id=2, eos_id=1)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            assert (weight == 1).all(), name
        else:
            assert weight.std().item() == pytest.approx(0.005 if "o_proj" in name or "down_proj" in name else 0.02, rel=0.05), (
                name
            )
    assert (model.config.bos_token_id, model.config.eos_token_id, model.config.max_position_embeddings) == (2, 1, 16)
    assert model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("change", "found"),
    [({"layers": 0}, "layers is 0"), ({"heads": 5}, "hidden is 32"), ({"kv_heads": 3}, "kv_heads is 3")],
    ids=["layers", "heads", "kv_heads"],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, int], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        Shape(**{**vars(TINY), **change})


def test_an_unknown_size_names_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'7b'; there are 15m, 30m, 135m, 1b"):
        shape_of("7b")
