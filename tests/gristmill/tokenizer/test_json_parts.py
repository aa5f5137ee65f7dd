"""Damaged files of tokenizers: the key, what was found and what is allowed, in words of the file and never of Python."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from gristmill.errors import InputError
from gristmill.tokenizer.parsing import parse
from gristmill.tokenizer.token_bytes import parse_token_bytes
from gristmill.tokenizer.vocabulary import Vocabulary, to_json

PYTHON = re.compile(r"Error\b|NoneType|'(int|str|list|dict|float|bool)'|unhashable|object is|not iterable|subscript|unpack|None")
"""Words of Python's own messages."""

WRONG = (None, True, -1, 2.5, "x", [], [None], {}, {"type": 3})


@pytest.fixture(scope="module")
def whole() -> dict:
    """A file with all parts that are read."""
    tokens = (b"<s>", *(bytes([i]) for i in range(256)), b"ca", b"cat")
    merges = np.array([[100, 98, 257], [257, 117, 258]], np.int32)
    data = json.loads(to_json(Vocabulary(tokens, merges, special_tokens={"<s>": 0})))
    split = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}
    data["pre_tokenizer"]["pretokenizers"][:0] = [split, {"type": "Digits", "individual_digits": True}]
    data["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    data["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    data["model"]["unk_id"] = None
    return data


def places(data: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every value; of the vocabulary and the merges the first."""
    if isinstance(data, dict):
        for key in list(data)[:1] if path == ("model", "vocab") else data:
            yield (*path, key)
            yield from places(data[key], (*path, key))
    if isinstance(data, list):
        for i in range(len(data[:1] if path == ("model", "merges") else data)):
            yield (*path, i)
            yield from places(data[i], (*path, i))


def damaged(data: dict, path: tuple[str | int, ...], value: object) -> str:
    """Return the text of the file with another value at a place."""
    changed = copy.deepcopy(data)
    inside = changed
    for part in path[:-1]:
        inside = inside[part]
    if value == "missing":
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return json.dumps(changed)


@pytest.mark.parametrize("read", [parse, parse_token_bytes])
def test_no_damage_is_told_in_words_of_python(whole: dict, read: Callable[[str, str], object]) -> None:
    read(json.dumps(whole), "here")
    refused = 0
    for path in places(whole):
        for value in (*WRONG, "missing"):
            try:
                read(damaged(whole, path, value), "here")
            except InputError as error:
                refused += 1
                told = str(error).removeprefix("tokenizer 'here': ")
                assert told.startswith(
                    ("key ", "the file is not a tokenizer.json: ", "the library says that it cannot be read: ")
                ), (path, value, told)
                assert not PYTHON.search(told.replace(json.dumps(value), "")), (path, value, told)
    assert refused > 60


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model",), None, "the file is not a tokenizer.json: key model is null; it must be an object with 'vocab'"),
        (("model",), "missing", "the file is not a tokenizer.json: key model is missing; it must be an object with 'vocab'"),
        (("model", "vocab"), "x", "key model.vocab is the text 'x'; it must be an object of tokens with their ids"),
        (("model", "vocab", "a"), -3, "key model.vocab: the id of 'a' is the number -3; it must be a whole number from 0 on"),
        (("model", "merges", 0), ["a"], "key model.merges[0] is a list of 1; it must be two tokens, as ['a', 'b'] or 'a b'"),
        (("model", "unk_token"), 3, "key model.unk_token is the number 3; it must be text or null"),
        (("model", "unk_id"), 10**6, "key model.unk_id is the number 1000000; it must be null or the number of a token, from 0"),
        (("added_tokens",), {}, "key added_tokens is an empty object; it must be a list or null"),
        (("added_tokens", 0, "id"), -1, "key added_tokens[0].id is the number -1; it must be a whole number from 0 on"),
        (("added_tokens", 0, "content"), "missing", "key added_tokens[0] has no 'content', which must be text"),
        (("normalizer",), "NFC", "key normalizer is the text 'NFC'; it must be an object or null"),
        (("normalizer", "normalizers", 0, "type"), 1, "key normalizer.normalizers[0] has no 'type' that is text"),
        (("pre_tokenizer", "pretokenizers", 0, "pattern"), {}, "key pre_tokenizer.pretokenizers[0].pattern is an empty object"),
        (("post_processor",), [], "key post_processor is a list of 0; it must be an object or null"),
    ],
)
def test_the_key_what_was_found_and_what_is_allowed(whole: dict, path: tuple, value: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^tokenizer 'here': {re.escape(message)}"):
        parse(damaged(whole, path, value), "here")


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
def test_a_file_of_something_else(text: str) -> None:
    with pytest.raises(InputError, match=r"^tokenizer 'here': the file is not a tokenizer.json: it is .*; it must be an object"):
        parse(text, "here")
    with pytest.raises(InputError, match="nested too deeply"):
        parse("[" * 100_000, "here")
