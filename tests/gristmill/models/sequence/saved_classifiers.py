"""Small classifiers of sequences with random weights, as transformers saves them, and what it says of texts one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("the", "of", "and", "is", "it", "water", "world")
PIECES = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS)
LIMIT = 64
SIZES: dict[str, Any] = {
    "vocab_size": len(PIECES),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LIMIT,
    "pad_token_id": 1,
    "cls_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
SMALL_DISTIL = {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4}
SLIDING = {"local_attention": 16, "global_attn_every_n_layers": 3, "embedding_dropout": 0.0}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "max_relative_positions": -1}

PACKED: dict[str, Any] = {
    "bert": lambda **more: transformers.BertConfig(**SIZES, **more),
    "xlm-roberta": lambda **more: transformers.XLMRobertaConfig(**{**SIZES, "max_position_embeddings": LIMIT + 2}, **more),
    "electra": lambda **more: transformers.ElectraConfig(**SIZES, embedding_size=16, **more),
    "distilbert": lambda **more: transformers.DistilBertConfig(**SIZES, **SMALL_DISTIL, **more),
    "modernbert": lambda **more: transformers.ModernBertConfig(**SIZES, **SLIDING, **more),
    "modernbert-mean": lambda **more: transformers.ModernBertConfig(**SIZES, **SLIDING, classifier_pooling="mean", **more),
}
ALONE: dict[str, Any] = {
    "deberta-v2": lambda **more: transformers.DebertaV2Config(**SIZES, **DISENTANGLED, **more),
    "mpnet": lambda **more: transformers.MPNetConfig(**{**SIZES, "max_position_embeddings": LIMIT + 2}, **more),
}


def tokenizer() -> Tokenizer:
    """Return a tokenizer that puts [CLS] and [SEP] around a text."""
    made = Tokenizer(WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = Lowercase(), Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
    made.add_special_tokens(["[CLS]", "[PAD]", "[SEP]", "[UNK]"])
    return made


def save(folder: Path, config: Any, seed: int = 0) -> Any:
    """Save a model and its tokenizer; return the model."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return model


def logits(model: Any, texts: Sequence[str], max_tokens: int = LIMIT) -> np.ndarray:
    """Return what transformers says of each text alone, with its own attention."""
    cutter = tokenizer()
    cutter.enable_truncation(max_tokens)
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([cutter.encode(text).ids])
            found.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].numpy())
    return np.array(found)


def texts(count: int = 40, seed: int = 0) -> list[str]:
    """Return texts of 0 to 90 words, so that some are longer than the models' limit; the first is empty."""
    draw = np.random.default_rng(seed)
    words = [*WORDS, "zebra", "Quince"]
    return ["", *(" ".join(draw.choice(words, draw.integers(1, 90))) for _ in range(count - 1))]
