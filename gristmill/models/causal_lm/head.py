"""The last layer of a causal model and its losses: hidden states, the matrix of the vocabulary and targets to loss and entropy.

Reads tensors on one device; returns float32 tensors there. The logits [rows, vocabulary] never exist whole: parts of them give a
maximum, a sum of exponentials and a sum of those times their logits, which add up to the same softmax (Milakov and Gimelshein
2018, arXiv 1805.02867); entropy needs the third. On CUDA one kernel makes products and sums (`head_triton`); elsewhere, and
where `chunk` is given, a product over some rows and columns of the vocabulary at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gristmill.models.causal_lm.parts import SPLITS, Parts, combine

IGNORED = -100
# Rows of one product, filled up with zeros: the library may sum in another order for another shape, so each block has the same.
ROWS, CUDA_ROWS = 256, 4096
# Columns of one product: 2 MB of logits lie in a core's cache.
CHUNK = 2048
# What a row takes beside its sums: targets, losses, entropies, and steps on the way to them.
BYTES_OF_A_ROW = 96
# exp(-1e4) is 0 in float32; a logit of minus infinity (a bias that forbids a token) then adds 0 to both sums, not 0 * inf.
LEAST = -1e4


def head_losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
    entropy: bool = True,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return −ln p of each target and the entropy of the distribution it was drawn from, in nats.

    The logits are z = scale * (hidden @ weight.T + bias), then softcap * tanh(z / softcap). bfloat16 and float16 are multiplied
    exactly and summed in float32, float32 is multiplied in float32; exponentials are summed in float32 within a part and in
    float64 over the parts. A row's bits depend on that row, its target, the weights and `chunk` only: not on the rows beside it,
    its place, or how many there are. (Where a product is a library's, on CUDA with `chunk`, they may depend on their number.)

    Args:
        hidden: [n, d] bfloat16, float16, float32 (or float64, which is then computed in).
        weight: [V, d], same dtype and device.
        targets: int64 [n], from 0 to V - 1; -100 for rows that have no target.
        bias: [V], any floating dtype; minus infinity forbids a token.
        scale: what logits are multiplied by (Cohere's `logit_scale`, 1 / Granite's `logits_scaling`).
        softcap: Gemma 2's `final_logit_softcapping`.
        entropy: whether to compute it.
        chunk: columns of the vocabulary at a time; None: 2048, and on CUDA the kernel, which has its own tiles.

    Returns:
        nll: float32 [n]; NaN where the target is -100, or where the row has NaN or infinity.
        entropy: float32 [n], NaN in the same rows; None without `entropy`.

    Raises:
        ValueError: shapes, dtypes or devices that do not go together, a target outside the vocabulary.
    """
    _check(hidden, weight, targets, bias, softcap, chunk)
    with torch.no_grad():
        if _fused(hidden, chunk):
            from gristmill.models.causal_lm.head_triton import fused_parts

            return combine(fused_parts(hidden, weight, targets, bias, scale, softcap, entropy=entropy))
        return combine(_chunked_parts(hidden, weight, targets, bias, scale, softcap, chunk or CHUNK, entropy=entropy))


def head_bytes(
    rows: int, vocabulary: int, width: int, *, dtype: torch.dtype, device: str, chunk: int | None = None, entropy: bool = True
) -> int:
    """Return how many bytes of memory a call of `head_losses` takes at most, beside its arguments.

    Args:
        rows: n.
        vocabulary: V.
        width: d.
        dtype: of hidden states and weights.
        device: "cuda" or "cpu".
        chunk: as in `head_losses`.
        entropy: as in `head_losses`.
    """
    wide: int = torch.promote_types(dtype, torch.float32).itemsize
    sums = (3 if entropy else 2) * wide + (5 if entropy else 3) * 8  # those of the parts; and what `combine` has of each, float64
    if device == "cuda" and chunk is None and wide == 4:
        return rows * (SPLITS * sums + BYTES_OF_A_ROW)
    chunk = min(chunk or CHUNK, vocabulary)
    step = CUDA_ROWS if device == "cuda" else ROWS
    padded = -(-rows // step) * step
    converted: int = wide if dtype.itemsize < wide and device != "cuda" else 0
    block: int = step * width * (dtype.itemsize + converted) + chunk * width * converted
    return 2 * step * chunk * wide + block + padded * (-(-vocabulary // chunk) * sums + BYTES_OF_A_ROW)


def _fused(hidden: Tensor, chunk: int | None) -> bool:
    return bool(hidden.is_cuda) and chunk is None and hidden.dtype != torch.float64


def _check(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, softcap: float | None, chunk: int | None
) -> None:
    shapes = f"hidden {list(hidden.shape)}, weight {list(weight.shape)}, targets {list(targets.shape)}"
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or targets.shape != hidden.shape[:1]:
        raise ValueError(f"{shapes}: shapes must be [n, d], [V, d] and [n]")
    if weight.shape[0] == 0 or hidden.shape[1] == 0:
        raise ValueError(f"{shapes}: the vocabulary and the width must not be empty")
    if hidden.dtype != weight.dtype or not hidden.is_floating_point():
        raise ValueError(f"hidden is {hidden.dtype}, weight {weight.dtype}: both must have one floating dtype")
    if targets.dtype != torch.int64:
        raise ValueError(f"targets are {targets.dtype}, must be torch.int64")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias {list(bias.shape)}, weight {list(weight.shape)}: the bias must be [V]")
    devices = [each.device for each in (hidden, weight, targets, bias) if each is not None]
    if len(set(devices)) > 1:
        raise ValueError(f"hidden, weight, targets and bias lie on {', '.join(map(str, devices))}: must be one device")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}, must be above 0 (None: no cap)")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}, must be 1 or more")
    outside = (targets != IGNORED) & ((targets < 0) | (targets >= weight.shape[0]))
    if bool(outside.any()):
        row = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"target {int(targets[row])} of row {row} is not in the vocabulary: 0 to {weight.shape[0] - 1}, or {IGNORED} for none"
        )


def _chunked_parts(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    chunk: int,
    *,
    entropy: bool,
) -> Parts:
    rows, vocabulary = len(hidden), len(weight)
    step = CUDA_ROWS if hidden.is_cuda else ROWS
    blocks, count = -(-rows // step), -(-vocabulary // chunk)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    narrow = hidden.is_cuda and hidden.dtype != wide  # tensor cores take these as they are and sum in float32
    made = hidden.new_empty((3 if entropy else 2, blocks * step, count), dtype=wide)
    target = hidden.new_full((blocks * step,), torch.nan, dtype=wide)
    padded = targets.new_full((blocks * step,), IGNORED)
    padded[:rows] = targets
    for part in range(count):
        columns = slice(part * chunk, min((part + 1) * chunk, vocabulary))
        some = weight[columns] if narrow else weight[columns].to(wide)
        added = None if bias is None else bias[columns].to(wide)
        for block in range(blocks):
            span = slice(block * step, (block + 1) * step)
            block_hidden = _block(hidden[span], step)
            logits = torch.mm(block_hidden, some.T, out_dtype=wide) if narrow else block_hidden.to(wide) @ some.T
            local = padded[span] - columns.start
            _reduce(logits, local, added, scale, softcap, made[:, span, part], target[span])
    return Parts(made[0, :rows], made[1, :rows], made[2, :rows] if entropy else None, target[:rows])


def _reduce(
    logits: Tensor, targets: Tensor, bias: Tensor | None, scale: float, softcap: float | None, made: Tensor, target: Tensor
) -> None:
    """Write what raw logits say of their rows, which uses them up; arguments as of `head_triton.reduce_logits`."""
    if logits.is_cuda and logits.dtype == torch.float32:
        from gristmill.models.causal_lm.head_triton import reduce_logits

        return reduce_logits(logits, targets, bias, scale, softcap, made, target)
    logits = _changed(logits, bias, scale, softcap)
    here = (targets >= 0) & (targets < logits.shape[1])
    found = logits.gather(1, targets.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    target.copy_(torch.where(here, found, target))
    top = logits.amax(1).clamp_(min=torch.finfo(logits.dtype).min)
    below = logits.sub_(top[:, None]).clamp_(min=LEAST)
    powers = below.exp()
    made[0], made[1] = top, powers.sum(1)
    if len(made) == 3:
        made[2] = below.mul_(powers).sum(1)
    return None


def _block(hidden: Tensor, step: int) -> Tensor:
    if len(hidden) == step:
        return hidden
    block = hidden.new_zeros((step, hidden.shape[1]))
    block[: len(hidden)] = hidden
    return block


def _changed(logits: Tensor, bias: Tensor | None, scale: float, softcap: float | None) -> Tensor:
    if bias is not None:
        logits += bias
    if scale != 1.0:
        logits *= scale
    if softcap is not None:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits
