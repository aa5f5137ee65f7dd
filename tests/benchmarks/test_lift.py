"""The arms of the lift experiment against slow transcriptions of what they select; what is measured; two arms run for real."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.lift import __main__ as command
from benchmarks.lift import arms, experiment, store, table
from benchmarks.lift.corpus import KINDS, Corpus, Planting, make_corpus
from benchmarks.lift.judging import judge
from benchmarks.lift.models import logits_of, make_model
from benchmarks.lift.signals import Columns, scorer_of, store_model, store_policies
from benchmarks.lift.training import Recipe, open_arm, open_loader, stored, train_arm
from gristmill import Batch
from gristmill.models.protocols import Signals
from tests.benchmarks.test_lift_corpus import TOKENIZER, VOCABULARY, make_source

RECIPE = Recipe(size="tiny", vocab_size=VOCABULARY, length=16, rows=6, steps=3, peak=1e-2, keep=0.6, judged=3)
CAP = 2.5


@dataclass(frozen=True)
class Drawn:
    """A scorer whose losses and entropies are random, many of them equal; none for a document's first token."""

    seed: int

    def score(self, ids: np.ndarray, bounds: np.ndarray) -> Signals:
        rng = np.random.default_rng(self.seed)
        nll, entropy = (rng.integers(0, 40, len(ids)).astype(np.float32) / 8 for _ in range(2))
        nll[bounds[:-1]] = entropy[bounds[:-1]] = np.nan
        return Signals(nll, entropy)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(make_source(), Planting(shortest=4, longest=9, curated=0.2, held=0.2, seed=2))


@pytest.fixture(scope="module")
def folders(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The builds of the corpus, with the columns of two models whose signals are random."""
    found = store.write_corpus(corpus, TOKENIZER, tmp_path_factory.mktemp("lift"))
    for part in ("train", "held_noisy"):
        for seed, name in enumerate(("base-0", "reference-0")):
            store_model(Drawn(seed), name, found[part])
        store_policies(found[part], 0, stored(found[part], "base-0"), stored(found[part], "reference-0"))
    return found


COLUMNS = Columns("base-0", "reference-0", "score.excess-0", "score.random-0", CAP)
ARMS = {arm.name: arm for arm in arms.make_arms(COLUMNS, RECIPE.keep)}


@dataclass
class Flat:
    """One batch, flat: losses and entropies of both models, of the model in training, random numbers, what was not planted."""

    labelled: list[int]
    base: list[tuple[float, float]]
    reference: list[tuple[float, float]]
    current: list[float]
    random: list[float]
    clean: list[bool]


def flatten(folders: dict[str, Path], logits: torch.Tensor) -> Flat:
    """Read the first batch of the train set with all its columns, without the reader's selections."""
    every = arms.Arm(name="every", about="", reference="ref_loss.reference-0")
    names = ["ref_loss.base-0", "entropy.base-0", "ref_loss.reference-0", "entropy.reference-0", "score.random-0", store.ORACLE]
    found = {}
    for name in names:
        batch = open_loader(folders["train"], RECIPE, 0, arm=arms.Arm(name="one", about="", reference=name)).batch(0)
        found[name] = batch.columns[name].flatten().tolist()
    labels = open_loader(folders["train"], RECIPE, 0, arm=every).batch(0).labels.flatten().tolist()
    chances = logits.flatten(0, 1).double().log_softmax(-1).tolist()
    return Flat(
        [i for i, label in enumerate(labels) if label != -100],
        list(zip(found[names[0]], found[names[1]], strict=True)),
        list(zip(found[names[2]], found[names[3]], strict=True)),
        [-row[label] for row, label in zip(chances, labels, strict=True)],
        found[names[4]],
        found[names[5]],
    )


def top(places: list[int], scores: list[float], share: float) -> set[int]:
    """The places with the highest scores, the earlier of equal ones."""
    count = math.floor(len(places) * share + 0.5)
    return set(sorted(places, key=lambda i: (-scores[i], i))[:count])


def expected(name: str, flat: Flat) -> set[int]:
    """What each arm trains on, from its definition."""
    places, keep = flat.labelled, RECIPE.keep
    low = {
        key: top(places, [-loss for loss, _ in both], 0.7) & top(places, [-entropy for _, entropy in both], 0.7)
        for key, both in (("offline_reference", flat.reference), ("self_reference", flat.base))
    }
    excess = [float(np.float16(np.float32(b) - np.float32(r))) for (b, _), (r, _) in zip(flat.base, flat.reference, strict=True)]
    online = [now - loss for now, (loss, _) in zip(flat.current, flat.reference, strict=True)]
    below = [i for i in places if flat.reference[i][0] <= CAP]
    return {
        "plain": set(places),
        "plain_curated": set(places),
        "slm": top(places, online, keep),
        **low,
        "offline_excess": top(places, excess, keep),
        "eslm": top(places, flat.current, keep),
        "eslm_cap": top(below, flat.current, keep / 0.8),
        "random": top(places, flat.random, keep),
        "oracle": {i for i in places if flat.clean[i]},
    }[name]


@pytest.mark.parametrize("name", arms.NAMES)
def test_each_arm_trains_on_what_its_definition_says(folders: dict[str, Path], name: str) -> None:
    arm = ARMS[name]
    model = make_model("tiny", VOCABULARY, length=RECIPE.length, seed=7)
    batch: Batch = open_loader(folders["train"], RECIPE, 0, arm=arm).batch(0)
    logits = logits_of(model, batch.input_ids).detach()
    flat = flatten(folders, logits)
    wanted = expected(name, flat)
    assert arms.in_loss(arm, batch) == len(wanted) > 0
    every = open_loader(folders["train"], RECIPE, 0, arm=arms.Arm(name="every", about="", reference=arm.reference)).batch(0)
    picked = arms.chosen(arm, logits, every, batch.loss_mask)
    assert set(np.flatnonzero(picked.numpy()).tolist()) == wanted
    counts: list[int] = []
    total, weight = arms.make_loss(arm, counts)(model, batch)
    assert counts == [len(wanted)] and weight.item() == len(wanted)
    assert total.item() == pytest.approx(sum(flat.current[i] for i in wanted), rel=1e-5)
    if name not in ("plain", "plain_curated", "oracle"):
        assert 0.2 * len(flat.labelled) < len(wanted) <= 0.6 * len(flat.labelled) + 1


def test_arms_see_the_same_batches_but_the_control_the_curated_slice_too(folders: dict[str, Path]) -> None:
    trained = train_arm(ARMS["plain_curated"], folders, RECIPE, 0)
    assert 0 < trained.tokens <= RECIPE.tokens
    loader = open_arm(ARMS["plain_curated"], folders, RECIPE, 0)
    sources = np.concatenate([loader.batch(number * RECIPE.rows).sources for number in range(20)])
    sizes = [len(open_loader(folders[part], RECIPE, 0).dataset) for part in ("train", "curated")]
    assert np.bincount(sources) / len(sources) == pytest.approx(np.array(sizes) / sum(sizes), abs=0.02)
    first = [open_arm(arm, folders, RECIPE, 0).batch(6).input_ids for name, arm in ARMS.items() if name != "plain_curated"]
    assert all(torch.equal(first[0], other) for other in first[1:])
    weights = [make_model("tiny", VOCABULARY, length=16, seed=seed).model.embed_tokens.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_what_is_measured(folders: dict[str, Path], corpus: Corpus) -> None:
    model = make_model("tiny", VOCABULARY, length=RECIPE.length, seed=3)
    found = {name: judge(model, ARMS[name], folders, RECIPE, COLUMNS) for name in ("plain", "oracle", "slm")}
    assert found["oracle"].kept == 1.0 and found["oracle"].taken == 0.0
    assert found["plain"].kept == found["plain"].taken == 1.0 and math.isnan(found["plain"].unselected)
    assert found["plain"].clean == found["slm"].clean, "the same model on the same text"
    one = open_loader(folders["held"], RECIPE, 0)
    batches = [one.batch(number * RECIPE.rows) for number in range(RECIPE.judged)]
    losses = []
    for batch in batches:
        logits = logits_of(model, batch.input_ids).detach().flatten(0, 1)
        for row, label in zip(logits.double().log_softmax(-1), batch.labels.flatten().tolist(), strict=True):
            losses += [] if label == -100 else [-row[label].item()]
    assert found["plain"].clean == pytest.approx(np.mean(losses), rel=1e-5)
    share = found["slm"]
    assert share.selected != share.unselected and 0 < share.kept < 1 and 0 < share.taken < 1
    noisy = [open_loader(folders["held_noisy"], RECIPE, 0, arm=arms.Arm(name="x", about="", reference=kind)) for kind in KINDS]
    for kind, loader in zip(KINDS, noisy, strict=True):
        marked = []
        for number in range(RECIPE.judged):
            batch = loader.batch(number * RECIPE.rows)
            chances = logits_of(model, batch.input_ids).detach().log_softmax(-1)
            own = chances.gather(-1, batch.labels.clamp(min=0)[..., None])[..., 0]
            marked.append(-own[batch.columns[kind]])
        assert found["oracle"].noise[kind] == pytest.approx(torch.cat(marked).mean().item(), rel=1e-4)


def test_scores_are_those_of_the_model(corpus: Corpus) -> None:
    model, other = (make_model("tiny", VOCABULARY, length=16, seed=1) for _ in range(2))
    ids, bounds = corpus.held.ids, corpus.held.bounds
    found = scorer_of(other, 16).score(ids, bounds)
    first = torch.from_numpy(ids[bounds[0] : bounds[0] + 16].astype(np.int64))
    with torch.no_grad():
        chances = logits_of(model, first[None])[0].double().log_softmax(-1)
    assert np.isnan(found.nll[bounds[:-1]]).all() and np.isnan(found.nll).sum() == len(bounds) - 1
    assert found.nll[1:16] == pytest.approx(-chances[:-1].gather(-1, first[1:, None])[:, 0].numpy(), abs=1e-5)
    assert found.entropy is not None
    assert found.entropy[1:16] == pytest.approx(-(chances.exp() * chances).sum(-1)[:-1].numpy(), abs=1e-5)


def test_two_arms_in_two_seeds(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = store.write_corpus(corpus, TOKENIZER, tmp_path)
    results, before = experiment.experiment(folders, RECIPE, 2, ["plain", "slm"])
    assert set(before) == {"base", "reference", "scoring"}
    assert [len(runs) for runs in results.values()] == [2, 2]
    assert results["plain"][0].judged.clean != results["plain"][1].judged.clean, "seeds differ"
    assert results["slm"][0].tokens == pytest.approx(0.6 * results["plain"][0].tokens, abs=3)
    lines = [line.split() for line in table.losses(results).splitlines()]
    assert lines[1][0] == "plain" and lines[2][0] == "slm"
    differences = [results["slm"][n].judged.clean - results["plain"][n].judged.clean for n in range(2)]
    assert [float(cell) for cell in lines[2][-3:-1]] == pytest.approx(differences, abs=6e-4)
    rows = json.loads(table.closing(results))
    means = [np.mean([run.judged.clean for run in runs]) for runs in results.values()]
    assert rows["slm"] == {"ratio": pytest.approx(means[0] / means[1], rel=1e-3), "goal": None}
    assert "seed 1: slm" in capsys.readouterr().err
    assert "\n".join(command.facts(RECIPE, corpus, 2, 2)).count("tokens") == 3


def test_the_command_says_how_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert end.value.code == 0
    assert "python -m benchmarks.lift" in (printed := capsys.readouterr().out) and "--quick" in printed
