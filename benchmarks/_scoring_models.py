"""What `benchmarks.scoring_gpu` runs: Llamas with random weights at the shapes of known ones, documents of random tokens, FLOPs.

Reads the lengths of documents from a build of the demo where there is one; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from gristmill.models.causal_lm.engine import Engine
from gristmill.models.causal_lm.loading import Loaded
from gristmill.models.causal_lm.packs import Shape
from jobs.reference import llama

BUILDS = Path(__file__).parents[1] / "build" / "demo" / "builds"
WINDOW = 2048
# Where there is no build: half the documents above 400 tokens, a tenth above 1,600, as on the web.
MEDIAN, SIGMA = 400.0, 1.1


@dataclass(frozen=True)
class Size:
    """The shape of a Llama."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool


SIZES = {
    "1.1b": Size(2048, 5632, 22, 32, 4, 32_000, False),  # TinyLlama
    "135m": Size(576, 1536, 30, 9, 3, 49_152, True),  # SmolLM2
    "tiny": Size(128, 384, 2, 4, 2, 4096, False),
}


@dataclass(frozen=True)
class Documents:
    """Random tokens, document after document, and where they come to an end."""

    ids: npt.NDArray[np.uint32]
    bounds: npt.NDArray[np.int64]
    origin: str

    def lengths(self) -> npt.NDArray[np.int64]:
        """Return how many tokens each has."""
        return np.diff(self.bounds)


def make_model(size: Size, device: str, dtype: torch.dtype) -> Any:  # noqa: ANN401 - transformers is not typed here
    """Return a `transformers.LlamaForCausalLM` with random weights, on the device."""
    shape = llama.Shape(
        hidden=size.hidden,
        layers=size.layers,
        heads=size.heads,
        kv_heads=size.kv_heads,
        intermediate=size.intermediate,
        tied=size.tied,
    )
    model = llama.make_llama(shape, size.vocabulary, length=WINDOW, seed=0).to(device, dtype).eval()
    for each in (model.config, model.model.config):
        each.use_cache = False
    return model


def make_engine(model: Any, pack: int, *, compile: bool) -> Engine:  # noqa: ANN401
    """Return our engine on the same weights: one pack a forward, no token before a document."""
    loaded = Loaded(
        body=model.model,
        head=model.lm_head.weight.detach(),
        head_bias=None,
        config=model.config,
        tokenizer_json=None,
        bos_id=None,
        eos_id=None,
        length_limit=WINDOW,
        logit_scale=1.0,
        logit_softcap=None,
        sha256="random",
    )
    return Engine(loaded, Shape(window=WINDOW, overlap=0, pack=pack), entropy=True, compile=compile, batch=1)


def make_documents(tokens: int, vocabulary: int, *, part: int = 1, builds: Path = BUILDS) -> Documents:
    """Return documents of about this many tokens in all, each of one window at most, in the order in which they arrive.

    Args:
        tokens: of all of them.
        vocabulary: ids are drawn from all of it.
        part: each is cut down to this part of its length.
        builds: where builds of the demo are.
    """
    rng = np.random.default_rng(0)
    known = _lengths(builds)
    origin = f"lengths of the demo's {len(known)} documents" if len(known) else "log-normal lengths"
    lengths = np.clip(_repeated(known, tokens * part, rng), 2 * part, WINDOW) // part
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), tokens)) + 1]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    return Documents(
        rng.integers(0, vocabulary, bounds[-1], dtype=np.uint32),
        bounds,
        f"{origin}, at most {WINDOW} tokens" + f", 1/{part} of each" * (part > 1),
    )


def _repeated(known: npt.NDArray[np.int64], tokens: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if not len(known):
        return rng.lognormal(np.log(MEDIAN), SIGMA, tokens // 50 + 1).astype(np.int64)  # 50: far below their mean
    rounds = tokens // max(int(np.clip(known, 2, WINDOW).sum()), 1) + 1
    return np.concatenate([known, *(rng.permutation(known) for _ in range(rounds))])


def _lengths(builds: Path) -> npt.NDArray[np.int64]:
    """Return the tokens of each document of the newest build that has tokens."""
    shards: Sequence[Path] = sorted(builds.glob("*/tokens-*.arrow"))
    if not shards:
        return np.empty(0, np.int64)
    newest = max(shards, key=lambda path: path.stat().st_mtime).parent
    found = []
    for path in sorted(newest.glob("tokens-*.arrow")):
        with pa.memory_map(str(path)) as file:
            column = pa.ipc.open_file(file).read_all()["input_ids"]
            found += [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
    return np.concatenate(found).astype(np.int64)


def flops(size: Size, lengths: npt.NDArray[np.int64]) -> float:
    """Return what scoring documents takes at least: products with each weight of body and head, and causal attention.

    A token costs 2 N_body + 2 d V; attention of a document of S tokens costs 4 d S(S+1)/2 a layer, queries with keys and
    probabilities with values.
    """
    head_width = size.hidden // size.heads
    layer = size.hidden * (2 * size.hidden + 2 * head_width * size.kv_heads + 3 * size.intermediate)
    token = 2 * size.layers * layer + 2 * size.hidden * size.vocabulary
    squares = float((lengths * (lengths + 1)).sum())
    return float(lengths.sum()) * token + 2 * size.layers * size.hidden * squares
