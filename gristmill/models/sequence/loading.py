"""A classifier of sequences in memory: model, tokenizer, labels and length; all that is wrong is an error.

Reads the files that `causal_lm.weights` finds, through transformers; writes nothing. What transformers only warns of is checked
here: a head that is missing in the files (it would make one up at random), a tokenizer that is not the model's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gristmill.errors import InputError
from gristmill.models.causal_lm import tokenizer_of
from gristmill.models.causal_lm.loading import complete, quiet, translated
from gristmill.models.causal_lm.weights import CONFIG, Files, find
from gristmill.tokenizer.library_calls import library_call

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel

HEADS = "ForSequenceClassification"
TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class Loaded:
    """A model in memory, in eval mode and without gradients.

    Attributes:
        model: transformers' own class with its head; gives `logits` [texts, labels].
        tokenizer: of the tokenizers library; adds what the model was trained to see around a text.
        labels: as its config names them.
        problem: its config's `problem_type`; None where it has none.
        length_limit: tokens of the longest text, those around it included, that its files say it takes; None: no limit.
        sha256: of the files, hex, see `Files.sha256`.
    """

    model: Any
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    problem: str | None
    length_limit: int | None
    sha256: str


def load(path: str, *, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Return the model at `path`.

    Args:
        path: see `causal_lm.weights.find`; a GGUF has no head for sequences.
        dtype: of the weights in memory, whatever that of the files.
        device: where they are to be.

    Raises:
        InputError: nothing is there; files are missing or damaged; a model of another kind, or saved without its head; no
            tokenizer, or one with ids that the model does not have; labels that are not told apart.
        ConnectionError, PermissionError: the server of a URL.
        torch.OutOfMemoryError: it does not fit.
    """
    files = find(path)
    config = _config(files, path)
    model = _model(files, path, config, dtype).to(device).eval().requires_grad_(False)
    labels = tuple(str(config.id2label[number]) for number in range(config.num_labels))
    if len(set(labels)) < len(labels):
        raise InputError(f"model {path!r}: {CONFIG} gives two of its {len(labels)} labels one name in id2label; rename them")
    tokenizer = _tokenizer(files, path, model.get_input_embeddings().num_embeddings)
    return Loaded(model, tokenizer, labels, config.problem_type, _limit(files, config), files.sha256())


def _config(files: Files, path: str) -> PretrainedConfig:
    """Return the config, of a model with a head for sequences."""
    from transformers import AutoConfig

    advice = f"give a folder with a model for sequences, such as Bert{HEADS}"
    if files.gguf is not None:
        raise InputError(f"model {path!r}: is a GGUF file, which holds no head for sequences; {advice}")
    with translated(path, "its config cannot be used"), quiet():
        config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    named = files.json(CONFIG).get("architectures") or []
    if not any(name.endswith(HEADS) for name in named):
        found = ", ".join(named) or type(config).__name__
        raise InputError(f"model {path!r}: {CONFIG} is of {found}, which has no head for whole sequences; {advice}")
    return config


def _model(files: Files, path: str, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForSequenceClassification

    return complete(AutoModelForSequenceClassification, files, path, config, dtype, use_safetensors=True)


def _tokenizer(files: Files, path: str, embeddings: int) -> Tokenizer:
    """Return the tokenizer; its truncation and padding are left out."""
    from tokenizers import Tokenizer

    text = tokenizer_of.read(files, path)
    if text is None:
        raise InputError(f"model {path!r}: has no tokenizer; put the model's {tokenizer_of.STANDARD} into its folder")
    with library_call(lambda error: InputError(f"model {path!r}: its {tokenizer_of.STANDARD} cannot be read: {error}")):
        tokenizer = Tokenizer.from_str(text)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if largest >= embeddings:
        raise InputError(
            f"model {path!r}: its tokenizer has ids up to {largest}, but it has embeddings of {embeddings}: vocabulary mismatch; "
            "give the tokenizer that the model was trained with"
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _limit(files: Files, config: PretrainedConfig) -> int | None:
    """Return the tokens of the longest text: the least that config and tokenizer say."""
    given = (getattr(config, "max_position_embeddings", None), files.json(TOKENIZER_CONFIG).get("model_max_length"))
    # Where it is unknown, transformers writes 10**30.
    said = [int(each) for each in given if isinstance(each, int | float) and 0 < each < math.inf and each < 1 << 31]
    return min(said, default=None)
