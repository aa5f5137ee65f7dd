"""What goes wrong without a word when documents are packed the plain way: each trap is shown open first, then passed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from gristmill.models.causal_lm.body import make_body
from tests.gristmill.models.causal_lm.random_models import (
    CONFIGS,
    FIRST,
    SIZES,
    SLIDING,
    VOCABULARY,
    documents,
    engine,
    flat,
    make,
    one_by_one,
    shape,
)

THREE = ["llama", "gemma-3", "qwen-3"]
CPU = torch.device("cpu")


def naive(model: Any, docs: list[Any], **options: Any) -> np.ndarray:
    """Documents in one row, told apart by their positions alone; losses, float64."""
    model.set_attn_implementation("eager")
    targets = torch.from_numpy(np.concatenate(docs).astype(np.int64))
    inputs = torch.from_numpy(np.concatenate([np.concatenate([[FIRST], doc[:-1]]) for doc in docs]).astype(np.int64))
    positions = torch.cat([torch.arange(len(doc)) for doc in docs])
    with torch.no_grad():
        logits = model(input_ids=inputs[None], position_ids=positions[None], **options).logits[0].double()
    return -logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].numpy()


def worst(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("name", THREE)
@pytest.mark.parametrize(
    "options",
    [{"use_cache": True}, {"use_cache": False, "attention_mask": "ones"}, {}],
    ids=["cache", "mask", "as it comes"],
)
def test_positions_alone_do_not_keep_documents_apart(name: str, options: dict[str, Any]) -> None:
    model, docs = make(CONFIGS[name]()), documents(5, longest=16)
    given = {
        key: torch.ones(1, sum(map(len, docs)), dtype=torch.int64) if value == "ones" else value for key, value in options.items()
    }
    nll, _ = one_by_one(model, docs)
    assert worst(naive(model, docs, **given), nll) > 0.3, "the trap is open"
    assert worst(engine(model).score(*flat(docs)).nll, nll) < 1e-5
    assert worst(naive(model, docs, attention_mask=None, use_cache=False), nll) < 1e-5, "what remedies it in transformers itself"


@pytest.mark.parametrize("name", THREE)
def test_the_body_is_never_given_a_mask_or_a_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, docs = make(CONFIGS[name]()), documents(5)
    model.config.use_cache = True
    ours, calls = engine(model), list[dict[str, Any]]()
    plain = ours.model.body.forward
    monkeypatch.setattr(ours.model.body, "forward", lambda **given: calls.append(given) or plain(**given))
    ours.score(*flat(docs))
    assert calls and all(given["attention_mask"] is None and given["use_cache"] is False for given in calls)


def test_padding_beside_a_document_changes_nothing() -> None:
    model, docs = make(CONFIGS["gemma-3"]()), documents(1, longest=8)
    nll, _ = one_by_one(model, docs)
    assert worst(engine(model, shape=shape(pack=640)).score(*flat(docs)).nll, nll) < 1e-5


@pytest.mark.parametrize("name", ["mistral-sliding", "gemma-3"])
def test_a_sliding_window_is_kept_inside_documents(name: str) -> None:
    model, docs = make(CONFIGS[name]()), [np.resize(doc, 40) for doc in documents(3)]
    nll, _ = one_by_one(model, docs)
    assert worst(engine(model).score(*flat(docs)).nll, nll) < 1e-5
    config = CONFIGS[name]()
    config.sliding_window = None if name == "mistral-sliding" else 1000
    assert worst(one_by_one(make(config), docs)[0], nll) > 0.1, f"these documents are longer than {SLIDING} tokens"


def test_attention_with_a_softcap_is_not_plain_attention() -> None:
    config, docs = CONFIGS["gemma-2-softcap"](), documents(3)
    nll, _ = one_by_one(make(config), docs)
    assert worst(engine(make(config)).score(*flat(docs)).nll, nll) < 1e-5
    config.attn_logit_softcapping = None
    assert worst(one_by_one(make(config), docs)[0], nll) > 0.01


def test_a_state_runs_on_from_one_document_into_the_next() -> None:
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4)
    model, docs = make(config), documents(4, longest=12)
    nll, _ = one_by_one(model, docs)
    inputs = torch.from_numpy(np.concatenate([np.concatenate([[FIRST], doc[:-1]]) for doc in docs]).astype(np.int64))
    with torch.no_grad():
        logs = model(input_ids=inputs[None], use_cache=False).logits[0].double().log_softmax(-1)
    targets = torch.from_numpy(np.concatenate(docs).astype(np.int64))
    assert worst(-logs.gather(1, targets[:, None])[:, 0].numpy(), nll) > 0.1, "the trap is open"
    assert worst(engine(model).score(*flat(docs)).nll, nll) < 1e-5


def test_one_long_window_does_not_turn_the_others_by_its_angles() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4}
    config = transformers.Phi3Config(**SIZES, rope_parameters=rope, original_max_position_embeddings=16)
    model, docs = make(config), documents(6)
    assert config.rope_parameters["original_max_position_embeddings"] == 16 < max(map(len, docs))
    nll, _ = one_by_one(model, docs)
    assert worst(naive(model, docs, attention_mask=None, use_cache=False), nll) > 0.1, "the trap is open"
    ours = engine(model)
    assert "longrope" in ours.body.alone and worst(ours.score(*flat(docs)).nll, nll) < 1e-5
    small = [doc[:16] for doc in docs]
    packed = engine(model, shape=shape(window=16, overlap=4))
    assert not packed.body.alone and worst(packed.score(*flat(small)).nll, one_by_one(model, small)[0]) < 1e-5


def test_models_are_tried_before_they_are_packed() -> None:
    class Leaky(transformers.LlamaModel):
        """A model that mixes a little of the token before into each, whatever document that is of."""

        def forward(self, **given: Any) -> Any:
            out = super().forward(**given)
            hidden = out.last_hidden_state
            out.last_hidden_state = hidden + 1e-4 * torch.nn.functional.pad(hidden, (0, 0, 1, 0))[:, :-1]
            return out

    class Chunked(transformers.LlamaModel):
        """A model whose layers ask their attention for what only its mask says."""

        def forward(self, **given: Any) -> Any:
            return super().forward(**given, attention_chunk_mask=torch.ones(1))

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES)
    assert make_body(transformers.LlamaModel(config), CPU, 48).alone == ""
    leaky = make_body(Leaky(config), CPU, 48)
    assert leaky.alone == "its hidden states depend on the tokens beside a window in a packed row"
    assert "attention asks for attention_chunk_mask" in make_body(Chunked(config), CPU, 48).alone


def test_layers_that_only_their_mask_makes_slide_are_found() -> None:
    config = transformers.LlamaConfig(**SIZES)
    config.layer_types = ["sliding_attention", "full_attention"]
    reason = make_body(transformers.LlamaModel(config), CPU, 48).alone
    assert reason == "0 of its 1 layers with a sliding window say so to their attention"
    config.layer_types = ["chunked_attention", "full_attention"]
    assert "layers of the kind chunked_attention" in make_body(transformers.LlamaModel(config), CPU, 48).alone
