"""A small GPT in plain torch, for `train_gpt.py`: pre-norm blocks, causal attention, learned positions, tied embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Take and return (rows, length, width)."""
        rows, length, width = x.shape
        parts = self.query_key_value(self.norm_attention(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (rows, heads, length, width of a head)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mix(seen.transpose(1, 2).reshape(rows, length, width))
        return x + self.forward_layers(self.norm_forward(x))


class Gpt(nn.Module):
    """Token ids to the logits of the token after each."""

    def __init__(self, vocabulary: int, length: int, *, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:  # what is added to the residual stream begins small
                last = name.endswith(("mix.weight", "forward_layers.2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * layers) ** 0.5 if last else 0.02)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Take (rows, length) int64, return (rows, length, vocabulary)."""
        x = self.tokens(input_ids) + self.places.weight[: input_ids.shape[1]]
        return self.norm(self.blocks(x)) @ self.tokens.weight.T

    def size(self) -> int:
        """Return how many parameters there are."""
        return sum(weight.numel() for weight in self.parameters())


def make_gpt(vocabulary: int, length: int, *, quick: bool) -> Gpt:
    """Return a model that a laptop trains: the same weights each time."""
    torch.manual_seed(0)
    if quick:
        return Gpt(vocabulary, length, width=32, layers=1, heads=2)
    return Gpt(vocabulary, length, width=64, layers=2, heads=4)
