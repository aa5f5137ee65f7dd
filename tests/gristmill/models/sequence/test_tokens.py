"""The first tokens of a text, without the rest being encoded: those that the whole text has."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from gristmill.models.sequence.tokens import CHARS, Cutter, beginning, splits_at_spaces

WORDS = [
    "water",
    "Ünïcode",
    "e\u0301te\u0301",
    "日本語",
    "12,5",
    "don't",
    "a",
    "x" * 300,
    "ﬁn",
    "мир",
    "-",
    "...",
    "हिन्दी",
    "[SEP]",
]
GAPS = [" ", " ", " ", " ", "  ", "\n", "\t ", "\u00a0", " \u0301"]
BERT, SPACES = normalizers.BertNormalizer(), normalizers.Replace(Regex(" {2,}"), " ")
LOCAL: dict[str, tuple[Any, Any, Any]] = {
    "wordpiece": (models.WordPiece(unk_token="[UNK]"), BERT, pre_tokenizers.BertPreTokenizer()),
    "byte-level": (models.BPE(), None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "unigram": (models.Unigram(), normalizers.Sequence([normalizers.NFKC(), SPACES]), pre_tokenizers.Metaspace()),
    "sequence": (models.BPE(unk_token="[UNK]"), normalizers.NFC(), pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits()]
    )),
}  # fmt: skip


def texts(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    sizes = draw.choice([0, 1, 5, 40, 400], count)
    return ["".join(WORDS[draw.integers(len(WORDS))] + GAPS[draw.integers(len(GAPS))] for _ in range(size)) for size in sizes]


def trained(parts: tuple[Any, Any, Any]) -> Tokenizer:
    model, normalizer, pre = parts
    made = Tokenizer(model)
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre
    options = {"vocab_size": 400, "special_tokens": ["[CLS]", "[SEP]", "[UNK]"], "show_progress": False}
    kinds = {models.WordPiece: trainers.WordPieceTrainer, models.BPE: trainers.BpeTrainer}
    unigram = trainers.UnigramTrainer(unk_token="[UNK]", **options)
    made.train_from_iterator(texts(60, 0), kinds[type(model)](**options) if type(model) in kinds else unigram)
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
    return made


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("most", [3, 8, 64])
def test_the_first_tokens_are_those_of_the_whole_text(name: str, most: int) -> None:
    whole, made = (trained(LOCAL[name]) for _ in range(2))
    whole.enable_truncation(most)
    given = texts(120, 1)
    assert splits_at_spaces(json.loads(made.to_str()))
    assert sum(len(beginning(text, CHARS * most)) < len(text) for text in given) > 20, "some texts must be cut"
    ids, bounds = Cutter(made, most).encode(given)
    assert [ids[begin:end].tolist() for begin, end in pairwise(bounds)] == [each.ids for each in whole.encode_batch(given)]


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Whitespace"}]}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}},
        {"added_tokens": [{"content": "New York"}]},
    ],
)
def test_tokenizers_that_may_reach_across_a_space_read_all(changes: dict[str, Any]) -> None:
    plain = {"pre_tokenizer": {"type": "Whitespace"}, "normalizer": None, "added_tokens": [{"content": "[CLS]"}]}
    assert splits_at_spaces(plain) and not splits_at_spaces(plain | changes)


def test_a_beginning_ends_before_a_space_between_letters() -> None:
    assert beginning("one two three", 4) == "one two"
    assert beginning("one two  three - four five", 5) == "one two  three - four"
    assert beginning("日本語日本語", 2) == "日本語日本語" and beginning("", 3) == ""
