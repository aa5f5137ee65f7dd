"""`gristmill-tokenizer.json`: any vocabulary, also those whose ids no `tokenizer.json` gives.

Reads and gives the text of the file, one JSON object: `format` and `version` first, then the fields of `Vocabulary`, tokens in
the letters of byte-level files (null for a special token, whose name is in `special_tokens`), `whole` as the ranks of such
merges.
"""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import numpy as np

from gristmill.errors import InputError
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
        data = json.loads(text)
        _expect(isinstance(data, dict) and data.get("format") == FORMAT, "format", f"must be {FORMAT!r}")
        _expect(data.get("version") == VERSION, "version", f"is {data.get('version')!r}; this release reads {VERSION}")
        return _vocabulary(data)
    except (_Mistake, json.JSONDecodeError) as error:
        raise InputError(f"tokenizer {where!r}: {error}") from error


class _Mistake(ValueError):
    """What is wrong in a file of our own format."""


def _expect(good: bool, key: str, message: str) -> None:
    if not good:
        raise _Mistake(f"key {key} {message}")


def _vocabulary(data: dict[str, Any]) -> Vocabulary:
    keys = ("inference", "cuts", "special_tokens", "ignore_merges", "scaffolds", "whole", "merges", "tokens")
    for key in keys:
        _expect(key in data, key, "is missing")
    for key in data:
        _expect(key in (*keys, "format", "version"), key, f"is unknown; known are {', '.join(keys)}")
    _expect(data["inference"] in get_args(Inference), "inference", f"must be one of {', '.join(get_args(Inference))}")
    _expect(isinstance(data["ignore_merges"], bool), "ignore_merges", "must be true or false")
    tokens = _tokens(data["tokens"], data["special_tokens"])
    scaffolds = data["scaffolds"]
    _expect(_is_count(scaffolds) and scaffolds <= len(tokens), "scaffolds", "must be a number of tokens")
    merges = _merges(data["merges"], tokens)
    return Vocabulary(
        tokens=tokens,
        merges=merges,
        cuts=_cuts(data["cuts"]),
        special_tokens=data["special_tokens"],
        inference=data["inference"],
        ignore_merges=data["ignore_merges"],
        whole=_whole(data["whole"], len(merges)),
        scaffolds=scaffolds,
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _tokens(spelled: object, special: object) -> tuple[bytes, ...]:
    """Return the bytes of each token."""
    _expect(isinstance(spelled, list), "tokens", "must be a list")
    _expect(isinstance(special, dict), "special_tokens", "must map names to ids")
    assert isinstance(spelled, list) and isinstance(special, dict)
    names = {i: name for name, i in special.items()}
    _expect(len(names) == len(special), "special_tokens", "gives two names one id")
    nulls = {i for i, token in enumerate(spelled) if token is None}
    _expect(nulls == set(names), "special_tokens", f"must name just the tokens that are null, found {special}")
    found = []
    for i, token in enumerate(spelled):
        if token is None:
            found.append(names[i].encode())
            continue
        made = unspell(token) if isinstance(token, str) else None
        if made is None:
            raise _Mistake(f"key tokens has {token!r} at {i}, which is not byte-level")
        found.append(made)
    return tuple(found)


def _merges(rows: object, tokens: tuple[bytes, ...]) -> np.ndarray:
    """Return the merges, int32 [merges, 3]."""
    try:
        merges = np.array(rows or np.zeros((0, 3)), np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _Mistake(f"key merges must hold rows of [left id, right id, joined id]: {error}") from error
    _expect(merges.ndim == 2 and merges.shape[1] == 3, "merges", "must hold rows of [left id, right id, joined id]")
    within = bool(((merges >= 0) & (merges < len(tokens))).all())
    _expect(within, "merges", f"has an id that no token has; there are {len(tokens)}")
    for rank, (left, right, joined) in enumerate(merges.tolist()):
        if tokens[left] + tokens[right] != tokens[joined]:
            raise _Mistake(
                f"key merges has at rank {rank} {tokens[left]!r} with {tokens[right]!r}, but id {joined} is {tokens[joined]!r}"
            )
    return merges.astype(np.int32)


def _cuts(steps: object) -> tuple[Pattern, ...]:
    from tokenizers import Regex

    _expect(isinstance(steps, list), "cuts", "must be a list")
    assert isinstance(steps, list)
    found = []
    for step in steps:
        good = isinstance(step, dict) and isinstance(step.get("regex"), str) and len(step) == 2
        good = good and (isinstance(step.get("digits"), bool) or step.get("digits") == "each")
        _expect(good, "cuts", f"must hold objects of regex (a string) and digits (true, false or 'each'), found {step}")
        try:
            Regex(step["regex"])
        except Exception as error:  # the library raises nothing narrower
            raise _Mistake(f"key cuts has a regex that does not compile: {error}; found {step['regex']!r}") from error
        found.append(Pattern(step["regex"], step["digits"]))
    return tuple(found)


def _whole(ranks: object, merges: int) -> np.ndarray | None:
    if ranks is None:
        return None
    good = isinstance(ranks, list) and all(_is_count(rank) and rank < merges for rank in ranks)
    _expect(good, "whole", f"must be null or hold ranks of merges; there are {merges}")
    found = np.zeros(merges, bool)
    found[np.array(ranks, np.int64)] = True
    return found
