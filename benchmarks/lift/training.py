"""Training: the base and the reference model of a seed with what they say of the corpus, and one run for each way of selecting.

Reads the builds of the corpus; writes the sidecars that `signals.py` describes. Models are in memory alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from benchmarks.lift.arms import CAPPED, Arm, make_loss
from benchmarks.lift.models import best_device, make_model
from benchmarks.lift.signals import Columns, scorer_of, store_model, store_policies
from gristmill import Source, TokenDataset, TokenLoader
from gristmill.signals import loss_column
from jobs.reference.training_loop import LossOf, Schedule, Training, token_loss

OTHER = 1000  # added to a seed for the base model: other weights to begin with, and another order than the arms'
CONTINUED = 0.3  # the peak of the rate when the base is continued on the curated slice, beside that of a run
WARM_UP = 0.1  # share of the steps

Folders = Mapping[str, Path]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all runs have in common.

    Attributes:
        size: of the models, by name.
        vocab_size: ids that there are.
        length: tokens of a sequence.
        rows: sequences of a step.
        steps: of each arm.
        peak: highest learning rate.
        keep: share of tokens that a selection keeps.
        base: steps of the base model, as a share of `steps`; the reference takes no more either.
        epochs: of the curated slice that the reference is trained on, unless these are more steps than that.
        judged: batches that losses are measured on at most.
    """

    size: str
    vocab_size: int
    length: int
    rows: int
    steps: int
    peak: float
    keep: float = 0.6
    base: float = 0.5
    epochs: int = 3
    judged: int = 200

    @property
    def tokens(self) -> int:
        """Return the tokens that each arm reads."""
        return self.steps * self.rows * self.length


class Trained(NamedTuple):
    """A model, the seconds that training took (of all threads on a CPU, of the clock on a GPU), and the tokens in its loss."""

    model: nn.Module
    seconds: float
    tokens: int


class Prepared(NamedTuple):
    """The columns of a seed, and the seconds that base, reference and scoring took."""

    columns: Columns
    seconds: Mapping[str, float]


def clock(device: torch.device) -> float:
    """Return seconds: of the processor on a CPU; of the wall, all work done, on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def open_loader(path: Path | Mapping[str, Source], recipe: Recipe, seed: int, *, arm: Arm | None = None) -> TokenLoader:
    """Return the batches of a build or a mixture in the seed's order; no label crosses from one document to the next."""
    columns = [arm.reference] if arm is not None and arm.reference else []
    dataset = TokenDataset.open(path, sequence_length=recipe.length, seed=seed, columns=columns)
    select = None if arm is None else arm.select
    return TokenLoader(dataset, recipe.rows, select=select, within_documents=True, as_torch=True)


def train(model: nn.Module, loader: TokenLoader, recipe: Recipe, steps: int, *, peak: float, loss: LossOf = token_loss) -> float:
    """Train a model in place; return the seconds."""
    device = best_device()
    schedule = Schedule(steps=steps, peak=peak, warm_up=max(1, round(WARM_UP * steps)))
    training = Training(model, loader, schedule, device=device, dtype="bfloat16" if device.type == "cuda" else "float32")
    begin = clock(device)
    for _ in range(steps):
        training.run_step(loss)
    loader.close()
    return clock(device) - begin


def open_arm(arm: Arm, folders: Folders, recipe: Recipe, seed: int) -> TokenLoader:
    """Return what an arm reads: the train set, or that and the curated slice, each by its share of their sequences."""
    path: Path | Mapping[str, Source] = folders["train"]
    if arm.curated:
        names = ("train", "curated")
        sizes = [len(TokenDataset.open(folders[name], sequence_length=recipe.length)) for name in names]
        path = {name: Source(path=folders[name], weight=float(size)) for name, size in zip(names, sizes, strict=True)}
    return open_loader(path, recipe, seed, arm=arm)


def train_arm(arm: Arm, folders: Folders, recipe: Recipe, seed: int) -> Trained:
    """Train one arm from random weights: those of its seed, the same for all arms."""
    model = make_model(recipe.size, recipe.vocab_size, length=recipe.length, seed=seed)
    counts = list[int]()
    loader = open_arm(arm, folders, recipe, seed)
    seconds = train(model, loader, recipe, recipe.steps, peak=recipe.peak, loss=make_loss(arm, counts))
    return Trained(model, seconds, sum(counts))


def prepare(folders: Folders, recipe: Recipe, seed: int, tell: Callable[[str], None]) -> Prepared:
    """Train the base on the noisy corpus, continue it on the curated slice, and keep what both say of the noisy parts.

    As in Rho-1 the reference is the base continued. The arms begin with random weights, not with the base, whose order and
    weights to begin with are of another seed: what is compared is training, not continuing.
    """
    steps = max(1, round(recipe.base * recipe.steps))
    base = make_model(recipe.size, recipe.vocab_size, length=recipe.length, seed=seed + OTHER)
    seconds = {"base": train(base, open_loader(folders["train"], recipe, seed + OTHER), recipe, steps, peak=recipe.peak)}
    tell(f"seed {seed}: base")
    reference = copy.deepcopy(base)
    curated = open_loader(folders["curated"], recipe, seed + OTHER)
    steps = max(1, min(steps, recipe.epochs * len(curated.dataset) // recipe.rows))
    seconds["reference"] = train(reference, curated, recipe, steps, peak=CONTINUED * recipe.peak)
    tell(f"seed {seed}: reference")
    begin = clock(best_device())
    names = (f"base-{seed}", f"reference-{seed}")
    cap = float("nan")
    scorers = [scorer_of(model, recipe.length) for model in (base, reference)]
    for part in ("held_noisy", "train"):
        for name, scorer in zip(names, scorers, strict=True):
            store_model(scorer, name, folders[part])
        losses = [stored(folders[part], name) for name in names]
        excess, random = store_policies(folders[part], seed, *losses)
        cap = float(np.nanquantile(losses[1].astype(np.float32), CAPPED))  # of the train set, which comes last
    seconds["scoring"] = clock(best_device()) - begin
    tell(f"seed {seed}: scored")
    return Prepared(Columns(*names, excess, random, cap), seconds)


def stored(build: Path, model: str) -> npt.NDArray[np.float16]:
    """Return the losses of a model as they lie beside a build of one shard, [tokens]."""
    (path,) = build.glob(f"scores-{model}-*.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    return np.asarray(table[loss_column(model)].combine_chunks().values.to_numpy())
