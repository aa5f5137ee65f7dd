"""The selective loss against plain numpy in float64, against torch's cross-entropy, and between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from gristmill.reader import selective_loss as module  # noqa: E402
from gristmill.reader.batch import Batch  # noqa: E402
from gristmill.reader.ranking import share_count  # noqa: E402
from gristmill.reader.selective_loss import select_tokens, selective_loss  # noqa: E402

cross_entropy = torch.nn.functional.cross_entropy


def batch_of(labels, *, mask=None, ref_loss=None):
    mask = torch.ones(labels.shape, dtype=torch.bool) if mask is None else mask
    return Batch(None, None, None, None, labels, mask, {} if ref_loss is None else {"ref_loss": ref_loss})


def random_case(seed, rows=3, length=5, vocabulary=7, *, weights=False, dtype=torch.float32):
    """Return (logits, batch): a fifth of the labels ignored, a fifth masked, a fifth without a reference."""
    rng = torch.Generator().manual_seed(seed)
    shape = (rows, length)
    labels = torch.randint(vocabulary, shape, generator=rng)
    labels[torch.rand(shape, generator=rng) < 0.2] = -100
    mask = torch.rand(shape, generator=rng) > 0.2
    ref_loss = 3 * torch.rand(shape, generator=rng).half()
    ref_loss[torch.rand(shape, generator=rng) < 0.2] = torch.nan
    logits = (3 * torch.randn(*shape, vocabulary, generator=rng)).to(dtype).requires_grad_()
    return logits, batch_of(labels, mask=mask * torch.rand(shape, generator=rng) if weights else mask, ref_loss=ref_loss)


def slow(logits, batch, keep, score, missing):
    """Return (weights, loss, gradient) token by token, in float64."""
    x = logits.detach().double().numpy()
    labels, mask = batch.labels.numpy(), batch.loss_mask.double().numpy()
    valid = [place for place in np.ndindex(labels.shape) if labels[place] != -100 and mask[place] > 0]
    logp = {place: x[place] - np.log(np.sum(np.exp(x[place]))) for place in valid}
    scores = {}
    for place in valid:
        loss = -logp[place][labels[place]]
        stored = float(batch.columns["ref_loss"][place])
        scores[place] = {
            "loss": loss,
            "excess": loss - stored,
            "entropy": -np.sum(np.exp(logp[place]) * logp[place]),
            "mask": 0.0,
        }[score]
    known = [place for place in valid if not np.isnan(scores[place])]
    best = sorted(known, key=lambda place: -scores[place])  # stable: the earlier of equals stays first
    kept = set(valid if score == "mask" else best[: share_count(keep, len(known))])
    if missing == "keep":
        kept |= set(valid) - set(known)
    weights, gradient, loss = np.zeros(labels.shape), np.zeros(x.shape), 0.0
    for place in kept:
        weights[place] = mask[place]
        gradient[place] = mask[place] * np.exp(logp[place])
        gradient[place][labels[place]] -= mask[place]
        loss -= mask[place] * logp[place][labels[place]]
    total = weights.sum() or 1.0
    return weights, loss / total, gradient / total


@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.1, 0.35, 0.6, 0.9, 1.0]),
    st.sampled_from(["excess", "loss", "entropy", "mask"]),
    st.sampled_from(["keep", "drop"]),
    st.booleans(),
    st.integers(1, 40),
)
def test_equals_a_transcription(seed, keep, score, missing, weights, chunk):
    logits, batch = random_case(seed, rows=1 + seed % 3, weights=weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module.CHUNK, "cpu", chunk)  # of one row to all rows
        loss = selective_loss(logits, batch, keep, score, missing=missing)
        loss.backward()
        kept = select_tokens(logits, batch, keep, score, missing=missing)
    expected, value, gradient = slow(logits, batch, keep, score, missing)
    np.testing.assert_allclose(kept.weights.double().numpy(), expected, rtol=1e-6)
    assert kept.weights.dtype == batch.loss_mask.dtype
    assert float(kept.mass) == pytest.approx(expected.sum(), rel=1e-6)
    assert loss.item() == pytest.approx(value, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)
    assert (logits.grad[kept.weights == 0] == 0).all()


@pytest.mark.parametrize("score", ["excess", "loss", "entropy", "mask"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keeping_all_is_cross_entropy(score, dtype):
    """Tokens without a reference among them."""
    logits, batch = random_case(1, 4, 16, 50, dtype=getattr(torch, dtype))
    labels = torch.where(batch.loss_mask, batch.labels, -100)
    loss = selective_loss(logits, batch, 1.0, score)
    plain = cross_entropy(logits.flatten(0, 1), labels.flatten())
    exact = 1e-6 if dtype == "float32" else 1e-14
    torch.testing.assert_close(loss, plain, rtol=exact, atol=0)
    ours, theirs = torch.autograd.grad(loss, logits)[0], torch.autograd.grad(plain, logits)[0]
    torch.testing.assert_close(ours, theirs, rtol=10 * exact, atol=exact / 100)


@pytest.mark.parametrize("score", ["excess", "entropy", "mask"])
def test_gradient_by_finite_differences(score):
    logits, batch = random_case(2, weights=True, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: 3 * selective_loss(x, batch, 0.5, score), logits)


def test_gradient_of_a_gradient_is_refused():
    """The log-sum-exp is saved as a number, so it would come out wrong."""
    logits, batch = random_case(3)
    grad = torch.autograd.grad(selective_loss(logits, batch), logits, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.autograd.grad(grad.sum(), logits)


def test_equal_scores_go_to_the_earlier_token():
    rows = torch.tensor([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])  # loss of label 1: high, low, middle
    logits = rows[torch.tensor([[2, 1, 2], [2, 0, 2]])].requires_grad_()
    kept = select_tokens(logits, batch_of(torch.ones(2, 3, dtype=torch.int64)), 0.5, "loss")
    assert kept.weights.tolist() == [[True, False, True], [False, True, False]]
    assert int(kept.mass) == 3


@pytest.mark.parametrize("score", ["excess", "loss", "entropy"])
def test_bfloat16_logits_are_ranked_in_float32(score):
    logits, batch = random_case(4, 4, 64, 300, dtype=torch.bfloat16)
    weights, value, gradient = slow(logits, batch, 0.6, score, "keep")
    loss = selective_loss(logits, batch, 0.6, score)
    loss.backward()
    kept = select_tokens(logits, batch, 0.6, score)
    np.testing.assert_array_equal(kept.weights.double().numpy(), weights)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value, rel=1e-5)
    assert logits.grad.dtype == torch.bfloat16
    np.testing.assert_allclose(logits.grad.float().numpy(), gradient, rtol=2**-8, atol=1e-9)  # rounded once


@pytest.mark.parametrize(
    ("case", "score"),
    [("no label", "excess"), ("no mask", "loss"), ("no label", "entropy"), ("no mask", "mask"), ("keep nothing", "excess")],
)
def test_nothing_to_train_on(case, score):
    """The loss is zero and still part of the graph."""
    logits, batch = random_case(5)
    if case == "no label":
        batch.labels.fill_(-100)
    elif case == "no mask":
        batch.loss_mask.zero_()
    loss = selective_loss(logits, batch, 0.0 if case == "keep nothing" else 0.6, score, missing="drop")
    assert loss.item() == 0
    loss.backward()
    assert (logits.grad == 0).all()


def test_a_nan_is_not_passed_over():
    """A NaN where there is a label makes the loss NaN; elsewhere it does nothing."""
    for score in ("excess", "loss", "entropy", "mask"):
        logits, batch = random_case(6)
        places = (batch.labels != -100) & batch.loss_mask
        logits.data[~places] = torch.nan
        assert torch.isfinite(selective_loss(logits, batch, 0.1, score))
        row, place = places.nonzero()[-1].tolist()
        logits.data[row, place, 0] = torch.nan
        loss = selective_loss(logits, batch, 0.2, score)
        assert torch.isnan(loss)
        loss.backward()
        assert torch.isnan(logits.grad[row, place]).all()


def test_impossible_tokens_have_no_entropy():
    """Logits of minus infinity, of a vocabulary with gaps, are a probability of zero."""
    logits, batch = random_case(7)
    wide = torch.cat([logits.detach(), torch.full((*logits.shape[:2], 2), -torch.inf)], 2).requires_grad_()
    loss = selective_loss(wide, batch, 0.4, "entropy")
    torch.testing.assert_close(loss, selective_loss(logits, batch, 0.4, "entropy"))
    loss.backward()
    assert (wide.grad[..., -2:] == 0).all()


def test_an_infinite_reference_is_the_last_choice():
    logits, batch = random_case(8)
    batch.columns["ref_loss"][:] = torch.inf
    batch.columns["ref_loss"][1, 2] = 5.0
    batch.labels[1, 2], batch.loss_mask[1, 2] = 0, True
    assert select_tokens(logits, batch, 0.1).weights.nonzero().tolist() == [[1, 2]]


def test_other_columns_and_a_stride():
    """The reference by another name, and logits that are a view: what a model gives whose last logit is cut off."""
    logits, batch = random_case(9)
    columns = {"gpt.loss": batch.columns["ref_loss"]}
    other = Batch(None, None, None, None, batch.labels, batch.loss_mask, columns)
    padded = torch.cat([logits, logits[:, :1]], 1)[:, :-1]
    torch.testing.assert_close(selective_loss(padded, other, reference="gpt.loss"), selective_loss(logits, batch))


def test_processes_take_one_share_of_the_whole_batch(tmp_path: Path):
    """Three real processes, and two of them as a group: the same tokens, loss and averaged gradient as one process."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for arguments in (
        {"keep": 0.6, "score": "excess"},
        {"keep": 0.3, "score": "loss", "weighted": True},
        {"keep": 0.25, "score": "entropy", "tied": True},
        {"score": "mask", "weighted": True},
        {"keep": 0.5, "score": "excess", "missing": "drop", "lonely": True},
    ):
        _, batch = random_case(len(batches), 6, 8, 20, weights=arguments.pop("weighted", False))
        x = torch.randn(6, 8, 5, generator=generator)
        if arguments.pop("tied", False):
            x[:] = x[0, 0]
        if arguments.pop("lonely", False):
            batch.labels[2:] = -100  # all there is lies with the first process
        batches.append((arguments, {"x": x, "labels": batch.labels, "loss_mask": batch.loss_mask, **batch.columns}))
    weight = torch.randn(20, 5, generator=generator)
    torch.save({"batches": batches, "weight": weight}, tmp_path / "case.pt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("loss_of_processes.py")
    subprocess.run([sys.executable, script, tmp_path, "3"], env=environment, check=True, timeout=120)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(3)]
    for number, (arguments, batch) in enumerate(batches):
        layer = torch.nn.Linear(5, 20, bias=False)
        layer.weight.data.copy_(weight)
        whole = batch_of(batch["labels"], mask=batch["loss_mask"], ref_loss=batch["ref_loss"])
        loss = selective_loss(layer(batch["x"]), whole, **arguments)
        loss.backward()
        kept = select_tokens(layer(batch["x"]), whole, **arguments)
        assert float(kept.mass) > 0
        for name, among in (("all", 3), ("two", 2)):
            found = [part[number, name] for part in parts[:among]]
            torch.testing.assert_close(torch.cat([weights for _, _, weights, _ in found]), kept.weights)
            torch.testing.assert_close(torch.stack([value for value, _, _, _ in found]).mean(), loss.detach())
            for _, gradient, _, mass in found:
                torch.testing.assert_close(gradient, layer.weight.grad)
                torch.testing.assert_close(mass, kept.mass)


def test_mistakes():
    logits, batch = random_case(10)
    bare = batch_of(batch.labels)
    numpy = batch_of(batch.labels.numpy())
    for call, message in (
        (lambda: selective_loss(logits, batch, 1.5), "keep is 1.5; allowed are 0.0 to 1.0"),
        (lambda: selective_loss(logits, batch, score="rho"), "score is 'rho'; allowed are excess, loss, entropy, mask"),
        (lambda: selective_loss(logits, batch, missing="zero"), "missing is 'zero'; allowed are keep, drop"),
        (
            lambda: selective_loss(logits[:, :-1], batch),
            r"logits have shape \(3, 4, 7\), labels \(3, 5\).*labels are shifted already",
        ),
        (lambda: selective_loss(logits, bare), "needs column 'ref_loss', which the batch lacks; it has none"),
        (lambda: selective_loss(logits, batch, reference="loss"), r"it has \['ref_loss'\]: open the dataset with columns="),
        (lambda: selective_loss(logits, numpy, score="loss"), "the batch holds ndarray; make the loader with as_torch=True"),
        (lambda: selective_loss(logits, batch_of_none(), score="loss"), "no labels; make the loader with labels=True"),
        (lambda: selective_loss(logits, batch, group="world"), "torch.distributed is not initialized"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def batch_of_none():
    return Batch(None, None, None, None, None, torch.ones(3, 5, dtype=torch.bool), {})
