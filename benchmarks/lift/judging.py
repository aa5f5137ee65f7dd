"""How good a model is: its losses on text that was held out, clean and with noise put in, and what its arm selects there.

Reads the builds `held` and `held_noisy`; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.lift import store
from benchmarks.lift.arms import Arm, chosen
from benchmarks.lift.corpus import KINDS
from benchmarks.lift.models import best_device, logits_of
from benchmarks.lift.signals import Columns
from benchmarks.lift.training import Folders, Recipe
from gristmill import Batch, TokenDataset, TokenLoader
from gristmill.reader.batch import IGNORED
from jobs.reference.training_loop import to_device

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Mean losses in nats a token; NaN where there are no such tokens.

    Attributes:
        clean: of the text that was held out, without noise.
        noise: of planted tokens, by kind.
        selected: of what the arm selects of the same text with noise in it.
        unselected: of what it leaves out.
        taken: the share of the planted tokens that it selects.
        kept: the share of the clean tokens that it selects.
    """

    clean: float
    noise: dict[str, float]
    selected: float
    unselected: float
    taken: float
    kept: float


@torch.no_grad()  # type: ignore[untyped-decorator]
def judge(model: nn.Module, arm: Arm, folders: Folders, recipe: Recipe, columns: Columns) -> Judged:
    """Measure a trained model."""
    model.eval()
    clean = [losses(model, batch)[1][batch.loss_mask] for batch, _ in batches(folders, "held", recipe, arm, [])]
    found: dict[str, list[npt.NDArray[np.generic]]] = {"loss": [], "chosen": [], **{name: [] for name in (store.ORACLE, *KINDS)}}
    for batch, mask in batches(folders, "held_noisy", recipe, arm, [store.ORACLE, *KINDS, *columns.all()]):
        here = to_device(batch, best_device())
        logits, loss = losses(model, batch)
        picked = chosen(arm, logits, here, mask.to(logits.device)).cpu()
        labelled = batch.loss_mask
        found["loss"].append(loss[labelled].numpy())
        found["chosen"].append(picked[labelled].numpy())
        for name in (store.ORACLE, *KINDS):
            found[name].append(batch.columns[name][labelled].numpy())
    loss, picked, own, *kinds = (np.concatenate(found[name]) for name in ("loss", "chosen", store.ORACLE, *KINDS))
    return Judged(
        clean=float(torch.cat(clean).double().mean()),
        noise={kind: mean(loss, mask) for kind, mask in zip(KINDS, kinds, strict=True)},
        selected=mean(loss, picked),
        unselected=mean(loss, ~picked),
        taken=mean(picked, ~own),
        kept=mean(picked, own),
    )


def batches(folders: Folders, part: str, recipe: Recipe, arm: Arm, columns: list[str]) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield batches with all labels, each with the mask that the arm's reader would give it; the same for all arms and seeds."""
    dataset = TokenDataset.open(folders[part], sequence_length=recipe.length, columns=columns)
    rows = min(recipe.rows, len(dataset))
    plain = TokenLoader(dataset, rows, within_documents=True, as_torch=True)
    select = arm.select if columns else None
    masked = TokenLoader(dataset, rows, select=select, within_documents=True, as_torch=True)
    for number in range(min(recipe.judged, len(dataset) // rows)):
        yield plain.batch(number * rows), masked.batch(number * rows).loss_mask


def losses(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits, on the model's device, and each label's loss, (rows, length) float32 on the CPU."""
    device = best_device()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        logits = logits_of(model, batch.input_ids.to(device))
    loss = cross_entropy(logits.flatten(0, 1).float(), batch.labels.to(device).flatten(), ignore_index=IGNORED, reduction="none")
    return logits, loss.view(batch.labels.shape).cpu()


def mean(values: npt.NDArray[np.generic], mask: Mask) -> float:
    """Return the mean of some values, NaN of none."""
    return float(values[mask].astype(np.float64).mean()) if mask.any() else float("nan")
