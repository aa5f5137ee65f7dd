"""A `tokenizer.json` of any kind: its parts, the id of each token of its model, and of those added beside it.

Reads the text of the file. `parsing` makes a vocabulary of it where the model is byte-level BPE, `token_bytes` the bytes of its
tokens wherever these say them.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gristmill.errors import InputError
from gristmill.tokenizer.json_parts import AddedToken, File, Mistake, is_file
from gristmill.tokenizer.library_calls import library_call
from gristmill.tokenizer.vocabulary import Added, UnsupportedTokenizer


@dataclass(frozen=True)
class TokenizerJson:
    """What a file says.

    `data`: all of it. `pieces`: the tokens of the model, as the file writes them → id. `added`: the tokens beside the model, with
    the ids that the library gives them.
    """

    data: File
    pieces: Mapping[str, int]
    added: tuple[Added, ...]


class Unsupported(ValueError):
    """A part of a tokenizer.json that is not known here."""


@contextlib.contextmanager
def blamed_on(where: str) -> Iterator[None]:
    """Say of which file it is that something was not as expected.

    Args:
        where: its name for messages.

    Raises:
        UnsupportedTokenizer: for `Unsupported`.
        InputError: for `Mistake`, and for what is no JSON.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise InputError(f"tokenizer {where!r} cannot be read as a tokenizer.json: {error}") from error
    except Unsupported as error:
        raise UnsupportedTokenizer(f"tokenizer {where!r}: {error}") from error
    except Mistake as error:
        raise InputError(f"tokenizer {where!r}: {error}") from error
    except RecursionError as error:
        raise InputError(f"tokenizer {where!r} cannot be read as a tokenizer.json: it is nested too deeply") from error


def read(text: str, where: str) -> TokenizerJson:
    """Return what a `tokenizer.json` says; to be called in `blamed_on`.

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        Mistake: something in it is not what a tokenizer has there, or it gives two tokens one id, or one token two.
    """
    data = json.loads(text)
    assert is_file(data)
    vocabulary = data["model"]["vocab"]
    pieces = vocabulary if isinstance(vocabulary, dict) else {piece[0]: i for i, piece in enumerate(vocabulary)}
    return TokenizerJson(data, pieces, _added(data, pieces, text, where))


def _added(data: File, own: Mapping[str, int], text: str, where: str) -> tuple[Added, ...]:
    """Return the added tokens with the ids that the library gives them.

    It numbers those that the model does not have one after the other, whatever ids the file says (tokenizers 0.23).
    """
    given = {i: name for name, i in own.items()}
    if len(given) < len(own):
        twice = next(name for name, i in own.items() if given[i] != name)
        i = own[twice]
        raise Mistake(f"key model.vocab gives {twice!r} and {given[i]!r} the one id {i}; give each token its own")
    listed = data.get("added_tokens") or []
    _check_added(listed, own, given)
    ids = {token["content"]: own.get(token["content"], token["id"]) for token in listed}
    outside = [token["content"] for token in listed if token["content"] not in own]
    if [ids[name] for name in outside] != list(range(len(own), len(own) + len(outside))):
        ids = _ids_of_library(text, where)
    for token in listed:
        name, its = token["content"], ids.get(token["content"])
        if its is not None and its != token["id"]:
            if given.get(its, name) != name:
                raise Mistake(
                    f"key added_tokens: the library gives {name!r} the id {its}, which {given[its]!r} has in model.vocab"
                )
            _say_once(
                f"tokenizer {where!r}: key added_tokens gives {name!r} the id {token['id']}, the Hugging Face library {its}; ids "
                "here are the library's"
            )
    return tuple(
        Added(token["content"], ids[token["content"]], bool(token["special"]), bool(token.get("normalized")))
        for token in listed
        if token["content"] in ids
    )


def _check_added(listed: Sequence[AddedToken], own: Mapping[str, int], given: Mapping[int, str]) -> None:
    """Raise Mistake where an id belongs to two tokens, or a token is there twice."""
    names: dict[int, str] = {}
    for token in listed:
        name, i = token["content"], token["id"]
        if names.get(i, name) != name:
            raise Mistake(f"key added_tokens gives {names[i]!r} and {name!r} the one id {i}; give each token its own")
        if i in given and given[i] != name:
            raise Mistake(
                f"key added_tokens gives {name!r} the id {i}, which {given[i]!r} has in model.vocab; give it one that no token "
                f"has, such as {max(given) + 1}"
            )
        names[i] = name
    if len(names) < len(listed):
        several = [token["content"] for token in listed]
        twice = next(name for i, name in enumerate(several) if name in several[:i])
        raise Mistake(f"key added_tokens has {twice!r} twice; name each token once")
    if len(set(names.values())) < len(names):
        twice = next(name for i, name in names.items() if list(names.values()).index(name) < list(names).index(i))
        raise Mistake(f"key added_tokens has {twice!r} twice, with two ids; name each token once")


def _ids_of_library(text: str, where: str) -> dict[str, int]:
    from tokenizers import Tokenizer

    with library_call(lambda error: InputError(f"tokenizer {where!r}: the library says that it cannot be read: {error}")):
        tokenizer = Tokenizer.from_str(text)
    return {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}


def _say_once(message: str) -> None:
    if message not in _SAID:
        _SAID.add(message)
        logging.getLogger(__name__).warning("%s", message)


_SAID: set[str] = set()
