"""The recipe of a reference model: what to train, on which documents of a build, for how long.

Reads a YAML file; writes nothing. torch is not imported here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from jobs.config.parameters import build
from jobs.config.yaml_nodes import load_node
from jobs.reference.llama import Shape, Size

Scalar = str | int | float | bool
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a document must be to be trained on, by a column of the token shards; where it is null a document is not.

    Args:
        column: its name, such as `language`; `shards: {columns: [...]}` keeps further ones.
        equal: the value it must have.
        at_least: the smallest number allowed.
        at_most: the largest number allowed.
    """

    column: str
    equal: Scalar | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        between = self.at_least is not None or self.at_most is not None
        if (self.equal is not None) == between:
            raise ValueError("give a condition either `equal`, or `at_least` and `at_most` or one of them")

    def __str__(self) -> str:
        if self.equal is not None:
            return f"{self.column} == {self.equal!r}"
        low = "" if self.at_least is None else f"{_plain(self.at_least)} <= "
        return f"{low}{self.column}" + ("" if self.at_most is None else f" <= {_plain(self.at_most)}")


def _plain(number: float) -> str:
    """Return a number without the `.0` of a whole one."""
    return str(int(number)) if float(number).is_integer() else str(number)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What training begins with: one of the three.

    Args:
        size: of a Llama with random weights, by name.
        shape: the same, by its dimensions.
        base: folder of a model to go on from, as transformers saves it; its tokenizer must be the build's.
    """

    size: Size | None = None
    shape: Shape | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("size", "shape", "base") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give one of size ({', '.join(get_args(Size))}), shape and base; found {' and '.join(given) or 'none'}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training of a reference model.

    Args:
        output: folder of the result: `model/` in it opens with transformers.
        build: a build of tokens: its output folder, a `builds/<id>` in it, or any URL that the reader opens.
        model: what training begins with.
        documents: the conditions that a document must all fulfil to be trained on; none: all documents are.
        held_out: share of these documents that is not trained on, but measured.
        length: tokens of a sequence.
        batch_tokens: tokens of a step; a multiple of `length`.
        rows: sequences that go through the model at once; a divisor of a step's.
        epochs: how often each token is seen; where `steps` is given that counts instead.
        steps: how many steps to take.
        peak: the highest learning rate.
        warm_up: share of the steps in which the rate rises to it.
        floor: rate of the last step, as a share of the peak; between them it follows a cosine.
        weight_decay: of matrices (AdamW).
        clip: largest norm of a gradient.
        seed: of the random weights, the order and what is held out.
        device: `auto` takes the GPU where there is one.
        dtype: of products; weights and optimizer are in float32. null: bfloat16 on a GPU, float32 elsewhere.
        compile: whether torch.compile makes the kernels. null: on a GPU.
        checkpoint_every: steps from one checkpoint, and one evaluation, to the next.
    """

    output: str
    build: str
    model: Start
    documents: tuple[Condition, ...] = ()
    held_out: float = 0.01
    length: int = 1024
    batch_tokens: int = 65_536
    rows: int = 8
    epochs: float = 1.0
    steps: int | None = None
    peak: float = 1e-3
    warm_up: float = 0.02
    floor: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    device: Device = "auto"
    dtype: Literal["float32", "bfloat16"] | None = None
    compile: bool | None = None
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("output", "build"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} must name a folder, found nothing")
        for name in ("length", "rows", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_tokens < 1 or self.batch_tokens % self.length:
            raise ValueError(f"batch_tokens is {self.batch_tokens}; it must be a multiple of the length, {self.length}")
        if self.batch_rows % self.rows:
            raise ValueError(f"rows is {self.rows}; it must be a divisor of the {self.batch_rows} sequences of a step")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        for name in ("epochs", "peak", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a number above 0")
        for name in ("warm_up", "floor", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must be from 0 to below 1")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed is {self.seed}; it must be from 0 to below 2^63")

    @property
    def batch_rows(self) -> int:
        """Sequences of a step."""
        return self.batch_tokens // self.length


def read_recipe(path: str) -> Recipe:
    """Return the recipe of a YAML file.

    Raises:
        UserError: one message about the first mistake, with its place.
    """
    return build(Recipe, load_node(path), "recipe")
