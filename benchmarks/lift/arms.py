"""The ways of selecting: what the reader masks by stored columns, and what the loss selects by the model in training.

Reads batches and logits; writes nothing. All arms train on the same sequences in the same order, but for `plain_curated`, whose
sequences are drawn from the curated slice too, by its share of all tokens: what arms with a reference model know of that slice
through its losses, it knows from the slice itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.lift import models, store
from benchmarks.lift.signals import Columns
from gristmill import Batch, Both, StoredMask, Threshold, TopShare
from gristmill.reader.batch import IGNORED
from gristmill.reader.ranking import share_count
from gristmill.reader.selection import Selection
from gristmill.reader.selective_loss import Score, select_tokens, selective_loss
from gristmill.signals import entropy_column, loss_column
from jobs.reference.training_loop import Loss

INTERSECTED = 0.7  # share of lowest losses, and of lowest entropies, of which self-reference keeps the intersection
CAPPED = 0.8  # share of the train set with a reference loss below the cap


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of selecting.

    Attributes:
        name: in the table and in the last line.
        about: what it trains on.
        select: of the reader, by stored columns; None: every label.
        score: of the loss: `mask` trains on what the reader selected, the others rank by the current model.
        keep: share that the loss keeps.
        reference: the column that `score="excess"` subtracts.
        curated: whether the curated slice is mixed into what it trains on.
    """

    name: str
    about: str
    select: Selection | None = None
    score: Score = "mask"
    keep: float = 1.0
    reference: str = ""
    curated: bool = False


def make_arms(columns: Columns, keep: float) -> tuple[Arm, ...]:
    """Return all arms; `keep` is the share of tokens that each selects, but for those with a rule of their own."""
    losses = {name: loss_column(model) for name, model in (("base", columns.base), ("reference", columns.reference))}
    return (
        Arm(name="plain", about="all tokens"),
        Arm(name="plain_curated", about="all tokens, those of the curated slice too", curated=True),
        Arm(name="slm", about="Rho-1: highest current − reference", score="excess", keep=keep, reference=losses["reference"]),
        Arm(name="offline_reference", about="low loss and low entropy of the reference", select=lowest(columns.reference)),
        Arm(name="self_reference", about="low loss and low entropy of the base", select=lowest(columns.base)),
        Arm(name="offline_excess", about="highest base − reference", select=TopShare(column=columns.excess, keep=keep)),
        Arm(name="eslm", about="highest current loss", score="loss", keep=keep),
        Arm(
            name="eslm_cap",
            about=f"the same below a reference loss of {columns.cap:.2f}",
            select=Threshold(column=losses["reference"], high=columns.cap),
            score="loss",
            keep=min(1.0, keep / CAPPED),
        ),
        Arm(name="random", about="any tokens", select=TopShare(column=columns.random, keep=keep)),
        Arm(name="oracle", about="what was not planted", select=StoredMask(column=store.ORACLE)),
    )


def lowest(model: str) -> Selection:
    """Return Rho-1's self-reference: what is in both a model's lowest losses and its lowest entropies."""
    sides = [TopShare(column=name(model), keep=INTERSECTED, direction="low") for name in (loss_column, entropy_column)]
    return Both(*sides)


NAMES = tuple(arm.name for arm in make_arms(Columns("base", "reference", "excess", "random", 0.0), 0.6))


def make_loss(arm: Arm, counts: list[int]) -> Callable[[Callable[..., Any], Batch], Loss]:
    """Return the loss of an arm's batches; the tokens in each are appended to `counts`."""

    def loss(model: Callable[..., Any], batch: Batch) -> Loss:
        counts.append(in_loss(arm, batch))
        logits = models.logits_of(model, batch.input_ids)
        mean = selective_loss(logits, batch, arm.keep, arm.score, reference=arm.reference, missing="drop")
        return Loss(mean * counts[-1], torch.tensor(float(counts[-1]), device=logits.device))

    return loss


def in_loss(arm: Arm, batch: Batch) -> int:
    """Return how many tokens of a batch an arm trains on: an exact count that depends on no model."""
    labelled = (batch.labels != IGNORED) & (batch.loss_mask > 0)
    if arm.score == "excess":
        labelled = labelled & ~batch.columns[arm.reference].isnan()
    total = int(labelled.sum())
    return total if arm.score == "mask" else share_count(arm.keep, total)


def chosen(arm: Arm, logits: Tensor, batch: Batch, mask: Tensor) -> Tensor:
    """Return bool (rows, length): what the arm selects of a batch with all labels, where the reader selects `mask`."""
    masked = replace(batch, loss_mask=mask)
    weights: Tensor = select_tokens(logits, masked, arm.keep, arm.score, reference=arm.reference, missing="drop").weights
    return weights > 0
