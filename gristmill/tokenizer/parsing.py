"""A `tokenizer.json` as the Hugging Face library reads it, made into a vocabulary.

Reads the text of the file; gives a `Vocabulary` where the model is byte-level BPE. What no id depends on (post-processor,
decoder, flags of added tokens) is kept in its `frame`, so that a tokenizer made on top of it has them too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from gristmill.tokenizer.json_parts import File, Frame, Step
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.token_names import bytes_of_letters, letters, unspell
from gristmill.tokenizer.tokenizer_json import TokenizerJson, Unsupported, blamed_on, read
from gristmill.tokenizer.vocabulary import BYTES_TO_TEXT, Vocabulary

FLAGS: tuple[Literal["single_word", "lstrip", "rstrip"], ...] = ("single_word", "lstrip", "rstrip")
IMPOSSIBLE = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})
"""Bytes that valid UTF-8 never has."""


def parse(text: str, where: str) -> Vocabulary:
    """Return the vocabulary of a `tokenizer.json`.

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        UnsupportedTokenizer: it has a part that changes ids in a way not known here; names the key.
        InputError: it is no such file, has something else at a key than a tokenizer has there, or gives two tokens one id, or one
            token two; names the key.
    """
    with blamed_on(where):
        return _vocabulary(read(text, where))


def _vocabulary(file: TokenizerJson) -> Vocabulary:
    data, model, added = file.data, file.data["model"], file.added
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise Unsupported(f"key model.type is {_bare(model.get('type'))}; only byte-level 'BPE' can be used")
    for key, value in (
        ("dropout", model.get("dropout")),
        ("continuing_subword_prefix", model.get("continuing_subword_prefix")),
        ("end_of_word_suffix", model.get("end_of_word_suffix")),
    ):
        if value:
            raise Unsupported(f"key model.{key} is {_bare(value)}; only byte-level BPE without it can be used")
    missing = [letter for byte, letter in letters().items() if byte not in IMPOSSIBLE and letter not in file.pieces]
    # No text comes to these two where each byte is a token.
    for key, value in (("unk_token", model.get("unk_token")), ("byte_fallback", model.get("byte_fallback"))):
        if value and missing:
            raise Unsupported(f"key model.{key} is {_bare(value)}, and not every byte is a token of a byte-level vocabulary")
    for token in data.get("added_tokens") or []:
        flag = next((flag for flag in FLAGS if token.get(flag)), None)
        if flag and not token["special"]:
            raise Unsupported(f"key added_tokens has {token['content']!r} with {flag}, which is more than its name")
    names = {token.content: token.id for token in added}
    for name in names:
        if name in file.pieces and (model.get("ignore_merges") or name in bytes_of_letters()):
            raise Unsupported(f"key added_tokens has {name!r}, which the model makes of texts, too")
    ids = {name: i for name, i in file.pieces.items() if name not in names}
    return Vocabulary(
        tokens=_bytes(ids, names),
        merges=_merges(model["merges"], ids),
        cuts=_cuts(data.get("pre_tokenizer")),
        special_tokens={token.content: token.id for token in added if token.special},
        ignore_merges=bool(model.get("ignore_merges")),
        added=() if all(token.special and not token.normalized for token in added) else added,
        frame=_frame(data),
    )


def _frame(data: File) -> Frame:
    """Return what a tokenizer made on top of this one is to keep; nothing where it would have the same of itself."""
    found = Frame()
    if (normalizer := simplified(data.get("normalizer"))) is not None:
        found["normalizer"] = normalizer
    if (processor := data.get("post_processor")) is not None:
        found["post_processor"] = processor
    if (decoder := data.get("decoder")) is not None and decoder != BYTES_TO_TEXT:
        found["decoder"] = decoder
    listed = data.get("added_tokens") or []
    plain = {flag: False for flag in FLAGS} | {"normalized": False, "special": True}
    if any(token.get(flag, value) != value for token in listed for flag, value in plain.items()):
        found["added_tokens"] = listed
    return found


def simplified(normalizer: Step | None) -> Step | None:
    """Return a normalizer without sequences inside sequences, None where it changes nothing."""
    steps = _steps_of(normalizer)
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", "normalizers": steps}


def _steps_of(normalizer: Step | None) -> list[Step]:
    if normalizer is None:
        return []
    if normalizer["type"] != "Sequence":
        return [normalizer]
    return [step for each in normalizer["normalizers"] for step in _steps_of(each)]


def _bytes(ids: Mapping[str, int], names: Mapping[str, int]) -> tuple[bytes, ...]:
    found = [b""] * (max([*ids.values(), *names.values()], default=-1) + 1)
    for name, i in ids.items():
        made = unspell(name)
        if made is None:
            letter = next(letter for letter in name if letter not in bytes_of_letters())
            raise Unsupported(f"key model.vocab is not byte-level: its token {name!r} has the letter {letter!r}")
        found[i] = made
    for name, i in names.items():
        found[i] = name.encode()
    return tuple(found)


def _merges(pairs: Sequence[str | Sequence[str]], ids: Mapping[str, int]) -> np.ndarray:
    merges = np.empty((len(pairs), 3), np.int32)
    for rank, pair in enumerate(pairs):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        for token in (left, right, left + right):
            if token not in ids:
                raise Unsupported(f"key model.merges has {left!r} with {right!r}, but {token!r} is not in model.vocab")
        merges[rank] = ids[left], ids[right], ids[left + right]
    return merges


def _cuts(step: Step | None) -> tuple[Pattern, ...]:
    """Return the patterns of a pre-tokenizer that ends in ByteLevel."""
    steps = [] if step is None else step["pretokenizers"] if step["type"] == "Sequence" else [step]
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise Unsupported(f"key pre_tokenizer is {_kind(step)}; only one that ends in 'ByteLevel' can be used")
    if steps[-1].get("add_prefix_space"):
        raise Unsupported(
            "key pre_tokenizer.add_prefix_space is true; only tokenizers that put nothing before a text can be used"
        )
    cuts: list[Pattern] = []
    digits: bool | Literal["each"] = False
    for each in steps[:-1]:
        if each["type"] == "Digits":
            if digits:
                cuts.append(Pattern("", digits))
            digits = "each" if each["individual_digits"] else True
        elif each["type"] == "Split" and each["behavior"] == "Isolated" and not each.get("invert"):
            cuts.append(Pattern(_regex(each["pattern"]), digits))
            digits = False
        else:
            raise Unsupported(f"key pre_tokenizer has {json.dumps(each)}; known are isolated Split, Digits and ByteLevel")
    if steps[-1].get("use_regex", True):
        return (*cuts, Pattern(PATTERNS["gpt2"].regex, digits))
    return (*cuts, Pattern("", digits)) if digits else tuple(cuts)


def _regex(pattern: Mapping[str, str]) -> str:
    return pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])


def _kind(step: Step | None) -> str:
    return _bare(None if step is None else step["type"])


def _bare(value: str | float | None) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)
