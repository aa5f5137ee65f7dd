"""Small random causal language models in folders, for tests; torch is imported when one is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

LETTERS = [*map(chr, range(0x21, 0x7F)), *map(chr, range(0xA1, 0xAD)), *map(chr, range(0xAE, 0x100))]
OTHERS = [chr(0x100 + i) for i in range(256 - len(LETTERS))]
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "o n", "Ġ a", "e r", "Ġ ( ", "r e", "a t", "Ġ s", "Ā Ā"]
END = "<|end|>"


def tokenizer_json(**changes: Any) -> str:
    """Return a byte-level BPE tokenizer.json of 256 bytes, a few merges and one special token, the last id."""
    merges = [tuple(merge.split()) for merge in MERGES if len(merge.split()) == 2]
    pieces = [*LETTERS, *OTHERS]
    pieces += [left + right for left, right in merges]
    special = {"id": len(pieces), "content": END, "special": True, "normalized": False}
    special |= {"single_word": False, "lstrip": False, "rstrip": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": [list(merge) for merge in merges]}
    model |= {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    model |= {"fuse_unk": False, "byte_fallback": False}
    data = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [special], "normalizer": None}
    data |= {"pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}
    return json.dumps(data | changes)


def vocab_size(tokenizer: str) -> int:
    """Return how many ids a tokenizer has."""
    data = json.loads(tokenizer)
    return max(*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])) + 1


def save_llama(folder: Path, tokenizer: str | None, *, layers: int = 2, width: int = 32, seed: int = 0, **changes: Any) -> Path:
    """Write a Llama of random weights with this tokenizer, and return its folder."""
    import torch
    import transformers

    size = 100 if tokenizer is None else vocab_size(tokenizer)
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": 4}
    given = {"vocab_size": size, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    given |= {"bos_token_id": size - 1, "eos_token_id": size - 1}
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(shape | given | changes)))
    return save(model, folder, tokenizer)


def save_ngram(ids: pa.ChunkedArray, size: int, path: Path) -> Path:
    """Write a bigram model that was counted on these lists of ids, and return its path."""
    from gristmill.models.ngram import kneser_ney, store

    lists = ids.combine_chunks()
    counts = kneser_ney.count(lists.flatten().to_numpy(), lists.offsets.to_numpy().astype(np.int64), order=2, vocab_size=size)
    store.save(kneser_ney.estimate(counts, fallback=kneser_ney.FALLBACK), path)
    return path


def save(model: Any, folder: Path, tokenizer: str | None = None, **options: Any) -> Path:
    """Write a model with larger weights than it was made with, so that its losses are not all alike."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, **options)
    if tokenizer is not None:
        (folder / "tokenizer.json").write_bytes(tokenizer.encode())
    return folder
