"""Small random models as transformers saves them, opened by us, and the losses of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from gristmill.models.causal_lm.head import head_losses
from gristmill.models.causal_lm.loading import Loaded, load

CPU = torch.device("cpu")
VOCABULARY = 100
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def made(config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def loaded(folder: Path | str, dtype: torch.dtype = torch.float32) -> Loaded:
    return load(str(folder), dtype=dtype, device=CPU)


def ids_and_targets() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, VOCABULARY, (24,), generator=torch.Generator().manual_seed(1))
    return ids[:-1], ids[1:]


def said_by(model: Any) -> torch.Tensor:
    """Return the losses that transformers' logits give, in float64."""
    ids, targets = ids_and_targets()
    with torch.inference_mode():
        logits = model(input_ids=ids[None], use_cache=False).logits[0].double()
    return -torch.log_softmax(logits, 1)[torch.arange(len(targets)), targets]


def ours(model: Loaded, **instead: Any) -> torch.Tensor:
    ids, targets = ids_and_targets()
    with torch.inference_mode():
        hidden = model.body(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    how = {"bias": model.head_bias, "scale": model.logit_scale, "softcap": model.logit_softcap} | instead
    return head_losses(hidden, model.head, targets, entropy=False, **how)[0].double()
