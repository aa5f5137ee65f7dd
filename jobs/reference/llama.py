"""Llama-style decoders by size, with random weights: what `train-reference` begins with where there is no base model.

Reads and writes nothing; torch and transformers are imported when a model is made, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Size = Literal["15m", "30m", "135m", "1b"]
STD = 0.02  # of random weights


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a Llama is made of (Touvron et al. 2023): pre-norm blocks, rotary positions, grouped queries, gated feed-forward.

    Args:
        hidden: width of the residual stream; a multiple of twice `heads`.
        layers: blocks.
        heads: of attention.
        kv_heads: that keys and values have; a divisor of `heads`.
        intermediate: width of the feed-forward layers.
        tied: whether the head is the embedding.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    tied: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "kv_heads", "intermediate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden is {self.hidden}; it must be a multiple of twice the heads, {2 * self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must be a divisor of the heads, {self.heads}")

    @property
    def body(self) -> int:
        """Parameters without the embedding and the head."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * (self.hidden // self.heads * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate + 2 * self.hidden) + self.hidden

    def parameters(self, vocab_size: int) -> int:
        """Return all parameters of a model with this vocabulary."""
        return self.body + (1 if self.tied else 2) * vocab_size * self.hidden


# Named by all parameters: of the small ones with a vocabulary of 8,192, of 135m with SmolLM2's 49,152, of 1b with TinyLlama's
# 32,000, whose shapes these two are.
SIZES: Mapping[Size, Shape] = {
    "15m": Shape(hidden=384, layers=8, heads=6, kv_heads=2, intermediate=1024),
    "30m": Shape(hidden=512, layers=9, heads=8, kv_heads=4, intermediate=1408),
    "135m": Shape(hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536),
    "1b": Shape(hidden=2048, layers=22, heads=32, kv_heads=4, intermediate=5632, tied=False),
}


def shape_of(size: Size | Shape) -> Shape:
    """Return the shape that a name stands for.

    Raises:
        ValueError: no such name.
    """
    if isinstance(size, Shape):
        return size
    if size not in SIZES:
        raise ValueError(f"size is {size!r}; there are {', '.join(SIZES)}, or give a shape of {', '.join(asdict(SIZES['15m']))}")
    return SIZES[size]


def make_llama(
    size: Size | Shape, vocab_size: int, *, length: int, seed: int, bos_id: int | None = None, eos_id: int | None = None
) -> Any:  # noqa: ANN401 - transformers is not typed here
    """Return a `transformers.LlamaForCausalLM` in float32 on the CPU: the same weights for the same arguments.

    Weights are drawn with a standard deviation of 0.02; those that write into the residual stream with one smaller by the root
    of twice the layers (Radford et al. 2019). torch's own generator is left as it was.

    Args:
        size: a name in `SIZES`, or a shape.
        vocab_size: ids that there are.
        length: the longest sequence that the model is meant for.
        seed: chooses the weights.
        bos_id: that begins documents; None for none.
        eos_id: that ends documents; None for none.

    Raises:
        ValueError: an unknown size.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = shape_of(size)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=length,
        tie_word_embeddings=shape.tied,
        initializer_range=STD,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():  # drawn again, so that what the library does leaves no trace
                if weight.ndim == 2:
                    last = name.endswith(("o_proj.weight", "down_proj.weight"))
                    weight.normal_(std=STD / (2 * shape.layers) ** 0.5 if last else STD)
    return model
