"""The loss on selected tokens: Rho-1's online selection, ESLM's value at risk, and stored masks, for any causal language model.

Reads: logits and a `Batch` of torch tensors. Writes: nothing. Imports torch; `gristmill` itself does not import this module.

The selection looks at detached scores, computed in float32 a few thousand rows at a time; the loss and its gradient come from
the same pass, so that neither a float32 copy of the logits nor a second softmax of what was left out is ever made.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from gristmill.reader.batch import IGNORED, Batch
from gristmill.reader.ranking import share_count

Score = Literal["excess", "loss", "entropy", "mask"]
Group: TypeAlias = "dist.ProcessGroup | Literal['world'] | None"

CHUNK = {"cpu": 1 << 18}  # logits looked at at once: 2^18 to 2^20 are fastest on a CPU, in whose caches they stay
LOWEST = -1000.0  # its exponential is 0 in float64 too
CHUNK_ELSEWHERE = 1 << 25  # 128 MB in float32: few kernel launches


class Selected(NamedTuple):
    """What `selective_loss` trains on.

    Attributes:
        weights: (rows, length): bool, or float32 where the batch's loss mask has weights; zero: not trained on.
        mass: scalar: the sum of the weights of all processes of the group.
    """

    weights: Tensor
    mass: Tensor


def selective_loss(
    logits: Tensor,
    batch: Batch,
    keep: float = 0.6,
    score: Score = "excess",
    group: Group = None,
    *,
    reference: str = "ref_loss",
    missing: Literal["keep", "drop"] = "keep",
) -> Tensor:
    """Return the mean cross-entropy over the tokens that the selection keeps.

    `score="excess"` is Rho-1 (Lin et al. 2024, arXiv 2404.07965): the current model's loss minus the stored loss of a
    reference model, the highest share `keep` of the global batch. `"loss"` and `"entropy"`, both of the current model, are ESLM
    (Bal et al. 2025, arXiv 2505.19893): its value at risk at α = 1 - keep, as an exact count. `"mask"` takes the batch's loss
    mask or weights as they are; `keep`, `reference` and `missing` have no part in it.

    The count is `share_count(keep, n)` of the n tokens that have a label, a loss mask above zero and a score; of equal scores the
    one earlier in the batch wins. With `keep=1` and `missing="keep"` the gradient is that of
    `torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())`. With nothing to train on the loss is 0,
    its gradient too. Scores that are NaN, because logits are, rank highest: the loss then comes out NaN as plain cross-entropy
    would, and a gradient scaler or an anomaly check sees it.

    In data-parallel training pass `group`: the share is taken of the batches of all its processes together, in the order of
    ranks. Each process then returns (number of processes) · (its part of the sum) / (weights of all), so that *averaging*
    gradients over the processes, as DistributedDataParallel does, gives the gradient of the mean over all kept tokens, and
    averaging the returned values gives that mean.

    Args:
        logits: (rows, length, vocabulary), any floating type; `logits[b, t]` predicts `batch.labels[b, t]`: shift nothing.
        batch: of torch tensors (`TokenLoader(..., as_torch=True)`); moved to the device of the logits if elsewhere.
        keep: share of tokens, 0.0 to 1.0.
        score: what tokens are ranked by.
        group: processes with a part of the global batch each, "world" for all of them, None for this one alone; all must
            call this with as many rows and as long ones.
        reference: the column of `batch.columns` with the reference loss in nats; only for `score="excess"`.
        missing: what becomes of tokens without a reference loss (NaN), such as a document's first: train on them besides the
            share, or drop them. They never count towards the share.

    Returns:
        A scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: an argument out of range, shapes that don't fit, a batch without labels or without the column.
    """
    flat = logits.flatten(0, 1)
    selected, stats = _select(logits, batch, keep, score, group, reference, missing)
    weights = selected.weights.flatten()
    world = 1 if group is None else dist.get_world_size(_resolve(group))
    mass = selected.mass.to(stats.loss.dtype)
    scale = torch.where(mass > 0, world / mass, 0)
    loss: Tensor = _WeightedMean.apply(flat, stats, weights.to(mass.dtype) * scale)
    return loss


def select_tokens(
    logits: Tensor,
    batch: Batch,
    keep: float = 0.6,
    score: Score = "excess",
    group: Group = None,
    *,
    reference: str = "ref_loss",
    missing: Literal["keep", "drop"] = "keep",
) -> Selected:
    """Return what `selective_loss` with these arguments trains on: for logs, or for a loss of one's own."""
    selected, _ = _select(logits, batch, keep, score, group, reference, missing)
    return selected


class _Stats(NamedTuple):
    """Of each row of the flattened logits; `lse` is the logarithm of the sum of exponentials. 0 where it was not asked for."""

    labels: Tensor
    lse: Tensor
    loss: Tensor
    entropy: Tensor


def _chunk(logits: Tensor) -> int:
    elements: int = CHUNK.get(logits.device.type, CHUNK_ELSEWHERE)
    return max(1, elements // int(logits.shape[1]))


def _measure(logits: Tensor, labels: Tensor, rows: Tensor, *, entropy: bool) -> _Stats:
    """Return the statistics of some rows of (n, vocabulary) logits; 0 for the others."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    out = torch.zeros((3, len(logits)), dtype=kind, device=logits.device)
    for part in rows.split(_chunk(logits)):
        wide = logits[part].to(kind)
        top = wide.amax(1, keepdim=True)
        own = wide.sub_(top).gather(1, labels[part, None])[:, 0]
        powers = wide.exp() if entropy else wide.exp_()
        total = powers.sum(1)
        out[0, part] = total.log() + top[:, 0]
        out[1, part] = total.log() - own
        if entropy:  # log Σ eˣ - Σ x eˣ / Σ eˣ; the limit is for logits of minus infinity, where x eˣ is 0
            out[2, part] = total.log() - powers.mul_(wide.clamp_(min=LOWEST)).sum(1) / total
    return _Stats(labels, *out)


class _WeightedMean(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """Σ weights · cross-entropy, from statistics that are there already; the gradient is written for rows with a weight only."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, stats: _Stats, weights: Tensor) -> Tensor:
        """Args: (n, vocabulary) logits, their statistics, (n,) weights."""
        rows = weights.nonzero()[:, 0]
        ctx.save_for_backward(logits, stats.labels[rows], stats.lse[rows], weights[rows], rows)
        return torch.dot(weights[rows], stats.loss[rows])

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return weight · (softmax - one-hot) in the type of the logits."""
        logits, labels, lse, weights, rows = ctx.saved_tensors
        out = torch.zeros_like(logits)
        factors = weights * grad
        size = _chunk(logits)
        for part in range(0, len(rows), size):
            here = slice(part, part + size)
            wide = logits[rows[here]].to(lse.dtype)
            wide.sub_(lse[here, None]).exp_().mul_(factors[here, None])
            wide.scatter_add_(1, labels[here, None], -factors[here, None])
            out[rows[here]] = wide.to(out.dtype)
        return out, None, None


def _select(
    logits: Tensor, batch: Batch, keep: float, score: Score, group: Group, reference: str, missing: str
) -> tuple[Selected, _Stats]:
    """Return what is selected, and the statistics of the logits; nothing of it is part of the graph."""
    _check(logits, batch, keep, score, reference, missing)
    flat = logits.detach().flatten(0, 1)
    labels = batch.labels.to(flat.device).flatten()
    mask = batch.loss_mask.to(flat.device).flatten()
    valid = (labels != IGNORED) & (mask > 0)
    stats = _measure(flat, labels, valid.nonzero()[:, 0], entropy=score == "entropy")
    chosen = valid
    if score != "mask":
        scores, known = stats.entropy if score == "entropy" else stats.loss, valid
        if score == "excess":
            stored = batch.columns[reference].to(flat.device).flatten().to(scores.dtype)
            known = valid & ~stored.isnan()
            scores = scores - stored
        ranked = torch.where(scores.isnan(), torch.inf, scores)  # of NaN logits
        chosen = _highest(torch.where(known, ranked, torch.nan), keep, group)
        if missing == "keep":
            chosen |= valid & ~known
    weights = chosen if mask.dtype == torch.bool else torch.where(chosen, mask, 0)
    mass = weights.sum()
    if group is not None:
        dist.all_reduce(mass, group=_resolve(group))
    return Selected(weights.view(logits.shape[:2]), mass), stats


def _highest(scores: Tensor, keep: float, group: Group) -> Tensor:
    """Return a mask of this process's tokens among the highest share of all processes' scores, NaN being no score."""
    size, mine = len(scores), slice(None)
    if group is not None:
        there = _resolve(group)
        everyone = scores.new_empty(size * dist.get_world_size(there))
        dist.all_gather_into_tensor(everyone, scores.contiguous(), group=there)
        mine = slice(dist.get_rank(there) * size, (dist.get_rank(there) + 1) * size)
        scores = everyone
    count = share_count(keep, int((~scores.isnan()).sum()))
    if count == 0:
        return torch.zeros(size, dtype=torch.bool, device=scores.device)
    border = scores.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).sort(descending=True).values[count - 1]
    above, equal = scores > border, scores == border
    first = equal & (equal.cumsum(0) <= count - above.sum())
    return (above | first)[mine]


def _resolve(group: dist.ProcessGroup | Literal["world"]) -> dist.ProcessGroup:
    if not isinstance(group, str):
        return group
    if not dist.is_initialized():
        raise ValueError(
            'group is "world", but torch.distributed is not initialized; call init_process_group, or leave group out'
        )
    world = dist.group.WORLD
    assert world is not None
    return world


def _check(logits: Tensor, batch: Batch, keep: float, score: str, reference: str, missing: str) -> None:
    if score not in get_args(Score):
        raise ValueError(f"score is {score!r}; allowed are {', '.join(get_args(Score))}")
    if missing not in ("keep", "drop"):
        raise ValueError(f"missing is {missing!r}; allowed are keep, drop")
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep is {keep!r}; allowed are 0.0 to 1.0")
    if batch.labels is None:
        raise ValueError("the batch has no labels; make the loader with labels=True")
    if not isinstance(batch.labels, Tensor):
        raise ValueError(f"the batch holds {type(batch.labels).__name__}; make the loader with as_torch=True")
    if logits.ndim != 3 or logits.shape[:2] != batch.labels.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(batch.labels.shape)}; wanted are (rows, length, vocabulary) "
            "and (rows, length): labels are shifted already, so pass the logits of all positions"
        )
    if score == "excess" and reference not in batch.columns:
        raise ValueError(
            f"score 'excess' needs column {reference!r}, which the batch lacks; it has {sorted(batch.columns) or 'none'}: "
            f"open the dataset with columns=[{reference!r}], or name the column with reference=…"
        )
