"""A `tokenizer.json` as the Hugging Face library reads it, made into a vocabulary.

Reads the text of the file; gives a `Vocabulary` where the model is byte-level BPE. What no id depends on (post-processor,
decoder, flags of added tokens) is kept in its `frame`, so that a tokenizer made on top of it has them too.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gristmill.errors import ENDINGS, InputError
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.vocabulary import BYTES_TO_TEXT, Added, UnsupportedTokenizer, Vocabulary, letters

FRAME = ("normalizer", "post_processor", "decoder")
FLAGS = ("single_word", "lstrip", "rstrip")
IMPOSSIBLE = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})
"""Bytes that valid UTF-8 never has."""


def parse(text: str, where: str) -> Vocabulary:
    """Return the vocabulary of a `tokenizer.json`.

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        UnsupportedTokenizer: it has a part that changes ids in a way not known here; names the key.
        InputError: it is no such file, or gives two tokens one id, or one token two.
    """
    try:
        data = json.loads(text)
        added = _added(data, text, where)
        return _vocabulary(data, added)
    except json.JSONDecodeError as error:
        raise InputError(f"tokenizer {where!r} cannot be read as a tokenizer.json: {error}") from error
    except _Unsupported as error:
        raise UnsupportedTokenizer(f"tokenizer {where!r}: {error}") from error
    except _Mistake as error:
        raise InputError(f"tokenizer {where!r}: {error}") from error
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"tokenizer {where!r} is not a tokenizer.json: it has no key {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise InputError(f"tokenizer {where!r} is not a tokenizer.json: {type(error).__name__} {error}") from error


class _Unsupported(ValueError):
    """A part of a tokenizer.json that is not known here."""


class _Mistake(ValueError):
    """A file that says two things about one id."""


def _added(data: Mapping[str, Any], text: str, where: str) -> tuple[Added, ...]:
    """Return the added tokens with the ids that the library gives them.

    It numbers those that the model does not have one after the other, whatever ids the file says (tokenizers 0.23).
    """
    vocabulary = data["model"]["vocab"]
    own = vocabulary if isinstance(vocabulary, dict) else {piece[0]: i for i, piece in enumerate(vocabulary)}
    given = {i: name for name, i in own.items()}
    if len(given) < len(own):
        name, i = next((name, i) for name, i in own.items() if given[i] != name)
        raise _Mistake(f"key model.vocab gives {name!r} and {given[i]!r} the one id {i}; give each token its own")
    listed = data.get("added_tokens") or []
    _check_added(listed, own, given)
    ids = {token["content"]: own.get(token["content"], token["id"]) for token in listed}
    outside = [token["content"] for token in listed if token["content"] not in own]
    if [ids[name] for name in outside] != list(range(len(own), len(own) + len(outside))):
        ids = _ids_of_library(text, where)
    for token in listed:
        name, i = token["content"], ids.get(token["content"])
        if i is not None and i != token["id"]:
            if given.get(i, name) != name:
                raise _Mistake(f"key added_tokens: the library gives {name!r} the id {i}, which {given[i]!r} has in model.vocab")
            _say_once(
                f"tokenizer {where!r}: key added_tokens gives {name!r} the id {token['id']}, the Hugging Face library {i}; ids "
                "here are the library's"
            )
    return tuple(
        Added(token["content"], ids[token["content"]], bool(token["special"]), bool(token.get("normalized")))
        for token in listed
        if token["content"] in ids
    )


def _check_added(listed: Sequence[Mapping[str, Any]], own: Mapping[str, int], given: Mapping[int, str]) -> None:
    """Raise _Mistake where an id belongs to two tokens, or a token is there twice."""
    names: dict[int, str] = {}
    for token in listed:
        name, i = token["content"], token["id"]
        if names.get(i, name) != name:
            raise _Mistake(f"key added_tokens gives {names[i]!r} and {name!r} the one id {i}; give each token its own")
        if i in given and given[i] != name:
            raise _Mistake(
                f"key added_tokens gives {name!r} the id {i}, which {given[i]!r} has in model.vocab; give it one that no token "
                f"has, such as {max(given) + 1}"
            )
        names[i] = name
    if len(names) < len(listed):
        several = [token["content"] for token in listed]
        twice = next(name for i, name in enumerate(several) if name in several[:i])
        raise _Mistake(f"key added_tokens has {twice!r} twice; name each token once")
    if len(set(names.values())) < len(names):
        twice = next(name for i, name in names.items() if list(names.values()).index(name) < list(names).index(i))
        raise _Mistake(f"key added_tokens has {twice!r} twice, with two ids; name each token once")


def _ids_of_library(text: str, where: str) -> dict[str, int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(text)
    except ENDINGS:
        raise
    except BaseException as error:  # the library raises nothing narrower, and panics
        raise InputError(f"tokenizer {where!r}: the library says that it cannot be read: {error}") from error
    return {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}


def _vocabulary(data: Mapping[str, Any], added: tuple[Added, ...]) -> Vocabulary:
    model = data["model"]
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise _Unsupported(f"key model.type is {model.get('type')!r}; only byte-level 'BPE' can be used")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise _Unsupported(f"key model.{key} is {model[key]!r}; only byte-level BPE without it can be used")
    missing = [letter for byte, letter in letters().items() if byte not in IMPOSSIBLE and letter not in model["vocab"]]
    for key in ("unk_token", "byte_fallback"):  # no text comes to them where each byte is a token
        if model.get(key) and missing:
            raise _Unsupported(f"key model.{key} is {model[key]!r}, and not every byte is a token of a byte-level vocabulary")
    for token in data.get("added_tokens") or []:
        flag = next((flag for flag in FLAGS if token.get(flag)), None)
        if flag and not token["special"]:
            raise _Unsupported(f"key added_tokens has {token['content']!r} with {flag}, which is more than its name")
    names = {token.content: token.id for token in added}
    for name in names:
        if name in model["vocab"] and (model.get("ignore_merges") or name in letters().values()):
            raise _Unsupported(f"key added_tokens has {name!r}, which the model makes of texts, too")
    ids: dict[str, int] = {name: i for name, i in model["vocab"].items() if name not in names}
    return Vocabulary(
        tokens=_bytes(ids, names),
        merges=_merges(model["merges"], ids),
        cuts=_cuts(data.get("pre_tokenizer")),
        special_tokens={token.content: token.id for token in added if token.special},
        ignore_merges=bool(model.get("ignore_merges")),
        added=() if all(token.special and not token.normalized for token in added) else added,
        frame=_frame(data),
    )


def _frame(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tokenizer made on top of this one is to keep; nothing where it would have the same of itself."""
    found = {key: data.get(key) for key in FRAME} | {"normalizer": simplified(data.get("normalizer"))}
    listed = data.get("added_tokens") or []
    plain = {flag: False for flag in FLAGS} | {"normalized": False, "special": True}
    if all(token.get(flag, value) == value for token in listed for flag, value in plain.items()):
        listed = []
    found |= {"added_tokens": listed or None}
    if found["decoder"] == BYTES_TO_TEXT:
        found["decoder"] = None
    return {key: value for key, value in found.items() if value is not None}


def simplified(normalizer: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a normalizer without sequences inside sequences, None where it changes nothing."""
    steps = _steps_of(normalizer)
    if len(steps) < 2:
        return steps[0] if steps else None
    return {"type": "Sequence", "normalizers": steps}


def _steps_of(normalizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if normalizer is None:
        return []
    if normalizer["type"] != "Sequence":
        return [normalizer]
    return [step for each in normalizer["normalizers"] for step in _steps_of(each)]


def _bytes(ids: Mapping[str, int], names: Mapping[str, int]) -> tuple[bytes, ...]:
    table = {letter: byte for byte, letter in letters().items()}
    found = [b""] * (max([*ids.values(), *names.values()], default=-1) + 1)
    for name, i in ids.items():
        try:
            found[i] = bytes(table[letter] for letter in name)
        except KeyError as error:
            raise _Unsupported(f"key model.vocab is not byte-level: its token {name!r} has the letter {error}") from error
    for name, i in names.items():
        found[i] = name.encode()
    return tuple(found)


def _merges(pairs: Sequence[str | Sequence[str]], ids: Mapping[str, int]) -> np.ndarray:
    merges = np.empty((len(pairs), 3), np.int32)
    for rank, pair in enumerate(pairs):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        for token in (left, right, left + right):
            if token not in ids:
                raise _Unsupported(f"key model.merges has {left!r} with {right!r}, but {token!r} is not in model.vocab")
        merges[rank] = ids[left], ids[right], ids[left + right]
    return merges


def _cuts(step: Mapping[str, Any] | None) -> tuple[Pattern, ...]:
    """Return the patterns of a pre-tokenizer that ends in ByteLevel."""
    steps = [] if step is None else step["pretokenizers"] if step["type"] == "Sequence" else [step]
    if not steps or steps[-1]["type"] != "ByteLevel":
        raise _Unsupported(f"key pre_tokenizer is {_kind(step)}; only one that ends in 'ByteLevel' can be used")
    if steps[-1].get("add_prefix_space"):
        raise _Unsupported(
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
            raise _Unsupported(f"key pre_tokenizer has {json.dumps(each)}; known are isolated Split, Digits and ByteLevel")
    if steps[-1].get("use_regex", True):
        return (*cuts, Pattern(PATTERNS["gpt2"].regex, digits))
    return (*cuts, Pattern("", digits)) if digits else tuple(cuts)


def _regex(pattern: Mapping[str, str]) -> str:
    return pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])


def _kind(step: Mapping[str, Any] | None) -> str:
    return "null" if step is None else repr(step.get("type"))


def _say_once(message: str) -> None:
    if message not in _SAID:
        _SAID.add(message)
        logging.getLogger(__name__).warning("%s", message)


_SAID: set[str] = set()
