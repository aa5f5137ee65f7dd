"""A causal language model's body, head, tokenizer and length, whatever the form of its files; all that is wrong is an error.

Reads the files that `weights` finds, through transformers; writes nothing. What transformers only warns of, or does silently, is
checked here: weights that are missing in the files (it would make them up at random), models whose attention looks ahead, heads
that do more than multiply. How logits come out of hidden states is not taken on trust from the config: the model's own forward
pass over a few tokens must give what `head`, `head_bias`, `logit_scale` and `logit_softcap` say it gives.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gristmill.errors import InputError
from gristmill.models.causal_lm import tokenizer_of
from gristmill.models.causal_lm.weights import CONFIG, Files, find

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier")  # Cohere; Falcon-H1; Muse: logits times this
SCALES_EITHER_WAY = ("logits_scaling",)  # Granite divides by it, HyperCLOVA X multiplies
SOFTCAP = "final_logit_softcapping"  # Gemma 2 and later
PROBE = 8  # tokens
# What transformers and the readers of files raise on damaged, unknown or unfit ones; it has no exceptions of its own.
FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError, struct.error)
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # of the logits' own size


@dataclass(frozen=True)
class Loaded:
    """A model in memory, ready to be run on packs of tokens.

    Attributes:
        body: called with input_ids, position_ids and the like; its result has `last_hidden_state` [1, tokens, d]. In eval mode,
            without gradients, `use_cache` off.
        head: [V, d]; the body's own embedding where the two are tied.
        head_bias: [V], or None.
        config: transformers' config of the text model.
        tokenizer_json: text of its tokenizer.json, made from other files where it has none; None where there is no tokenizer.
        bos_id: the first token of a text, or None where nothing says it.
        eos_id: the token between documents, or None.
        length_limit: tokens of the longest text it takes, or None for no limit.
        logit_scale: logits = scale · (hidden · headᵀ + bias).
        logit_softcap: logits = cap · tanh(logits / cap) after that, or None.
        sha256: of the files, hex, see `Files.sha256`.
    """

    body: nn.Module
    head: Tensor
    head_bias: Tensor | None
    config: Any
    tokenizer_json: str | None
    bos_id: int | None
    eos_id: int | None
    length_limit: int | None
    logit_scale: float
    logit_softcap: float | None
    sha256: str

    @property
    def vocab_size(self) -> int:
        """Return the number of ids that the head tells apart."""
        return int(self.head.shape[0])


def load(path: str, *, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Return the model at `path`.

    Args:
        path: see `weights.find`.
        dtype: of the weights in memory, whatever that of the files; quantised GGUF tensors are unpacked to it.
        device: where they are to be.

    Raises:
        InputError: nothing is there; files are missing or damaged; an architecture that transformers does not know or that is
            no decoder; a head that is missing or not understood; a tokenizer with more tokens than the head.
        ConnectionError, PermissionError: the server of a URL.
        torch.OutOfMemoryError: it does not fit.
    """
    files = find(path)
    config = _config(files, path)
    model = _model(files, path, config, dtype).to(device).eval().requires_grad_(False)
    body, head = _parts(model, path)
    scale, softcap = _formula(model, body, head, path)
    tokenizer = tokenizer_of.read(files, path)
    rows = int(head.weight.shape[0])
    if tokenizer is not None:
        tokenizer_of.check(tokenizer, rows, path)
    text_config = config.get_text_config(decoder=True)
    bos, eos = (tokenizer_of.special(files, config, tokenizer, kind, rows) for kind in ("bos", "eos"))
    limit = getattr(text_config, "max_position_embeddings", None)
    return Loaded(
        body=body,
        head=head.weight,
        head_bias=head.bias,
        config=text_config,
        tokenizer_json=tokenizer,
        bos_id=bos,
        eos_id=eos,
        length_limit=int(limit) if limit else None,
        logit_scale=scale,
        logit_softcap=softcap,
        sha256=files.sha256(),
    )


def _config(files: Files, path: str) -> PretrainedConfig:
    """Return the config, of a decoder with a head for the next token."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    with translated(path, "its config cannot be used"), quiet():
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False, **_gguf(files))
    where = f"model {path!r}: {CONFIG if files.gguf is None else files.gguf}"
    named = files.json(CONFIG).get("architectures") or []
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (named and not known.intersection(named)):
        raise InputError(
            f"{where} is of {', '.join(named) or type(config).__name__}, which has no head that predicts the next token; give a "
            "decoder that was saved with its head, such as LlamaForCausalLM"
        )
    return config


def _model(files: Files, path: str, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    more = {"use_safetensors": True} if files.gguf is None else _gguf(files)
    model = complete(AutoModelForCausalLM, files, path, config, dtype, **more)
    model.config.use_cache = False
    return model


def complete(
    auto: Any,  # noqa: ANN401 - one of transformers' classes AutoModelFor...
    files: Files,
    path: str,
    config: PretrainedConfig,
    dtype: torch.dtype,
    **more: Any,  # noqa: ANN401 - of its from_pretrained
) -> PreTrainedModel:
    """Return the model of these files with its head. Raises InputError where weights are missing or cannot be loaded."""
    with translated(path, "its weights cannot be loaded"), quiet():
        model, info = auto.from_pretrained(
            files.folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    missing = sorted({*map(str, info["missing_keys"]), *map(str, info["mismatched_keys"])})
    if missing or info["error_msgs"]:
        raise InputError(
            f"model {path!r}: its files lack {len(missing)} of the weights that {type(model).__name__} has, such as "
            f"{', '.join(missing[:3])}; it was saved without its head, or is of another architecture than its config says. "
            "Give a complete model"
        )
    found: PreTrainedModel = model
    return found


def _parts(model: PreTrainedModel, path: str) -> tuple[nn.Module, nn.Linear]:
    """Return the decoder without its head, and the head."""
    body, head = model.get_decoder(), model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise InputError(f"model {path!r}: {type(model).__name__} has no head that is one matrix; give another model")
    body.config.use_cache = False
    return body, head


# ---- how logits come out of hidden states ----


def _formula(model: PreTrainedModel, body: nn.Module, head: nn.Linear, path: str) -> tuple[float, float | None]:
    """Return the scale and the softcap with which the head gives the model's own logits, found by comparing them."""
    ids = (torch.arange(PROBE + 1, device=head.weight.device) * 7919 + 1) % head.weight.shape[0]
    hidden, logits = _traced(model, body, ids[None, :-1])
    changed = ids[:-1].clone()
    changed[-1] = ids[-1]
    if not torch.allclose(_traced(model, body, changed[None])[0][:-1], hidden[:-1], rtol=1e-3, atol=1e-5):
        raise InputError(
            f"model {path!r}: what {type(model).__name__} says of a token depends on later ones: it is no decoder "
            "(but an encoder, or is_decoder is not set); give a model that was trained to predict the next token"
        )
    config = model.config.get_text_config(decoder=True)
    softcap = getattr(config, SOFTCAP, None)
    plain = nn.functional.linear(hidden, head.weight.double(), None if head.bias is None else head.bias.double())
    for scale in _scales(config):
        ours = plain * scale if softcap is None else softcap * torch.tanh(plain * scale / softcap)
        if torch.linalg.norm(ours - logits) <= TOLERANCE[head.weight.dtype] * torch.linalg.norm(logits):
            return scale, None if softcap is None else float(softcap)
    raise InputError(
        f"model {path!r}: {type(model).__name__} does something to its logits that is not known here (known are a scale: "
        f"{', '.join(SCALES + SCALES_EITHER_WAY)}; and {SOFTCAP}); give a model of another architecture"
    )


def _scales(config: PretrainedConfig) -> Iterator[float]:
    for name in SCALES + SCALES_EITHER_WAY:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            yield from (1 / value, float(value)) if name in SCALES_EITHER_WAY else (float(value),)
    yield 1.0


def _traced(model: PreTrainedModel, body: nn.Module, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the body gave in a forward pass of the whole model, float64 [tokens, d], and the logits [tokens, V]."""
    found: list[Tensor] = []
    handle = body.register_forward_hook(lambda _module, _inputs, output: found.append(output[0]))
    try:
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    return found[-1][0].double(), logits[0].double()


# ---- transformers' manners ----


def _gguf(files: Files) -> Mapping[str, str]:
    return {} if files.gguf is None else {"gguf_file": files.gguf}


@contextlib.contextmanager
def translated(path: str, what: str) -> Iterator[None]:
    """Raise an InputError of what transformers says when files are at fault."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (*FAULTS, SafetensorError) as error:
        message = " ".join(str(error).split())[:400]
        raise InputError(
            f"model {path!r}: {what} ({type(error).__name__}: {message}); give a model that transformers loads"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing warnings and progress bars: what matters is an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
