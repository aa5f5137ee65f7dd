"""Texts to the tokens that a classifier of sequences reads of them: the first so many, with those that stand around a text.

Reads a tokenizer of the tokenizers library. It would encode a whole text and throw away what is beyond the limit: most of a long
page. Where a tokenizer splits at spaces before all else, the beginning of a text up to a space has the tokens that it has in the
whole text, so no more is encoded than is needed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.tokenizer.library_calls import library_call

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Int64 = npt.NDArray[np.int64]

CHARS = 8  # a token of the first try; four times as many each time that this was not enough
SPACE = re.compile(r"[^\W_](?= [^\W_])")  # a letter or digit before a space and another: nothing normalizes across
SPLIT = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
NORMALIZE = ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Precompiled", "Nmt")
SPACES = {"Regex": " {2,}"}  # SentencePiece's runs of spaces


class Cutter:
    """A tokenizer that reads the first `max_tokens` tokens of texts."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer, self._most = tokenizer, max_tokens
        self._local = splits_at_spaces(json.loads(tokenizer.to_str()))

    def encode(self, texts: list[str]) -> tuple[Int64, Int64]:
        """Return ids, text behind text, and bounds [texts + 1]. Raises InputError where the library cannot encode one."""
        rows: list[list[int]] = [[] for _ in texts]
        left, chars = list(range(len(texts))), CHARS * self._most
        while left:
            parts = [beginning(texts[i], chars) if self._local else texts[i] for i in left]
            with library_call(lambda error: InputError(f"the model's tokenizer cannot encode a text: {error}")):
                found = [each.ids for each in self._tokenizer.encode_batch(parts)]
            short = []
            for i, part, ids in zip(left, parts, found, strict=True):
                rows[i] = ids
                if len(ids) < self._most and len(part) < len(texts[i]):
                    short.append(i)
            left, chars = short, 4 * chars
        flat = np.fromiter((number for row in rows for number in row), np.int64)
        return flat, np.cumsum([0, *map(len, rows)], dtype=np.int64)


def beginning(text: str, chars: int) -> str:
    """Return the beginning of a text up to the first space behind `chars` characters that stands between letters or digits."""
    found = SPACE.search(text, chars)
    return text if found is None else text[: found.end()]


def splits_at_spaces(data: Any) -> bool:  # noqa: ANN401 - the content of a tokenizer.json
    """Return whether a tokenizer splits texts at spaces first, and nothing that it does before reaches across one."""
    if any(" " in token["content"] for token in data.get("added_tokens") or ()):
        return False
    cut = [_splits(each) for each in _parts(data.get("pre_tokenizer"), "pretokenizers")]
    return bool(cut) and cut[0] and all(_stays_inside(each) for each in _parts(data.get("normalizer"), "normalizers"))


def _parts(data: Any, key: str) -> list[Any]:  # noqa: ANN401
    if data is None:
        return []
    return list(data[key]) if data["type"] == "Sequence" else [data]


def _splits(part: Any) -> bool:  # noqa: ANN401
    kind = part["type"]
    return (
        kind in SPLIT
        or (kind == "ByteLevel" and part.get("use_regex", True))
        or (kind == "Metaspace" and part.get("split", True))
    )


def _stays_inside(part: Any) -> bool:  # noqa: ANN401
    return part["type"] in NORMALIZE or (part["type"] == "Replace" and part["pattern"] == SPACES)
