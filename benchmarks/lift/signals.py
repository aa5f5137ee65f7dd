"""What the base and the reference model say of each token of a build, stored beside it; and what selections make of that.

Reads a build's token shards; writes sidecars: of a model `ref_loss.<model>` and `entropy.<model>` (float16, nats), by the engine
that stage `score_lm` runs; of a seed's policies `score.excess-<seed>` (float16, base minus reference) and `score.random-<seed>`
(float32).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.format.sidecar_writer import SidecarWriter, write_sidecar
from gristmill.models.causal_lm.engine import Engine
from gristmill.models.causal_lm.loading import Loaded
from gristmill.models.causal_lm.packs import Shape
from gristmill.models.protocols import Scorer
from gristmill.signals import entropy_column, loss_column, score_column

PACK = 4096  # tokens that go through a model at once

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Columns:
    """The names of a seed's models and columns; `cap`: the reference loss that a fifth of the train set is above."""

    base: str
    reference: str
    excess: str
    random: str
    cap: float

    def all(self) -> list[str]:
        """Return the names of all columns."""
        models = [name(model) for model in (self.base, self.reference) for name in (loss_column, entropy_column)]
        return [*models, self.excess, self.random]


def scorer_of(model: Any, length: int) -> Scorer:  # noqa: ANN401 - transformers is not typed here
    """Return what scores documents by a decoder in memory, in float32, which then serves for nothing else.

    Windows are as long as the sequences that the model was trained on, and overlap by a quarter. Nothing stands before a
    document's first token, so that it has no value.
    """
    model.eval().requires_grad_(False)
    model.config.use_cache = False
    loaded = Loaded(
        body=model.model,
        head=model.lm_head.weight,
        head_bias=None,
        config=model.config,
        tokenizer_json=None,
        bos_id=None,
        eos_id=None,
        length_limit=length,
        logit_scale=1.0,
        logit_softcap=None,
        sha256="",
    )
    return Engine(loaded, Shape(window=length, overlap=length // 4, pack=max(PACK, length), first=None, every_window=False))


def store_model(scorer: Scorer, name: str, build: Path) -> None:
    """Score a build and keep the signals of a model beside it."""

    def columns(ids: npt.NDArray[Any], bounds: npt.NDArray[np.int64]) -> dict[str, Halves]:
        found = scorer.score(ids, bounds)
        assert found.entropy is not None and not found.errors, found.errors
        return {loss_column(name): found.nll.astype(np.float16), entropy_column(name): found.entropy.astype(np.float16)}

    write_sidecar(build, name, dict.fromkeys((loss_column(name), entropy_column(name)), "float16"), columns)


def store_policies(build: Path, seed: int, base: Halves, reference: Halves) -> tuple[str, str]:
    """Keep base minus reference, and random numbers, beside a build; return the names of the two columns.

    Args:
        build: of one shard.
        seed: of the run.
        base: losses under the base model, [tokens], as they were stored.
        reference: the same under the reference model.
    """
    excess, random = score_column(f"excess-{seed}"), score_column(f"random-{seed}")
    with SidecarWriter(build, f"policies-{seed}", {excess: "float16", random: "float32"}) as writer:
        assert len(writer.manifest.shards) == 1
        drawn = np.random.default_rng([seed, 3]).random(len(base), np.float32)
        drawn[np.isnan(base)] = np.nan
        writer.write(0, {excess: (base.astype(np.float32) - reference).astype(np.float16), random: drawn})
    return excess, random
