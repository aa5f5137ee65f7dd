"""Runs the head's kernels in Triton's interpreter beside the formulas in float64, in a process of its own.

    TRITON_INTERPRET=1 python -m tests.gristmill.models.causal_lm.head_in_interpreter

Answers with one JSON object: name → what was found. bfloat16 is not among the dtypes, as the interpreter multiplies its bits as
integers; float16 goes the same way through the kernel.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from gristmill.models.causal_lm.head import IGNORED, head_bytes
from gristmill.models.causal_lm.head_triton import LARGE, SINGLES, SMALL, Tiles, fused_parts, reduce_logits
from gristmill.models.causal_lm.parts import Parts, combine
from tests.gristmill.models.causal_lm.allocated import Allocated
from tests.gristmill.models.causal_lm.test_head import Pair, direct, drawn, same

TINY = Tiles(rows=16, columns=64, depth=32, warps=4, stages=2)
CASES: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "plain": ((16, 32, 128), {}),
    "ragged vocabulary": ((16, 32, 131), {}),
    "more tiles than shares": ((2, 8, 1100), {}),
    "ragged width": ((20, 41, 128), {}),
    "one row": ((1, 24, 100), {}),
    "one token": ((5, 24, 1), {}),
    "softcap": ((9, 32, 100), {"softcap": 30.0}),
    "scale": ((9, 32, 100), {"scale": 0.0625}),
    "bias": ((9, 32, 100), {"bias": torch.linspace(-3, 3, 100)}),
    "all of them": ((17, 40, 201), {"bias": torch.linspace(-3, 3, 201), "scale": 1.7, "softcap": 20.0}),
}


def fused(*inputs: Any, tiles: Tiles | None = TINY, entropy: bool = True, **options: Any) -> Any:
    """Return losses and entropies by the kernel that makes products too."""
    hidden, weight, targets = inputs
    options = {"bias": None, "scale": 1.0, "softcap": None} | options
    return combine(fused_parts(hidden, weight, targets, *options.values(), entropy=entropy, tiles=tiles))


def reduced(hidden: Any, weight: Any, targets: Any, *, chunk: int = 90, entropy: bool = True, **options: Any) -> Any:
    """Return them by the kernel that reads logits."""
    options = {"bias": None, "scale": 1.0, "softcap": None} | options
    count = -(-len(weight) // chunk)
    made, target = torch.full((3 if entropy else 2, len(hidden), count), math.nan), torch.full((len(hidden),), math.nan)
    for part in range(count):
        columns = slice(part * chunk, min((part + 1) * chunk, len(weight)))
        logits = hidden.float() @ weight[columns].float().T
        bias = None if options["bias"] is None else options["bias"][columns].contiguous()
        reduce_logits(logits, targets - columns.start, bias, options["scale"], options["softcap"], made[:, :, part], target)
    return combine(Parts(made[0], made[1], made[2] if entropy else None, target))


def furthest(found: Any, wanted: Pair) -> float:
    """Return the largest difference; infinite where NaN does not stand in the same places."""
    pairs = [(a.double(), b) for a, b in zip(found, wanted, strict=True)]
    if any(not torch.equal(a.isnan(), b.isnan()) for a, b in pairs):
        return math.inf
    return max(float((a - b).abs().nan_to_num().max()) for a, b in pairs)


def errors() -> dict[str, float]:
    """Return the largest difference of each case from the formulas."""
    found = {}
    for name, (shape, options) in CASES.items():
        hidden, weight, targets = drawn(*shape, dtype=torch.float16 if len(found) % 4 else torch.float32)
        targets[len(targets) // 2 :: 7] = IGNORED if len(targets) > 1 else 0
        wanted = direct(hidden, weight, targets, **options)
        found[f"fused, {name}"] = furthest(fused(hidden, weight, targets, **options), wanted)
        some, their = (hidden[-6:], weight, targets[-6:]), tuple(each[-6:] for each in wanted)  # four rows a program
        chunk = 2000 if len(weight) > 1024 else 90  # longer than what a program reads at once, or several to a row
        found[f"reduced, {name}"] = furthest(reduced(*some, chunk=chunk, **options), their)
    for name, tiles in {"large": LARGE, "small": SMALL, "singles": SINGLES}.items():
        inputs = drawn(70, 80, 300, dtype=torch.float32 if tiles is SINGLES else torch.float16)
        found[f"fused, tiles {name}"] = furthest(fused(*inputs, tiles=tiles), direct(*inputs))
    return found


def facts() -> dict[str, bool]:
    """Return what must hold besides."""
    hidden, weight, targets = (each.round() for each in drawn(18, 24, 150))  # numpy's products are exact; the sums are ours
    whole = fused(hidden, weight, targets)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))[:9]
    some = fused(hidden[order], weight, targets[order])
    bad = hidden.clone()
    bad[3, 5], bad[4, 1] = math.nan, math.inf
    spoilt, spoilt_too = fused(bad, weight, targets), reduced(bad[:6], weight, targets[:6])
    others = torch.ones(18, dtype=torch.bool)
    others[3:5] = False
    clean = reduced(hidden[:6], weight, targets[:6])
    bias = torch.zeros(150)
    bias[:100] = -math.inf
    late = targets % 50 + 100
    forbidden = direct(hidden, weight[100:], late - 100)
    large = {"rows": 500, "vocabulary": 1024, "width": 8, "dtype": torch.float32}
    inputs = drawn(500, 8, 1024)
    parts = fused_parts(*inputs, None, 1.0, None, entropy=True, tiles=Tiles(rows=512, columns=64, depth=16, warps=4, stages=2))
    made = sum(each.nbytes for each in (parts.top, parts.total, parts.moment, parts.target) if each is not None)
    with Allocated() as allocated:  # not around the kernel: the interpreter copies what it is given
        combine(parts)
    return {
        "bits of a row are its own": same(some, (whole[0][order], whole[1][order])),
        "bad rows are NaN": all(bool(each[3:5].isnan().all()) for each in (*spoilt, *spoilt_too)),
        "and leave the others alone": same([each[others] for each in spoilt], [each[others] for each in whole]),
        "so in reduced": same([each[others[:6]] for each in spoilt_too], [each[others[:6]] for each in clean]),
        "forbidden tokens take no part": furthest(fused(hidden, weight, late, bias=bias), forbidden) < 3e-5,
        "so in reduced too": furthest(reduced(hidden[:6], weight, late[:6], bias=bias), [each[:6] for each in forbidden]) < 3e-5,
        "a forbidden target": fused(hidden, weight, targets * 0, bias=bias)[0].isposinf().all().item(),
        "losses without entropy": same(fused(hidden, weight, targets, entropy=False)[:1], whole[:1]),
        "reduced losses without": same(reduced(hidden[:6], weight, targets[:6], entropy=False)[:1], clean[:1]),
        "memory": 0.5 < (made + allocated.peak) / head_bytes(**large, device="cuda") <= 1,
        "no rows": [each.shape for each in fused(hidden[:0], weight, targets[:0])] == [(0,), (0,)],
    }


def main() -> None:
    """Print what was found."""
    print(json.dumps({"errors": errors(), "facts": facts()}))  # noqa: T201


if __name__ == "__main__":
    main()
