"""Builds of tokens whose tokenizer takes bytes: its file is in the build, so that transformers opens it too."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipeline.stage import Assembly, Attachment
from stages.sink.shards import Shards
from tests.gristmill.builds import EOS, documents, publish

VOCABULARY = 257


@cache
def tokenizer_json() -> bytes:
    """Return a tokenizer.json with a token for each byte; `<|end|>` is the id that the tests' builds end documents with."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters.insert(EOS, "<|end|>")
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return made.to_str().encode()


def words(number: int, seed: int) -> str:
    """Return a text that has something to learn: words of a small language."""
    draw = random.Random(seed)
    return " ".join(draw.choice(["the", "mill", "grinds", "fine", "and", "slow"]) for _ in range(number))


def byte_documents(
    texts: Sequence[str], *, file: str, languages: Sequence[str] = ("en",), quality: Sequence[float | None] = ()
) -> pa.Table:
    """Return documents as the sink takes them: the tokens of these texts, each ended, and the column `quality` if given."""
    encode = Tokenizer.from_str(tokenizer_json().decode()).encode
    ids = [[*encode(text).ids, EOS] for text in texts]
    sha256 = hashlib.sha256(tokenizer_json()).hexdigest()
    table = documents(ids, file=file, languages=languages, vocab_size=VOCABULARY, tokenizer=sha256)
    text = table.column_names.index("text")
    table = table.set_column(text, table.schema.field("text"), pa.array(texts, pa.string()))
    return table.append_column("quality", pa.array(quality, pa.float32())) if quality else table


def publish_bytes(shards: Sequence[pa.Table], output: Path, *, batch_tokens: int | None = None) -> Assembly:
    """Make a build of them that keeps the column `quality`."""
    attached = [Attachment("tokenizer.json", tokenizer_json())]
    sink = Shards(columns=("quality",))
    return publish([[shard] for shard in shards], output, sink=sink, batch_tokens=batch_tokens, attachments=attached)


def record_of(output: Path) -> dict[str, object]:
    """Return what `gristmill.json` of a trained model says."""
    found: dict[str, object] = json.loads((output / "model/gristmill.json").read_text())
    return found
