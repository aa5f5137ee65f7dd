"""The head's kernels for CUDA, in Triton: products with the vocabulary and their softmax sums in one pass, or the sums alone.

Reads tensors on a CUDA device (or on the CPU under TRITON_INTERPRET=1, as tests without one do); returns `Parts`.

`fused_parts`: a program holds some rows against a share of the vocabulary, tile after tile. A tile's logits are float32
accumulators; they never leave registers, but for a maximum, two sums and the target's logit of each row. Nothing is added
atomically and tiles are fixed by the dtype, not by timing, so that bits are the same in every run; every logit is summed over d
in the same order, wherever its row and column stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gristmill.models.causal_lm.parts import SPLITS, Parts

# Below any logit. Finite: a difference of two is not NaN, and its exponential is 0.
FLOOR = tl.constexpr(-1e30)


@dataclass(frozen=True)
class Tiles:
    """What a program of `fused_parts` does at once: rows, columns of the vocabulary, width; and how it is scheduled."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    flat: bool = False  # loads of the next tile begin before the sums of this one


# Large tiles read little for a product. Hopper's and Blackwell's shared memory holds three stages (144 kB); on A100 their sums
# do not fit the registers.
LARGE = Tiles(rows=128, columns=256, depth=64, warps=8, stages=3)
# 96 kB, for cards with less memory.
SMALL = Tiles(rows=128, columns=128, depth=64, warps=8, stages=3)
# float32 is multiplied by ordinary cores, not rounded to tf32.
SINGLES = Tiles(rows=64, columns=64, depth=32, warps=8, stages=2)


def fused_parts(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    *,
    entropy: bool,
    tiles: Tiles | None = None,
) -> Parts:
    """Return what 16 shares of the vocabulary say of each row; arguments as of `head_losses`, checked there."""
    tiles = tiles or _tiles(hidden)
    (rows, width), vocabulary = hidden.shape, len(weight)
    hidden, weight = hidden.contiguous(), weight.contiguous()
    splits = min(SPLITS, triton.cdiv(vocabulary, tiles.columns))
    made = hidden.new_empty((3 if entropy else 2, rows, splits), dtype=torch.float32)
    target = hidden.new_full((rows,), torch.nan, dtype=torch.float32)
    if rows:
        _fused[(triton.cdiv(rows, tiles.rows) * splits,)](
            hidden,
            weight,
            targets,
            bias,
            made,
            target,
            scale,
            softcap or 1.0,
            rows,
            vocabulary,
            splits,
            width,
            EVEN=width % tiles.depth == 0,
            SCALED=scale != 1.0,
            CAPPED=softcap is not None,
            ENTROPY=entropy,
            ROWS=tiles.rows,
            COLUMNS=tiles.columns,
            DEPTH=tiles.depth,
            FLAT=tiles.flat,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )
    return Parts(made[0], made[1], made[2] if entropy else None, target)


def reduce_logits(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    made: Tensor,
    target: Tensor,
) -> None:
    """Read raw logits once and write what they say of each row.

    Args:
        logits: float32 [rows, columns], contiguous: hidden @ weight.T of some columns of the vocabulary.
        targets: int64 [rows], columns of these logits; any other number: the target is elsewhere.
        bias: [columns].
        scale: as of `head_losses`.
        softcap: as of `head_losses`.
        made: float32 [2 or 3, rows], written: top, total and, where there are three, moment.
        target: float32 [rows], written where the target is among the columns.
    """
    rows, columns = logits.shape
    _reduced[(triton.cdiv(rows, 4),)](
        logits,
        targets,
        bias,
        made,
        target,
        scale,
        softcap or 1.0,
        rows,
        columns,
        made.stride(0),
        made.stride(1),
        SCALED=scale != 1.0,
        CAPPED=softcap is not None,
        ENTROPY=len(made) == 3,
        ROWS=4,
        COLUMNS=1024,
        num_warps=8,
    )


def _tiles(hidden: Tensor) -> Tiles:
    if hidden.dtype == torch.float32:
        return SINGLES
    if hidden.is_cuda and torch.cuda.get_device_properties(hidden.device).shared_memory_per_block_optin < 200_000:
        return SMALL
    return LARGE


@triton.jit  # type: ignore[untyped-decorator]
def _change(
    z: tl.tensor,
    bias_at: tl.tensor,
    columns: tl.tensor,
    vocabulary: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    SCALED: tl.constexpr,
    CAPPED: tl.constexpr,
) -> tl.tensor:
    if bias_at is not None:
        z += tl.load(bias_at + columns, mask=columns < vocabulary, other=0.0).to(tl.float32)[None, :]
    if SCALED:
        z *= scale
    if CAPPED:
        z = softcap * (1.0 - 2.0 / (tl.exp(z * (2.0 / softcap)) + 1.0))  # tanh
    return z


@triton.jit  # type: ignore[untyped-decorator]
def _absorb(
    z: tl.tensor,
    columns: tl.tensor,
    vocabulary: tl.tensor,
    targets: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    moment: tl.tensor,
    found: tl.tensor,
    ENTROPY: tl.constexpr,
) -> tl.tensor:
    found += tl.sum(tl.where(columns[None, :] == targets[:, None], z, 0.0), 1)
    z = tl.where((columns >= vocabulary)[None, :] | (z < FLOOR), FLOOR, z)  # not `z > FLOOR`: NaN stays
    higher = tl.maximum(top, tl.max(z, 1))
    below = z - higher[:, None]
    powers = tl.exp(below)
    rise = top - higher
    factor = tl.exp(rise)
    if ENTROPY:
        moment = (moment + total * rise) * factor + tl.sum(powers * below, 1)
    total = total * factor + tl.sum(powers, 1)
    return higher, total, moment, found


@triton.jit  # type: ignore[untyped-decorator]
def _fused(
    hidden_at: tl.tensor,
    weight_at: tl.tensor,
    targets_at: tl.tensor,
    bias_at: tl.tensor,
    made_at: tl.tensor,
    found_at: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    rows: tl.tensor,
    vocabulary: tl.tensor,
    splits: tl.tensor,
    width: tl.tensor,
    EVEN: tl.constexpr,
    SCALED: tl.constexpr,
    CAPPED: tl.constexpr,
    ENTROPY: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FLAT: tl.constexpr,
) -> None:
    # Neighbours have the same rows and other columns: some row blocks and some tiles of the weights are read by many at once.
    split = tl.program_id(0) % splits
    row = (tl.program_id(0) // splits) * ROWS + tl.arange(0, ROWS)
    count = tl.cdiv(vocabulary, COLUMNS)
    first, last = split * count // splits, (split + 1) * count // splits
    targets = tl.load(targets_at + row, mask=row < rows, other=-1).to(tl.int32)
    depth = tl.arange(0, DEPTH)
    # Rows and columns past the end read the last one; what becomes of them is not written, or not counted.
    hidden_row = hidden_at + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * width
    top = tl.full((ROWS,), FLOOR, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    moment = tl.zeros((ROWS,), tl.float32)
    found = tl.zeros((ROWS,), tl.float32)
    for tile in tl.range(first, last, flatten=FLAT):
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        weight_row = weight_at + tl.minimum(columns, vocabulary - 1).to(tl.int64)[None, :] * width
        logits = tl.zeros((ROWS, COLUMNS), tl.float32)
        for k in tl.range(0, width, DEPTH):
            if EVEN:
                some = tl.load(hidden_row + (k + depth)[None, :])
                others = tl.load(weight_row + (k + depth)[:, None])
            else:
                some = tl.load(hidden_row + (k + depth)[None, :], mask=(k + depth < width)[None, :], other=0.0)
                others = tl.load(weight_row + (k + depth)[:, None], mask=(k + depth < width)[:, None], other=0.0)
            logits = tl.dot(some, others, logits, input_precision="ieee")
        logits = _change(logits, bias_at, columns, vocabulary, scale, softcap, SCALED, CAPPED)
        top, total, moment, found = _absorb(logits, columns, vocabulary, targets, top, total, moment, found, ENTROPY)
    inside = row < rows
    at = made_at + row.to(tl.int64) * splits + split
    share = rows.to(tl.int64) * splits
    tl.store(at, top, mask=inside)
    tl.store(at + share, total, mask=inside)
    if ENTROPY:
        tl.store(at + 2 * share, moment, mask=inside)
    tl.store(found_at + row, found, mask=inside & (targets >= first * COLUMNS) & (targets < last * COLUMNS))


@triton.jit  # type: ignore[untyped-decorator]
def _reduced(
    logits_at: tl.tensor,
    targets_at: tl.tensor,
    bias_at: tl.tensor,
    made_at: tl.tensor,
    found_at: tl.tensor,
    scale: tl.tensor,
    softcap: tl.tensor,
    rows: tl.tensor,
    vocabulary: tl.tensor,
    kind_stride: tl.tensor,
    row_stride: tl.tensor,
    SCALED: tl.constexpr,
    CAPPED: tl.constexpr,
    ENTROPY: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    targets = tl.load(targets_at + row, mask=inside, other=-1).to(tl.int32)
    top = tl.full((ROWS,), FLOOR, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    moment = tl.zeros((ROWS,), tl.float32)
    found = tl.zeros((ROWS,), tl.float32)
    for first in tl.range(0, vocabulary, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        at = logits_at + row.to(tl.int64)[:, None] * vocabulary + columns[None, :]
        logits = tl.load(at, mask=inside[:, None] & (columns < vocabulary)[None, :], other=0.0)
        logits = _change(logits, bias_at, columns, vocabulary, scale, softcap, SCALED, CAPPED)
        top, total, moment, found = _absorb(logits, columns, vocabulary, targets, top, total, moment, found, ENTROPY)
    at = made_at + row.to(tl.int64) * row_stride
    tl.store(at, top, mask=inside)
    tl.store(at + kind_stride, total, mask=inside)
    if ENTROPY:
        tl.store(at + 2 * kind_stride, moment, mask=inside)
    tl.store(found_at + row, found, mask=inside & (targets >= 0) & (targets < vocabulary))
