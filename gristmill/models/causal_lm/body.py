"""The body of a decoder on packs: token ids to hidden states, no window of which depends on what lies beside it.

A model whose attention goes through transformers' interface runs packed (`attention`). Trap: transformers (5.17 at least) keeps
packed documents apart by itself only with `attention_mask=None` and `use_cache=False`, else they see one another, silently. So
both are always given, but not relied upon: attention is ours, and whether a model is right with it is tried on a small row when
it is opened. Models that fail (layers with a state, such as Mamba; masks of their own), and those with experts, whose sums depend
on what goes to them beside, run one window at a time, in each window's own shape: slow, and right.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gristmill.models.causal_lm import attention
from gristmill.models.causal_lm.packs import Pack

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_tok")
SLIDING = "sliding_attention"
TRIAL = (13, 20, 7)  # tokens of the windows of the trial
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the size of hidden states, in the trial; a leak is some tenths
HALF = 0.05  # the same for bfloat16 and float16


class Body(Protocol):
    """Runs packs through a decoder without its head."""

    alone: str
    """Why the model runs one window at a time; empty where it runs packed."""

    def run(self, some: Sequence[Pack]) -> Tensor:
        """Return the hidden states of these packs, [packs * pack, d]."""
        ...


class Packed:
    """Packs one after the other in one row."""

    alone = ""

    def __init__(self, module: torch.nn.Module, device: torch.device, longest: int, *, compile: bool) -> None:
        self._device, self._longest = device, longest
        self._call: Callable[..., Any] = torch.compile(module, dynamic=False) if compile else module

    def run(self, some: Sequence[Pack]) -> Tensor:
        """Return the hidden states of these packs, [packs * pack, d]."""
        size = len(some[0].ids)
        cuts = np.concatenate([pack.cuts[:-1] + number * size for number, pack in enumerate(some)])
        most = max(64, 1 << len(cuts).bit_length())  # few lengths, for torch.compile; those too many are empty windows
        cuts = np.pad(cuts, (0, most - len(cuts)), constant_values=len(some) * size).astype(np.int32)
        ids, positions, where = (
            torch.from_numpy(each).to(self._device)
            for each in (np.concatenate([pack.ids for pack in some]), np.concatenate([pack.positions for pack in some]), cuts)
        )
        return call_packed(self._call, ids, positions, where, self._longest)


class Alone:
    """One window at a time, with the model's own attention."""

    def __init__(self, module: torch.nn.Module, device: torch.device, why: str) -> None:
        self.alone, self._device, self._call = why, device, module

    def run(self, some: Sequence[Pack]) -> Tensor:
        """Return the hidden states of these packs, [packs * pack, d]; those of padding are 0."""
        return torch.cat([self._pack(pack) for pack in some])

    def _pack(self, pack: Pack) -> Tensor:
        ids = torch.from_numpy(pack.ids).to(self._device)
        parts = [call_alone(self._call, ids[begin:end]) for begin, end in pairwise(pack.cuts[: pack.windows + 1].tolist())]
        padding = parts[0].new_zeros((len(ids) - sum(map(len, parts)), parts[0].shape[1]))
        return torch.cat([*parts, padding])


def make_body(module: torch.nn.Module, device: torch.device, longest: int, *, compile: bool = False) -> Packed | Alone:
    """Return how this model is to be run, tried out.

    Args:
        module: a transformers decoder without its head. Its attention implementation is set.
        device: where its weights are.
        longest: tokens of the longest window.
        compile: run it through torch.compile, if it runs packed.
    """
    module.eval()
    why = _why_alone(module, device, longest)
    return Alone(module, device, why) if why else Packed(module, device, longest, compile=compile)


def call_packed(module: Callable[..., Any], ids: Tensor, positions: Tensor, cuts: Tensor, longest: int) -> Tensor:
    """Return the hidden states [tokens, d] of a row of windows."""
    with torch.no_grad():
        out: Tensor = module(
            input_ids=ids[None],
            position_ids=positions[None],
            attention_mask=None,
            use_cache=False,
            window_cuts=cuts,
            window_longest=longest,
        ).last_hidden_state[0]
    return out


def call_alone(module: Callable[..., Any], ids: Tensor) -> Tensor:
    """Return the hidden states [tokens, d] of one window, with whatever attention the model is set to."""
    with torch.no_grad():
        out: Tensor = module(input_ids=ids[None], attention_mask=None, use_cache=False).last_hidden_state[0]
    return out


# ---- the trial ----


def _why_alone(module: PreTrainedModel, device: torch.device, longest: int) -> str:
    """Return why a model cannot run packed, empty if it can; leaves it with the attention that it is to run with."""
    name, config = type(module).__name__, module.config
    takes = inspect.signature(module.forward).parameters.values()
    if not module._can_set_attn_implementation() or all(each.kind is not each.VAR_KEYWORD for each in takes):
        return f"{name} has an attention of its own, out of reach of transformers' attention interface"
    odd = sorted({*(getattr(config, "layer_types", None) or ())} - {"full_attention", SLIDING})
    if odd:
        return f"{name} has layers of the kind {', '.join(odd)}"
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and chunk < longest:
        return f"{name} attends in chunks of {chunk} tokens"
    short = _short_positions(config)
    if short < longest:
        return f"{name} turns positions by other angles in a row with a window of more than {short} tokens (longrope)"
    if any(getattr(config, key, None) for key in EXPERTS):
        return f"{name} has experts: how many tokens of a row go to one decides how their products are added up"
    own = config._attn_implementation
    why = _try(module, device)
    if why:
        module.set_attn_implementation("eager" if own == attention.NAME else own)
    return why


def _short_positions(config: PretrainedConfig) -> float:
    """Return how many tokens the rotary angles are the same for: longrope has others for a row that holds a longer window.

    (LongRoPE, Ding et al. 2024, arXiv 2402.13753. Dynamic scaling changes beyond the model's own limit only.)
    """
    ropes = getattr(config, "rope_parameters", None) or {}
    kinds = ropes.values() if all(isinstance(each, dict) for each in ropes.values()) else [ropes]
    return min(
        (kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"), default=math.inf
    )


def _try(module: PreTrainedModel, device: torch.device) -> str:
    """Return what is wrong with the middle one of three windows in a row; leaves the model with our attention."""
    vocabulary = module.get_input_embeddings().num_embeddings
    cuts = torch.tensor((0, *TRIAL), device=device).cumsum(0, dtype=torch.int32)
    begin, end = TRIAL[0], TRIAL[0] + TRIAL[1]
    positions = torch.cat([torch.arange(each, device=device) for each in TRIAL])
    ids = (torch.arange(sum(TRIAL), device=device) * 7919 + 1) % vocabulary
    changed = (ids + 1) % vocabulary
    changed[begin:end] = ids[begin:end]
    module.set_attn_implementation("eager")  # a model may come with ours from an engine before
    single = call_alone(module, ids[begin:end])
    with _noted() as sliding:
        module.set_attn_implementation(attention.NAME)
        try:
            one, other = (call_packed(module, row, positions, cuts, max(TRIAL))[begin:end] for row in (ids, changed))
        except attention.Unpackable as error:
            return f"{error}"
    far = float(torch.linalg.norm((one - single).double()) / torch.linalg.norm(single.double()))
    if not far <= TOLERANCE.get(single.dtype, HALF):
        return f"its hidden states in a packed row differ by {far:.2g} of their size from those of the window alone"
    if not torch.equal(one, other):
        return "its hidden states depend on the tokens beside a window in a packed row"
    return _count(module.config, sliding[: len(sliding) // 2])


def _count(config: PretrainedConfig, sliding: Sequence[int | None]) -> str:
    """Return what is wrong with how many layers attended, and how many with a sliding window (given for each)."""
    layers = int(config.num_hidden_layers)
    if len(sliding) != layers:
        return f"{len(sliding)} of its {layers} layers attend through transformers' attention interface"
    kinds = getattr(config, "layer_types", None) or ()
    short = sum(each is not None for each in sliding)
    if kinds and short != kinds.count(SLIDING):
        return f"{short} of its {kinds.count(SLIDING)} layers with a sliding window say so to their attention"
    return ""


@contextlib.contextmanager
def _noted() -> Iterator[list[int | None]]:
    """Give the list that the sliding window of each call of our attention is added to."""
    from transformers import AttentionInterface

    sliding: list[int | None] = []

    def noting(*given: Any, **named: Any) -> tuple[Tensor, None]:  # noqa: ANN401
        sliding.append(named.get("sliding_window"))
        return attention.windows_forward(*given, **named)

    AttentionInterface.register(attention.NAME, noting)
    try:
        yield sliding
    finally:
        AttentionInterface.register(attention.NAME, attention.windows_forward)
