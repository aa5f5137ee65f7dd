"""`gristmill-tokenizer.json`: any vocabulary, also those whose ids no `tokenizer.json` gives.

Reads and gives the text of the file, one JSON object: `format` and `version` first, then the fields of `Vocabulary`, tokens in
the letters of byte-level files (null for a special token, whose name is in `special_tokens`), `whole` as the ranks of such
merges.
"""

from __future__ import annotations

import json
import re
from typing import TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.json_values import Json, JsonObject, shown
from gristmill.tokenizer.library_calls import library_call
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.token_names import spell, unspell
from gristmill.tokenizer.vocabulary import Inference, Vocabulary

FORMAT, VERSION = "gristmill-tokenizer", 1

_BEGINS = re.compile(rb'\s*\{\s*"format"\s*:')


def is_own(data: bytes) -> bool:
    """Tell whether a file begins as one of this format does."""
    return _BEGINS.match(data) is not None


def to_own(vocabulary: Vocabulary) -> str:
    """Return the text of a `gristmill-tokenizer.json`; any vocabulary has one."""
    special = set(vocabulary.special_tokens.values())
    spelled = [None if i in special else token for i, token in enumerate(spell(vocabulary.tokens))]
    whole = vocabulary.whole
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "inference": vocabulary.inference,
            "cuts": [{"regex": cut.regex, "digits": cut.digits} for cut in vocabulary.cuts],
            "special_tokens": dict(vocabulary.special_tokens),
            "ignore_merges": vocabulary.ignore_merges,
            "scaffolds": vocabulary.scaffolds,
            "whole": None if whole is None else np.flatnonzero(whole).tolist(),
            "merges": vocabulary.merges.tolist(),
            "tokens": spelled,
        },
        ensure_ascii=False,
    )


def parse_own(text: str, where: str) -> Vocabulary:
    """Return the vocabulary of a `gristmill-tokenizer.json`.

    Args:
        text: of the file.
        where: its name for messages.

    Raises:
        InputError: a key is missing, unknown, or holds what it cannot; names it.
    """
    try:
        data: Json = json.loads(text)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise _Mistake(f"key format must be {FORMAT!r}")
        _expect(data.get("version") == VERSION, "version", f"is {data.get('version')!r}; this release reads {VERSION}")
        return _vocabulary(data)
    except RecursionError as error:
        raise InputError(f"tokenizer {where!r} cannot be read: it is nested too deeply") from error
    except (_Mistake, json.JSONDecodeError) as error:
        raise InputError(f"tokenizer {where!r}: {error}") from error


class _Mistake(ValueError):
    """What is wrong in a file of our own format."""


def _expect(good: bool, key: str, message: str) -> None:
    if not good:
        raise _Mistake(f"key {key} {message}")


def _vocabulary(data: JsonObject) -> Vocabulary:
    keys = ("inference", "cuts", "special_tokens", "ignore_merges", "scaffolds", "whole", "merges", "tokens")
    for key in keys:
        _expect(key in data, key, "is missing")
    for key in data:
        _expect(key in (*keys, "format", "version"), key, f"is unknown; known are {', '.join(keys)}")
    inference, ignore_merges, scaffolds = data["inference"], data["ignore_merges"], data["scaffolds"]
    if not _is_inference(inference):
        raise _Mistake(f"key inference must be one of {', '.join(get_args(Inference))}, found {shown(inference)}")
    if not isinstance(ignore_merges, bool):
        raise _Mistake(f"key ignore_merges must be true or false, found {shown(ignore_merges)}")
    special_tokens = _special(data["special_tokens"])
    tokens = _tokens(data["tokens"], special_tokens)
    if not _is_count(scaffolds) or scaffolds > len(tokens):
        raise _Mistake(f"key scaffolds must be a number of tokens, there are {len(tokens)}, found {shown(scaffolds)}")
    merges = _merges(data["merges"], tokens)
    return Vocabulary(
        tokens=tokens,
        merges=merges,
        cuts=_cuts(data["cuts"]),
        special_tokens=special_tokens,
        inference=inference,
        ignore_merges=ignore_merges,
        whole=_whole(data["whole"], len(merges)),
        scaffolds=scaffolds,
    )


def _is_inference(value: Json) -> TypeGuard[Inference]:
    return value in get_args(Inference)


def _is_count(value: Json) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _special(given: Json) -> dict[str, int]:
    """Return the id of each special token."""
    if not isinstance(given, dict):
        raise _Mistake(f"key special_tokens must map names to ids, found {shown(given)}")
    found: dict[str, int] = {}
    for name, i in given.items():
        if not _is_count(i):
            raise _Mistake(f"key special_tokens gives {name!r} {shown(i)}; an id is a whole number from 0 on")
        found[name] = i
    return found


def _tokens(spelled: Json, special: dict[str, int]) -> tuple[bytes, ...]:
    """Return the bytes of each token."""
    if not isinstance(spelled, list):
        raise _Mistake(f"key tokens must be a list, found {shown(spelled)}")
    names = {i: name for name, i in special.items()}
    _expect(len(names) == len(special), "special_tokens", "gives two names one id")
    nulls = {i for i, token in enumerate(spelled) if token is None}
    _expect(nulls == set(names), "special_tokens", f"must name just the tokens that are null, found {special}")
    found: list[bytes] = []
    for i, token in enumerate(spelled):
        if token is None:
            found.append(names[i].encode())
            continue
        made = unspell(token) if isinstance(token, str) else None
        if made is None:
            raise _Mistake(f"key tokens has {token!r} at {i}, which is not byte-level")
        found.append(made)
    return tuple(found)


def _merges(rows: Json, tokens: tuple[bytes, ...]) -> npt.NDArray[np.int32]:
    """Return the merges, int32 [merges, 3]."""
    if not isinstance(rows, list):
        raise _Mistake(f"key merges must hold rows of [left id, right id, joined id], found {shown(rows)}")
    merges = np.zeros((len(rows), 3), np.int32)
    for rank, row in enumerate(rows):
        ids = [i for i in row if _is_count(i)] if isinstance(row, list) else []
        if not isinstance(row, list) or len(row) != 3 or not all(type(i) is int for i in row):
            raise _Mistake(f"key merges must hold rows of [left id, right id, joined id], found {shown(row)} at rank {rank}")
        if len(ids) != 3 or max(ids) >= len(tokens):
            raise _Mistake(f"key merges has an id that no token has; there are {len(tokens)}, found {row} at rank {rank}")
        merges[rank] = left, right, joined = ids
        if tokens[left] + tokens[right] != tokens[joined]:
            raise _Mistake(
                f"key merges has at rank {rank} {tokens[left]!r} with {tokens[right]!r}, but id {joined} is {tokens[joined]!r}"
            )
    return merges


def _check_regex(regex: str) -> None:
    from tokenizers import Regex

    with library_call(lambda error: _Mistake(f"key cuts has a regex that does not compile: {error}; found {regex!r}")):
        Regex(regex)


def _cuts(steps: Json) -> tuple[Pattern, ...]:
    if not isinstance(steps, list):
        raise _Mistake(f"key cuts must be a list, found {shown(steps)}")
    found: list[Pattern] = []
    for step in steps:
        match step:
            case {"regex": str(regex), "digits": (bool() | "each") as digits, **more} if not more:
                pass
            case _:
                raise _Mistake(f"key cuts must hold objects of regex (a string) and digits (true, false or 'each'), found {step}")
        _check_regex(regex)
        found.append(Pattern(regex, digits))
    return tuple(found)


def _whole(ranks: Json, merges: int) -> npt.NDArray[np.bool_] | None:
    if ranks is None:
        return None
    good = isinstance(ranks, list) and all(_is_count(rank) and rank < merges for rank in ranks)
    _expect(good, "whole", f"must be null or hold ranks of merges; there are {merges}, found {shown(ranks)}")
    found = np.zeros(merges, bool)
    found[np.array(ranks, np.int64)] = True
    return found
