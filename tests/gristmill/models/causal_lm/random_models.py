"""Small decoders of random weights in memory, documents for them, and what transformers itself says of these, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from gristmill.models.causal_lm.engine import Engine
from gristmill.models.causal_lm.loading import Loaded
from gristmill.models.causal_lm.packs import Shape

VOCABULARY = 97
FIRST = 1
SLIDING = 12
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SMALL_HEADS = {**SIZES, "head_dim": 8}
MIXED = {"sliding_window": SLIDING, "layer_types": ["sliding_attention", "full_attention"]}
STATES = {
    "hidden_size": 32,
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "state_size": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "gemma-3": lambda: transformers.Gemma3TextConfig(**SMALL_HEADS, **MIXED),
    "qwen-3": lambda: transformers.Qwen3Config(**SMALL_HEADS),
    "mistral-sliding": lambda: transformers.MistralConfig(**SIZES, sliding_window=SLIDING),
    "gemma-2-softcap": lambda: transformers.Gemma2Config(**SMALL_HEADS, **MIXED, attn_logit_softcapping=2.0),
    "gpt-2": lambda: transformers.GPT2Config(**GPT2),
    "cohere-scaled": lambda: transformers.CohereConfig(**SIZES, logit_scale=0.25),
}
# Those that cannot run packed, and a word of the reason.
ALONE: dict[str, tuple[Any, str]] = {
    "mixtral": (lambda: transformers.MixtralConfig(**SIZES, num_local_experts=4), "experts"),
    "mamba": (lambda: transformers.MambaConfig(**STATES), "linear_attention"),
    "bloom": (
        lambda: transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "an attention of its own",
    ),
}


def make(config: Any, seed: int = 0) -> Any:
    """Return a model whose losses are not all alike."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def in_memory(model: Any) -> Loaded:
    """Return what `loading.load` would of its files."""
    config, head = model.config, model.get_output_embeddings()
    return Loaded(
        body=model.get_decoder(),
        head=head.weight.detach(),
        head_bias=head.bias,
        config=config,
        tokenizer_json=None,
        bos_id=1,
        eos_id=2,
        length_limit=getattr(config, "max_position_embeddings", None),
        logit_scale=float(getattr(config, "logit_scale", None) or 1.0),
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        sha256="0" * 64,
    )


def shape(**changes: Any) -> Shape:
    return Shape(**({"window": 48, "overlap": 12, "pack": 96, "first": FIRST} | changes))


def engine(model: Any, **options: Any) -> Engine:
    return Engine(in_memory(model), options.pop("shape", shape()), **options)


def documents(count: int = 14, longest: int = 44, seed: int = 0) -> list[npt.NDArray[np.uint16]]:
    """Return documents of 1 to `longest` tokens."""
    draw = np.random.default_rng(seed)
    return [draw.integers(3, VOCABULARY, draw.integers(1, longest + 1)).astype(np.uint16) for _ in range(count)]


def flat(docs: Sequence[npt.NDArray[np.uint16]]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    """Return ids and bounds."""
    return np.concatenate([np.zeros(0, np.uint16), *docs]), np.cumsum([0, *map(len, docs)])


def one_by_one(
    model: Any, docs: Sequence[npt.NDArray[np.uint16]], first: int = FIRST
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return losses and entropies, float64, from transformers' own logits of one whole document at a time, eager."""
    if model._can_set_attn_implementation():
        model.set_attn_implementation("eager")
    losses, entropies = [], []
    for doc in docs:
        targets = torch.from_numpy(doc.astype(np.int64))
        ids = torch.cat([torch.tensor([first]), targets[:-1]])
        with torch.no_grad():
            logs = model(input_ids=ids[None], use_cache=False).logits[0].double().log_softmax(-1)
        losses.append(-logs.gather(1, targets[:, None])[:, 0])
        entropies.append(-(logs.exp() * logs).sum(-1))
    return torch.cat(losses).numpy(), torch.cat(entropies).numpy()


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return values.view(np.uint32)
