"""A plain training loop in torch: the schedule, the optimizer, and one object that holds all that a run is made of.

Reads batches of a `TokenLoader`; writes nothing (`checkpoint.py` does). A run is a function of its model, its loader and its
schedule: what `Training.state_dict` returns is all there is, so that a run which goes on from it takes the same steps to the
last bit, on one device with the same number of threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gristmill import Batch, TokenLoader
from gristmill.reader.batch import IGNORED

Dtype = Literal["float32", "bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Loss(NamedTuple):
    """A batch's loss: the sum over its tokens, which has a gradient, and their weight, by which steps divide."""

    total: Tensor
    weight: Tensor


LossOf = Callable[[Callable[..., Any], Batch], Loss]  # f(model, batch on its device), the model compiled where that is wanted


class Step(NamedTuple):
    """What a step did: the mean loss over its tokens before it, the norm of the gradient before clipping, the learning rate."""

    loss: float
    norm: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate of each step: a straight rise to `peak`, then a half cosine down to `floor` of it.

    Args:
        steps: of the whole run.
        peak: the highest rate.
        warm_up: steps of the rise; the last of them has the peak.
        floor: rate of the last step, as a share of the peak.
    """

    steps: int
    peak: float
    warm_up: int = 0
    floor: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        if not 0 < self.peak < math.inf:
            raise ValueError(f"peak is {self.peak}; it must be a number above 0")
        if not 0 <= self.warm_up <= self.steps:
            raise ValueError(f"warm_up is {self.warm_up}; it must be from 0 to the steps, {self.steps}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is {self.floor}; it must be from 0 to 1")

    def rate(self, step: int) -> float:
        """Return the rate of a step, numbered from 0."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        way = (step + 1 - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.peak * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(way, 1.0))) / 2)


def make_optimizer(
    model: nn.Module, *, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1
) -> torch.optim.Optimizer:
    """Return AdamW over the model's weights; matrices decay, norms and biases do not. Steps set the rate."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(weight.is_cuda for weight in weights)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=betas, fused=fused)


def token_loss(model: Callable[..., Any], batch: Batch) -> Loss:
    """Return the cross-entropy of all labels, each weighed by the batch's `loss_mask`; the loss of plain training."""
    losses = losses_of(model, batch)
    weights = batch.loss_mask.to(losses.dtype)
    return Loss((losses * weights).sum(), weights.sum())


def losses_of(model: Callable[..., Any], batch: Batch) -> Tensor:
    """Return the cross-entropy of each label in float32, (rows, length); 0 where there is none."""
    logits = model(input_ids=batch.input_ids, use_cache=False).logits
    flat = cross_entropy(logits.flatten(0, 1).float(), batch.labels.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view(batch.labels.shape)


class Training:
    """A run: model, optimizer, loader, torch's generators, and the steps done.

    Weights, gradients and the optimizer are in float32. With `dtype` bfloat16 torch's autocast computes the products in it.

    Args:
        model: a decoder of transformers in float32; it is moved to the device and trained in place.
        loader: of torch tensors (`as_torch=True`); a batch of it is what goes through the model at once.
        schedule: the learning rates.
        optimizer: made when the model is on its device; `make_optimizer` unless given.
        accumulate: batches of the loader in a step. The gradient is that of the mean over all their tokens.
        clip: largest norm of a step's gradient; None: any.
        device: where to train.
        dtype: of products.
        compile: whether torch.compile makes the model's kernels; batches of one shape then.

    Attributes:
        model: the weights as they are now.
        step: steps done.
        history: what each of them did.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: TokenLoader,
        schedule: Schedule,
        *,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] = make_optimizer,
        accumulate: int = 1,
        clip: float | None = 1.0,
        device: str | torch.device = "cpu",
        dtype: Dtype = "float32",
        compile: bool = False,
    ) -> None:
        assert accumulate >= 1, "a step needs a batch"
        self.device = torch.device(device)
        self.model, self.loader, self.schedule = model.to(self.device).train(), loader, schedule
        self.optimizer = optimizer(self.model)
        self.accumulate, self.clip, self.dtype = accumulate, clip, DTYPES[dtype]
        self.step, self.history = 0, list[Step]()
        self._forward: Callable[..., Any] = torch.compile(self.model, dynamic=False) if compile else self.model

    def run_step(self, loss: LossOf = token_loss) -> Step:
        """Take one step: `accumulate` batches forward and backward, clipping, the optimizer.

        Args:
            loss: gives the summed loss of a batch and the weight of its tokens, from the model and the batch on its device.

        Raises:
            StopIteration: the loader has come to its end.
            FloatingPointError: the loss or its gradient is no finite number; the weights are as before the step.
        """
        rate = self.schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        total, weight = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for _ in range(self.accumulate):
            batch = to_device(next(self.loader), self.device)
            with self.autocast():
                part = loss(self._forward, batch)
            part.total.backward()
            total += part.total.detach()
            weight += part.weight.detach()
        gradients = [each.grad for each in self.model.parameters() if each.grad is not None]
        weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)  # a step in which nothing has weight changes nothing
        torch._foreach_div_(gradients, weight)
        norm = nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip, norm)
        done = Step(float(total / weight), float(norm), rate)
        if not (math.isfinite(done.loss) and math.isfinite(done.norm)):
            raise FloatingPointError(f"step {self.step}: the loss is {done.loss}, the norm of its gradient {done.norm}")
        self.optimizer.step()
        self.step += 1
        self.history.append(done)
        return done

    def autocast(self) -> torch.autocast:
        """Return the context that batches go through the model in."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def mean_loss(self, batches: Iterable[Batch], loss: LossOf = token_loss) -> float:
        """Return the mean loss over the tokens of some batches; nothing of the run changes."""
        self.model.eval()
        total, weight = (torch.zeros((), dtype=torch.float64, device=self.device) for _ in range(2))
        for batch in batches:
            with torch.no_grad(), self.autocast():
                part = loss(self.model, to_device(batch, self.device))
            total += part.total.double()
            weight += part.weight.double()
        self.model.train()
        return float(total / weight)

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """Return all that the run is made of, as plain values and tensors (which are not copied)."""
        return {
            "step": self.step,
            "history": [list(step) for step in self.history],
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "random": {"cpu": torch.get_rng_state(), **({"cuda": torch.cuda.get_rng_state(self.device)} if self._cuda else {})},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ValueError: the loader reads other data, or in another order.
            RuntimeError: the state is of another model.
        """
        self.loader.load_state_dict(state["loader"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"]["cpu"])
        if self._cuda and "cuda" in state["random"]:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        self.step, self.history = state["step"], [Step(*step) for step in state["history"]]

    @property
    def _cuda(self) -> bool:
        return bool(self.device.type == "cuda")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with its tensors on a device; copies from page-locked memory do not wait."""

    def move(value: Any) -> Any:  # noqa: ANN401 - a tensor or None
        return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

    return Batch(
        samples=batch.samples,
        sources=batch.sources,
        sequences=batch.sequences,
        input_ids=move(batch.input_ids),
        labels=move(batch.labels),
        loss_mask=move(batch.loss_mask),
        columns={name: move(column) for name, column in batch.columns.items()},
        cu_seqlens=move(batch.cu_seqlens),
        position_ids=move(batch.position_ids),
        document_ids=move(batch.document_ids),
    )


@contextmanager
def repeatable() -> Iterator[None]:
    """Have torch use only what gives the same bits each time; on a GPU call it before the first product.

    On the CPU this changes nothing for decoders. On CUDA sums that are made in any order (of embeddings' gradients, in the
    backward of attention) are made in one, and torch.compile chooses kernels without measuring them, which costs some per cent.
    """
    import torch._inductor.config as inductor  # two seconds, which reading a recipe need not wait for

    before, fill = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS takes what is free, and sums differ
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs time, and nothing here reads such memory
    try:
        with inductor.patch(deterministic=True):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill
