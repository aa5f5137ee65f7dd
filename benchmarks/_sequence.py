"""A classifier of sequences beside what everybody writes with transformers: batches of 32 texts, sorted by length and padded.

Makes a BERT with random weights and a tokenizer that is trained on the texts, in a folder; reads it from there on both sides.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from benchmarks._turns import Turns, take_turns, timed
from gristmill.models.sequence.parameters import SequenceClassifier

GOAL = 1.3
BATCH = 32
MAX_TOKENS = 512
AGREE = {"float32": 1e-4, "bfloat16": 0.05}  # of scores
SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")
MEDIAN, SIGMA = 300.0, 1.1  # words of a text, as on the web

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """The shape of a BERT."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


SHAPES = {
    "base": Shape(768, 12, 12, 3072),  # FineWeb-Edu's classifier, BERT-base
    "minilm": Shape(384, 6, 12, 1536),  # MiniLM-L6
    "minilm, two layers": Shape(384, 2, 12, 1536),
    "tiny": Shape(64, 2, 2, 128),
}


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of random words, as long as those of the web."""
    draw = np.random.default_rng(seed)
    words = ["".join(draw.choice(list("aeinrstlo"), draw.integers(2, 9))) for _ in range(3000)]
    lengths = np.clip(draw.lognormal(np.log(MEDIAN), SIGMA, count), 1, 5000).astype(int)
    return [" ".join(words[i] for i in np.minimum(draw.zipf(1.3, length), 3000) - 1) for length in lengths]


def save_classifier(folder: Path, shape: Shape, texts: Sequence[str]) -> Path:
    """Save a model with one number and its tokenizer; return the folder."""
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.train_from_iterator(texts, WordPieceTrainer(vocab_size=8000, special_tokens=list(SPECIAL), show_progress=False))
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **names).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=1,
        num_labels=1,
    )
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


class Peer:
    """transformers alone."""

    def __init__(self, folder: Path, device: str, dtype: str) -> None:
        import transformers

        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
        self._model, self._device = model.to(device).eval(), device

    def score(self, texts: Sequence[str]) -> Singles:
        """Return the score of each text."""
        rows = self._tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.empty(len(rows), np.float32)
        with torch.inference_mode():
            for begin in range(0, len(order), BATCH):
                chosen = order[begin : begin + BATCH]
                given = self._tokenizer.pad({"input_ids": [rows[i] for i in chosen]}, return_tensors="pt").to(self._device)
                found[chosen] = self._model(**given).logits[:, 0].float().cpu().numpy()
        return found


def compare(
    folder: Path, shape: Shape, texts: Sequence[str], turns: int, device: str = "cpu", least_s: float = 1.0
) -> tuple[Turns, float]:
    """Let both sides score these texts; return the seconds, of the CPU there, and how far scores are apart at most.

    Raises:
        AssertionError: their scores differ, or ours does not run packed.
    """
    dtype = "float32" if device == "cpu" else "bfloat16"
    save_classifier(folder, shape, texts)
    opened = SequenceClassifier(path=str(folder), max_tokens=MAX_TOKENS, device=device, dtype=dtype).open()  # type: ignore[arg-type]
    assert not opened.body.why, opened.body.why
    peer, column = Peer(folder, device, dtype), pa.array(texts, pa.string())
    ours = opened.classify(column).scores[:, 0]
    far = float(np.abs(peer.score(texts) - ours).max())
    assert far <= AGREE[dtype], f"scores differ by {far}"
    clock = time.process_time if device == "cpu" else time.perf_counter
    sides = {
        "ours": timed(lambda: lambda: opened.classify(column), clock),
        "peer": timed(lambda: lambda: peer.score(texts), clock),
    }
    return take_turns(sides, turns, least_s), far
