"""A classifier of sequences as a model of texts: its parameters. Imports no torch until it is opened.

Reads what `path` names: a folder, an s3:// address or a name on the Hugging Face hub. Writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gristmill.errors import InputError
from gristmill.models.causal_lm import weights

if TYPE_CHECKING:
    from gristmill.models.sequence.engine import OpenedSequence


@dataclass(frozen=True, kw_only=True)
class SequenceClassifier:
    """A Hugging Face encoder with a head for whole texts (`...ForSequenceClassification`), such as FineWeb-Edu's classifier.

    A text's score does not depend on the texts beside it, to the bit; on another kind of machine it may differ in the last bits.
    A model whose class is not transformers' own (NVIDIA's quality classifiers) cannot be opened: no code of a model is run.

    Attributes:
        path: folder, s3:// address, or name on the hub.
        max_tokens: of a text that it reads, from the beginning; those that its tokenizer puts around it count.
        scores: what the numbers are: `logits` as they come, `sigmoid` of each, or `softmax` over labels; null: as the model's
            config says of its problem: a regression's and a single label's are logits.
        dtype: of the weights and the sums.
        pack_tokens: tokens of a row of documents, the one shape that it runs in; the last row of a call is filled up. null: 2048
            on CPUs, 32768 on CUDA.
        device: auto is cuda where torch sees one.
    """

    path: str
    max_tokens: int = 512
    scores: Literal["logits", "sigmoid", "softmax"] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    pack_tokens: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        """Check what needs no file."""
        if not self.path:
            raise ValueError("path is empty: give a model's folder, s3:// address or name on the hub")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; give at least 1")
        if self.pack_tokens is not None and self.pack_tokens < self.max_tokens:
            raise ValueError(f"pack_tokens is {self.pack_tokens}; a text of max_tokens, {self.max_tokens}, has to fit in")

    def files(self) -> tuple[str, ...]:
        """Return local files whose content decides what the model says; see `weights.stamps`."""
        return weights.stamps(self.path)

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the model and cuts texts."""
        return ("torch", "transformers", "tokenizers")

    def open(self) -> OpenedSequence:
        """Load the model.

        Raises:
            InputError: what `loading.load` finds; more tokens than the model was made for; no such device.
        """
        import torch

        from gristmill.models.sequence.engine import OpenedSequence, largest_pack, scores_of
        from gristmill.models.sequence.loading import load

        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"model {self.path!r}: device is cuda and torch sees none; use auto or cpu")
        device = torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")
        loaded = load(self.path, dtype=getattr(torch, self.dtype), device=device)
        limit = loaded.length_limit
        if limit is not None and self.max_tokens > limit:
            raise InputError(
                f"model {self.path!r}: was made for {limit} tokens, max_tokens is {self.max_tokens}; set it to {limit} or less"
            )
        pack = self.pack_tokens or max(largest_pack(device), self.max_tokens)
        return OpenedSequence(loaded, self.max_tokens, pack, self.scores or scores_of(loaded))
