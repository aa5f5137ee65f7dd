"""The head on the CPU beside a float64 transcription; what its bits depend on; what it refuses."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from gristmill.models.causal_lm.head import IGNORED, head_bytes, head_losses
from tests.gristmill.models.causal_lm.allocated import Allocated
from tests.random_examples import examples

Pair = tuple[Tensor, Tensor]


def direct(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Pair:
    """Return the formulas, written out in float64 with all logits."""
    z = hidden.double() @ weight.double().T
    if bias is not None:
        z = z + bias.double()
    z = z * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    p = torch.softmax(z, 1)
    log_p = torch.log_softmax(z, 1)
    nll = torch.stack([-log_p[row, target] if target >= 0 else torch.tensor(math.nan) for row, target in enumerate(targets)])
    entropy = -torch.where(p > 0, p * log_p, 0).sum(1)
    return nll.double(), torch.where(targets >= 0, entropy, math.nan).double()


def drawn(
    rows: int = 37, width: int = 24, vocabulary: int = 300, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states, weights and targets."""
    maker = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=maker)
    weight = torch.randn(vocabulary, width, generator=maker)
    return hidden.to(dtype), weight.to(dtype), torch.randint(vocabulary, (rows,), generator=maker)


def same(left: Any, right: Any) -> bool:
    """Return whether bits are equal, NaN included."""
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(left, right, strict=True))


def close(found: Any, wanted: Any, room: float) -> bool:
    """Return whether values are near and NaN stands in the same places."""
    return all(torch.allclose(a.double(), b, rtol=0, atol=room, equal_nan=True) for a, b in zip(found, wanted, strict=True))


@examples(50)
@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 40),
    vocabulary=st.integers(1, 300),
    chunk=st.one_of(st.none(), st.integers(1, 400)),
    seed=st.integers(0, 1000),
    with_bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.0625, 3.0]),
    softcap=st.sampled_from([None, 30.0, 2.0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_as_the_formulas_in_float64(
    rows: int,
    width: int,
    vocabulary: int,
    chunk: int | None,
    seed: int,
    with_bias: bool,
    scale: float,
    softcap: float | None,
    dtype: torch.dtype,
) -> None:
    hidden, weight, targets = drawn(rows, width, vocabulary, seed=seed, dtype=dtype)
    targets[seed % rows] = IGNORED
    bias = torch.linspace(-2, 2, vocabulary) if with_bias else None
    found = head_losses(hidden, weight, targets, bias=bias, scale=scale, softcap=softcap, chunk=chunk)
    assert found[0].dtype == found[1].dtype == torch.float32  # type: ignore[union-attr]
    assert close(found, direct(hidden, weight, targets, bias=bias, scale=scale, softcap=softcap), 3e-5)


def test_typical_error_at_the_size_of_a_model() -> None:
    hidden, weight, targets = drawn(64, 576, 20_000)
    weight *= 0.1
    found, wanted = head_losses(hidden, weight, targets), direct(hidden, weight, targets)
    for mine, true in zip(found, wanted, strict=True):
        assert (mine - true).abs().median() < 1e-6 and (mine - true).abs().max() < 1e-5  # type: ignore[operator]


def test_large_logits_neither_overflow_nor_lose_the_entropy() -> None:
    hidden, weight, targets = drawn(40, 16, 500)
    found = head_losses(hidden * 100, weight, targets, chunk=64)
    wanted = direct(hidden * 100, weight, targets)
    assert close(found[:1], wanted[:1], 1e-3), "of losses of a thousand nats"
    assert close(found[1:], wanted[1:], 1e-3) and bool((found[1] >= 0).all())  # type: ignore[operator]
    confident = head_losses(torch.eye(3) * 200, torch.eye(3), torch.arange(3))
    assert confident[0].tolist() == [0, 0, 0] and confident[1].tolist() == [0, 0, 0]  # type: ignore[union-attr]


def test_uniform_distribution() -> None:
    nll, entropy = head_losses(torch.zeros(5, 8), torch.zeros(1000, 8), torch.arange(5), chunk=7)
    assert torch.allclose(nll, torch.full((5,), math.log(1000))) and torch.equal(nll, entropy)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bits_of_a_row_are_its_own(rows: int, dtype: torch.dtype) -> None:
    hidden, weight, targets = drawn(700, 40, 3000, dtype=dtype)
    whole = head_losses(hidden, weight, targets, softcap=30.0, scale=0.7)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(rows))[:rows]
    some = head_losses(hidden[order], weight, targets[order], softcap=30.0, scale=0.7)
    assert same(some, (whole[0][order], whole[1][order]))  # type: ignore[index]


def test_bits_do_not_depend_on_threads() -> None:
    hidden, weight, targets = drawn(300, 64, 5000)
    threads = torch.get_num_threads()
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(head_losses(hidden, weight, targets))
    torch.set_num_threads(threads)
    assert same(found[0], found[1]) and same(found[0], found[2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_a_bad_row_is_nan_and_leaves_the_others_alone(bad: float) -> None:
    hidden, weight, targets = drawn()
    clean = head_losses(hidden, weight, targets)
    hidden[3, 5] = bad
    nll, entropy = head_losses(hidden, weight, targets)
    assert nll[3].isnan() and entropy[3].isnan()  # type: ignore[index]
    others = torch.arange(len(targets)) != 3
    assert same((nll[others], entropy[others]), (clean[0][others], clean[1][others]))  # type: ignore[index]


def test_rows_without_a_target() -> None:
    hidden, weight, targets = drawn()
    clean = head_losses(hidden, weight, targets)
    targets[::2] = IGNORED
    nll, entropy = head_losses(hidden, weight, targets)
    assert nll[::2].isnan().all() and entropy[::2].isnan().all()  # type: ignore[index]
    assert same((nll[1::2], entropy[1::2]), (clean[0][1::2], clean[1][1::2]))  # type: ignore[index]


def test_forbidden_tokens_take_no_part() -> None:
    hidden, weight, _ = drawn(20, 24, 300)
    bias = torch.zeros(300)
    bias[:200] = -math.inf
    targets = torch.arange(200, 220)
    found = head_losses(hidden, weight, targets, bias=bias, chunk=50)
    assert close(found, direct(hidden, weight[200:], targets - 200), 2e-5)
    assert head_losses(hidden[:1], weight, torch.tensor([7]), bias=bias)[0].item() == math.inf


def test_without_entropy_the_losses_are_the_same() -> None:
    hidden, weight, targets = drawn()
    nll, none = head_losses(hidden, weight, targets, entropy=False)
    assert none is None and same((nll,), head_losses(hidden, weight, targets)[:1])


def test_no_rows() -> None:
    nll, entropy = head_losses(torch.zeros(0, 4), torch.zeros(9, 4), torch.zeros(0, dtype=torch.int64))
    assert nll.shape == entropy.shape == (0,)  # type: ignore[union-attr]


def test_inputs_stay_as_they_are() -> None:
    given_, weight, targets = drawn(256)
    bias = torch.ones(300)
    copies = [each.clone() for each in (given_, weight, targets, bias)]
    head_losses(given_.requires_grad_(), weight.requires_grad_(), targets, bias=bias, softcap=5.0, scale=2.0)
    assert all(torch.equal(now, then) for now, then in zip((given_, weight, targets, bias), copies, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": torch.zeros(37, 23)}, r"hidden \[37, 23\], weight \[300, 24\], targets \[37\]: shapes must be"),
        ({"targets": torch.zeros(36, dtype=torch.int64)}, r"targets \[36\]: shapes must be"),
        ({"weight": torch.zeros(0, 24)}, "must not be empty"),
        ({"weight": torch.zeros(300, 24, dtype=torch.bfloat16)}, "both must have one floating dtype"),
        ({"targets": torch.zeros(37, dtype=torch.int32)}, "must be torch.int64"),
        ({"targets": torch.full((37,), 300)}, "target 300 of row 0 is not in the vocabulary: 0 to 299"),
        ({"targets": torch.full((37,), -1)}, "target -1 of row 0 is not in the vocabulary"),
        ({"bias": torch.zeros(299)}, r"the bias must be \[V\]"),
        ({"bias": torch.zeros(300, device="meta")}, "must be one device"),
        ({"softcap": 0.0}, "softcap is 0.0, must be above 0"),
        ({"chunk": 0}, "chunk is 0, must be 1 or more"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_what_does_not_go_together(change: dict[str, Any], words: str) -> None:
    hidden, weight, targets = drawn()
    with pytest.raises(ValueError, match=words):
        head_losses(**({"hidden": hidden, "weight": weight, "targets": targets} | change))


@pytest.mark.parametrize("entropy", [True, False], ids=["entropy", "losses"])
@pytest.mark.parametrize(
    ("dtype", "rows", "width", "vocabulary", "chunk"),
    [(torch.float32, 600, 32, 4100, None), (torch.bfloat16, 300, 256, 900, 300), (torch.float32, 500, 4, 1000, 25)],
    ids=["sums", "products", "parts"],
)
def test_memory_is_what_the_formula_says(
    dtype: torch.dtype, rows: int, width: int, vocabulary: int, chunk: int | None, entropy: bool
) -> None:
    inputs = drawn(rows, width, vocabulary, dtype=dtype)
    with Allocated() as allocated:
        head_losses(*inputs, entropy=entropy, chunk=chunk)
    most = head_bytes(rows, vocabulary, width, dtype=dtype, device="cpu", chunk=chunk, entropy=entropy)
    assert 0.5 * most < allocated.peak <= most


def test_memory_at_the_largest_vocabularies() -> None:
    largest = {"rows": 32_768, "vocabulary": 262_144, "width": 2048, "dtype": torch.bfloat16}
    assert head_bytes(**largest, device="cuda") <= 2**30 // 32, "where the logits would take 32 GiB"
    assert head_bytes(**largest, device="cuda", chunk=8192) <= 2**30
    assert head_bytes(**largest, device="cpu") <= 2**30
