"""A causal language model as a reference model: its parameters. Imports no torch until it is opened.

Reads what `path` names: a folder, an s3:// address, a GGUF file or a name on the Hugging Face hub. Writes nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gristmill.errors import InputError
from gristmill.json_values import Plain
from gristmill.models.causal_lm import weights
from gristmill.models.causal_lm.packs import Shape
from gristmill.models.protocols import Integers, Scorer, Signals

if TYPE_CHECKING:
    from gristmill.models.causal_lm.loading import Loaded

FirstToken = Literal["bos", "eos", "none"] | int
RECORD = "gristmill"  # the key of a config.json under which `jobs/reference/model.py` records how a model was trained


@dataclass(frozen=True, kw_only=True)
class CausalLm:
    """A Hugging Face decoder that scores tokens of its own vocabulary.

    Context matters most: on a real 135M model, windows of 512 tokens without overlap change 8.9% of a mask that keeps 60%, with
    64 tokens of overlap 4.0%.

    Attributes:
        path: folder, s3:// address, file.gguf, or name on the hub.
        window: tokens that the model sees at once; at most what it was made for.
        overlap: tokens that a document's later windows see again as context. Each token is scored once.
        first_token: what stands before a document and predicts its first token: `bos` or `eos` as the model names them, an id, or
            none (a document's first token has NaN then). What is right depends on how the model was trained; null: what
            the model's config records of that, as `train-reference` does.
        every_window: put it before a document's later windows too (for models that were never run without, such as Gemma).
        dtype: of the weights and the body; sums of the head are at least float32.
        pack_tokens: tokens of a pack, the one shape that the body runs in; the last pack of a call is filled up.
        compile: run the body through torch.compile.
        entropy: give entropies too.
        device: auto is cuda where torch sees one.
    """

    path: str
    window: int = 2048
    overlap: int = 512
    first_token: FirstToken | None = None
    every_window: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    pack_tokens: int = 8192
    compile: bool = False
    entropy: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path is empty: give a model's folder, s3:// address, GGUF file or name on the hub")
        if isinstance(self.first_token, int) and self.first_token < 0:
            raise ValueError(f"first_token is {self.first_token}: give an id from 0 on, bos, eos or none")
        self.shape(None if self.first_token == "none" else 0)

    def shape(self, first: int | None) -> Shape:
        """Return how documents are cut and packed, with this id as the first token."""
        return Shape(window=self.window, overlap=self.overlap, pack=self.pack_tokens, first=first, every_window=self.every_window)

    def files(self) -> tuple[str, ...]:
        """Return local files whose content decides what the model says; see `weights.stamps`."""
        return weights.stamps(self.path)

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the model, reads its weights and cuts texts as its tokenizer does."""
        return ("torch", "transformers", "tokenizers", *(("gguf",) if self.path.endswith(".gguf") else ()))

    def open(self) -> OpenedLm:
        """Load the model and return its scorer.

        Raises:
            InputError: what `loading.load` finds; a window larger than the model's; no such first token; no such device.
        """
        import torch

        from gristmill.models.causal_lm.loading import load

        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"model {self.path!r}: device is cuda and torch sees none; use auto or cpu")
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        return open_loaded(self, load(self.path, dtype=getattr(torch, self.dtype), device=device))


class OpenedLm:
    """A loaded model: a `TokenScorer`.

    Attributes:
        facts: for the columns' metadata, JSON: path, sha256 of the weights, parameters, ids of the first token and of those
            that the model names, versions, and how it is run.
        tokenizer: text of the model's tokenizer.json, or None where it has none.
        vocab_size: ids that the model knows.
    """

    kind = "causal_lm"
    of_build = False

    def __init__(self, scorer: Scorer, facts: dict[str, Plain], tokenizer: str | None, vocab_size: int) -> None:
        self.facts, self.tokenizer, self.vocab_size = facts, tokenizer, vocab_size
        self._scorer = scorer

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        """Return the signals of these documents; see `Scorer`."""
        return self._scorer.score(ids, bounds)


def open_loaded(model: CausalLm, loaded: Loaded) -> OpenedLm:
    """Return the scorer of a model that is in memory.

    Raises:
        InputError: a window larger than the model's; no such first token.
    """
    import torch
    import transformers

    from gristmill.models.causal_lm.engine import Engine

    limit = loaded.length_limit
    if limit is not None and model.window > limit:
        raise InputError(
            f"model {model.path!r}: was made for {limit} tokens, window is {model.window}; set window to {limit} or less"
        )
    first = _first_id(model, loaded)
    engine = Engine(loaded, model.shape(first), entropy=model.entropy, compile=model.compile)
    parameters = {key: value for key, value in dataclasses.asdict(model).items() if key != "path"}
    facts = {
        "path": model.path,
        "sha256": loaded.sha256,
        "parameters": parameters,
        "first_token_id": first,
        "bos_id": loaded.bos_id,
        "eos_id": loaded.eos_id,
        "device": engine.device.type,
        "attention": f"one window at a time: {engine.body.alone}" if engine.body.alone else "packed",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return OpenedLm(engine, facts, loaded.tokenizer_json, len(loaded.head))


def _first_id(model: CausalLm, loaded: Loaded) -> int | None:
    """Return the id of the token before a document, or None for none."""
    advice = "set first_token to bos, eos, none or an id: what stood before documents in its training"
    given = model.first_token
    if given is None:
        recorded = getattr(loaded.config, RECORD, None)
        if recorded is None:
            raise InputError(f"model {model.path!r}: does not record what stood before a document; {advice}")
        given = recorded["first_token"]["id"]
        given = "none" if given is None else given
    if given == "none":
        return None
    if isinstance(given, str):
        found = loaded.bos_id if given == "bos" else loaded.eos_id
        if found is None:
            raise InputError(f"model {model.path!r}: names no {given} token; {advice}")
        return found
    if given >= len(loaded.head):
        raise InputError(f"model {model.path!r}: first_token is {given}; its ids end at {len(loaded.head) - 1}")
    return given
