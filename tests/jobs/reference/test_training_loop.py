"""The loop: steps against a direct transcription, what accumulation and clipping mean, and runs that go on to the bit."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gristmill import Batch, TokenDataset, TokenLoader
from jobs.reference import checkpoint
from jobs.reference.llama import Shape, make_llama
from jobs.reference.training_loop import Loss, Schedule, Training, losses_of, make_optimizer, repeatable, token_loss
from tests.gristmill.builds import EOS, documents, publish

VOCABULARY, LENGTH, STEPS = 40, 12, 6
SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=48)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    draw = random.Random(0)
    ids = [[*(draw.randrange(2, VOCABULARY) for _ in range(draw.randrange(60))), EOS] for _ in range(40)]
    output = tmp_path_factory.mktemp("build")
    publish([[documents(ids, vocab_size=VOCABULARY)]], output)
    return TokenDataset.open(output, sequence_length=LENGTH, seed=2)


def begin(dataset: TokenDataset, *, rows: int = 4, dropout: float = 0.0, **given: object) -> Training:
    model = make_llama(SHAPE, VOCABULARY, length=LENGTH, seed=1)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    torch.manual_seed(5)
    schedule = Schedule(steps=STEPS, peak=1e-2, warm_up=2)
    return Training(model, TokenLoader(dataset, rows, as_torch=True, prefetch=0), schedule, **given)


def uneven(model: Callable[..., object], batch: Batch) -> Loss:
    """The loss of the tokens with small ids only: each batch has another number of them."""
    chosen = (batch.labels < VOCABULARY // 3).float()
    return Loss((losses_of(model, batch) * chosen).sum(), chosen.sum())


def weights(training: Training) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in training.model.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, first, second))


# ---- schedule ----


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 1), st.floats(1e-6, 1))
def test_the_rate_rises_to_its_peak_and_falls_to_its_floor(steps: int, warm_up: int, floor: float, peak: float) -> None:
    warm_up = min(warm_up, steps)
    schedule = Schedule(steps=steps, peak=peak, warm_up=warm_up, floor=floor)
    rates = [schedule.rate(step) for step in range(steps)]
    assert rates[:warm_up] == pytest.approx([peak * (step + 1) / warm_up for step in range(warm_up)])
    assert all(a >= b for a, b in zip(rates[warm_up:], rates[warm_up + 1 :], strict=False))
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates)
    if steps > warm_up:
        assert rates[-1] == pytest.approx(floor * peak)


def test_half_of_the_way_down_is_the_middle() -> None:
    assert Schedule(steps=14, peak=2.0, warm_up=4, floor=0.5).rate(8) == pytest.approx(1.5)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"peak": 0.0}, {"peak": math.inf}, {"warm_up": 11}, {"floor": 1.5}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_schedule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        Schedule(**{"steps": 10, "peak": 1.0, **wrong})


# ---- steps ----


def test_steps_are_those_of_a_direct_transcription(dataset: TokenDataset) -> None:
    training = begin(dataset, clip=None)
    model = make_llama(SHAPE, VOCABULARY, length=LENGTH, seed=1).train()
    decaying = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim == 1]
    first, second = {}, {}
    for step in range(4):
        found = training.run_step()
        rows = [dataset[step * 4 + row] for row in range(4)]
        ids, labels = (torch.tensor([row[name].tolist() for row in rows]) for name in ("input_ids", "labels"))
        chances = model(input_ids=ids).logits.log_softmax(-1)
        loss = -sum(chances[row, at, labels[row, at]] for row in range(4) for at in range(LENGTH)) / (4 * LENGTH)
        model.zero_grad()
        loss.backward()
        rate = (5e-3, 1e-2)[step] if step < 2 else 1e-3 + 9e-3 * (1 + math.cos(math.pi * (step - 1) / 4)) / 2
        norm = math.sqrt(sum(float((weight.grad**2).sum()) for weight in model.parameters()))
        assert found == pytest.approx((loss.item(), norm, rate), rel=1e-4)
        with torch.no_grad():
            for weight in model.parameters():
                first[weight] = 0.9 * first.get(weight, 0) + 0.1 * weight.grad
                second[weight] = 0.95 * second.get(weight, 0) + 0.05 * weight.grad**2
                if any(weight is each for each in decaying):
                    weight *= 1 - rate * 0.1
                scale = (second[weight] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8
                weight -= rate * first[weight] / (1 - 0.9 ** (step + 1)) / scale
    assert plain and training.step == 4 and len(training.history) == 4
    for ours, theirs in zip(training.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)


def test_batches_that_are_put_together_are_one_batch_also_where_they_weigh_unequally(dataset: TokenDataset) -> None:
    whole, parts = begin(dataset, rows=8), begin(dataset, rows=2, accumulate=4)
    for _ in range(3):
        assert parts.run_step(uneven) == pytest.approx(whole.run_step(uneven), rel=1e-4)
    assert parts.loader.state_dict()["sample"] == whole.loader.state_dict()["sample"] == 24
    for ours, theirs in zip(weights(parts), weights(whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_gradient_above_the_limit_is_cut_to_it(dataset: TokenDataset) -> None:
    def change(clip: float | None) -> tuple[float, float]:
        training = begin(dataset, clip=clip, optimizer=lambda model: torch.optim.SGD(model.parameters()))
        before = weights(training)
        step = training.run_step()
        moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(weights(training), before, strict=True)))
        return moved / step.rate, step.norm

    moved, norm = change(None)
    assert moved == pytest.approx(norm, rel=1e-3)
    assert change(norm * 2)[0] == pytest.approx(norm, rel=1e-3)
    assert change(norm / 4) == pytest.approx((norm / 4, norm), rel=1e-3)


def test_norms_do_not_decay(dataset: TokenDataset) -> None:
    groups = make_optimizer(begin(dataset).model, weight_decay=0.3).param_groups
    assert [(group["weight_decay"], {weight.ndim for weight in group["params"]}) for group in groups] == [(0.3, {2}), (0.0, {1})]


def test_bfloat16_is_for_products_alone(dataset: TokenDataset) -> None:
    wide, narrow = begin(dataset), begin(dataset, dtype="bfloat16")
    a, b = wide.run_step(), narrow.run_step()
    assert a != b and b == pytest.approx(a, rel=0.05)
    assert {weight.dtype for weight in narrow.model.parameters()} == {torch.float32}


def test_a_step_in_which_nothing_has_weight_has_no_gradient(dataset: TokenDataset) -> None:
    step = begin(dataset).run_step(lambda model, batch: Loss(losses_of(model, batch).sum() * 0, torch.zeros(())))
    assert step[:2] == (0.0, 0.0)


def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(dataset: TokenDataset) -> None:
    training = begin(dataset)
    before = weights(training)
    with pytest.raises(FloatingPointError, match="step 0: the loss is nan"):
        training.run_step(lambda model, batch: Loss(losses_of(model, batch).sum() * math.nan, torch.ones(())))
    assert equal(weights(training), before) and training.step == 0


def test_measuring_changes_nothing(dataset: TokenDataset) -> None:
    training, other = begin(dataset, dropout=0.2), begin(dataset, dropout=0.2)
    batches = [training.loader.batch(first) for first in (0, 4)]
    loss = training.mean_loss(batches)
    assert loss == training.mean_loss(batches), "measured without dropout"
    with torch.no_grad():
        parts = [token_loss(training.model.eval(), batch) for batch in batches]
    training.model.train()
    assert loss == pytest.approx(sum(part.total.item() for part in parts) / sum(part.weight.item() for part in parts))
    torch.manual_seed(5)
    first = [training.run_step() for _ in range(2)]
    torch.manual_seed(5)
    assert first == [other.run_step() for _ in range(2)]


# ---- going on ----


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_goes_on_from_a_checkpoint_to_the_bit(dtype: str, dataset: TokenDataset, tmp_path: Path) -> None:
    given = {"dtype": dtype, "accumulate": 2, "dropout": 0.1}
    with repeatable():
        whole = begin(dataset, **given)
        for _ in range(3):
            whole.run_step()
        checkpoint.save(tmp_path, whole.step, whole.state_dict())
        for _ in range(3):
            whole.run_step()
        resumed = begin(dataset, **given)
        torch.manual_seed(77)
        found = checkpoint.newest(tmp_path)
        assert found is not None
        resumed.load_state_dict(found[1])
        assert resumed.step == 3
        for _ in range(3):
            resumed.run_step()
    assert resumed.history == whole.history
    assert equal(weights(resumed), weights(whole))
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_state_of_other_data_is_refused(dataset: TokenDataset, tmp_path: Path) -> None:
    publish([[documents([list(range(2, 39))], vocab_size=VOCABULARY)]], tmp_path)
    state = begin(dataset).state_dict()
    with pytest.raises(ValueError, match="a run with other data"):
        begin(TokenDataset.open(tmp_path, sequence_length=LENGTH, seed=2), rows=1).load_state_dict(state)


def test_the_newest_checkpoint_that_is_whole_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert checkpoint.newest(folder) is None
    paths = [checkpoint.save(folder, step, {"w": torch.arange(step % 99)}, keep=3) for step in (9, 10, 123_456_789)]
    found = checkpoint.newest(folder)
    assert found is not None and found[0] == paths[2] and torch.equal(found[1]["w"], torch.arange(123_456_789 % 99))


def test_damaged_and_unfinished_checkpoints_are_passed_over_and_old_ones_go(tmp_path: Path) -> None:
    paths = [checkpoint.save(tmp_path, step, {"step": step, "w": torch.full((50,), step)}, keep=3) for step in (1, 2, 3, 4)]
    assert sorted(tmp_path.iterdir()) == paths[1:]
    data = paths[3].read_bytes()
    paths[3].write_bytes(data[:-9])  # cut short
    (tmp_path / "step-00000007.writing").write_bytes(data[:100])
    found = checkpoint.newest(tmp_path)
    assert found is not None and found[0] == paths[2] and found[1]["step"] == 3
    paths[2].write_bytes(paths[2].read_bytes().replace(b"\x03", b"\x04"))  # as long as before
    found = checkpoint.newest(tmp_path)
    assert found is not None and found[1]["step"] == 2
    last = checkpoint.save(tmp_path, 5, {"step": 5}, keep=1)
    assert list(tmp_path.iterdir()) == [last]


def test_a_model_is_trained_where_nothing_is_compiled_and_from_any_module(dataset: TokenDataset) -> None:
    class Unigram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def loss(model: Unigram, batch: Batch) -> Loss:
        found = nn.functional.cross_entropy(model.bias.expand(batch.labels.numel(), -1), batch.labels.flatten(), reduction="sum")
        return Loss(found, torch.tensor(float(batch.labels.numel())))

    training = Training(Unigram(), TokenLoader(dataset, 8, as_torch=True), Schedule(steps=30, peak=0.1))
    losses = [training.run_step(loss).loss for _ in range(30)]
    training.loader.close()
    assert losses[0] == pytest.approx(math.log(VOCABULARY)) and losses[-1] < losses[0]
