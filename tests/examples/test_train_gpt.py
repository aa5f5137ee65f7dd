"""The training example on a small build: it resumes to the same losses, and says so."""

from __future__ import annotations

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from examples import train_gpt  # noqa: E402
from tests.gristmill.builds import documents, publish  # noqa: E402


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """6,000 tokens or so, in which an even number is followed by the next odd one: half of them can be learnt."""
    folder = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    ids = []
    for size in rng.integers(5, 40, 140):
        evens = 2 * rng.integers(1, 20, size)
        ids.append(np.stack([evens, evens + 1], 1).ravel().tolist())
    losses = [[np.nan, *(0.1 if token % 2 else 3.0 for token in row[1:])] for row in ids]
    publish(
        [[documents(ids, scores={"ref_loss.reference": losses}, schemes={"ref_loss.reference": "reference"}, vocab_size=50)]],
        folder,
    )
    return folder


def test_trains_and_resumes_to_the_same_losses(output, capsys):
    train_gpt.main([str(output), "--quick", "--steps", "14", "--sequence-length", "10"])
    shown = capsys.readouterr().out
    assert shown.count("saved after step 6 and resumed: the 7 losses after it are the same, to the last bit") == 2
    losses = [float(found) for found in re.findall(r"step +\d+: loss ([\d.]+)", shown)]
    plain, selective = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    assert plain != selective
    assert plain[-1] < plain[0] == pytest.approx(np.log(50), rel=0.05)


def test_the_same_weights_and_other_losses_are_noticed(output, tmp_path):
    """The assertion of the example can fail: a resumed run whose loader begins anew has other losses."""
    dataset = train_gpt.TokenDataset.open(output, sequence_length=10, seed=1, columns=["ref_loss.reference"])
    setting = train_gpt.Setting(dataset, 6, 0.6, True)
    run = train_gpt.Run(setting)
    run.train(range(3))
    run.save(tmp_path / "run.pt")
    losses = run.train(range(3, 6))
    for move, same in ((0, True), (16, False)):
        resumed = train_gpt.Run(setting)
        resumed.load(tmp_path / "run.pt")
        resumed.loader.seek(48 + move)
        assert (resumed.train(range(3, 6)) == losses) == same


def test_too_many_steps_for_the_build(output, capsys):
    with pytest.raises(SystemExit):
        train_gpt.main([str(output), "--quick", "--steps", "400", "--sequence-length", "10"])
    assert re.search(r"--steps is 400; allowed are 2 to \d+: the build has \d+ sequences of 10 tokens", capsys.readouterr().err)
