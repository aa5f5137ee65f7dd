"""Tokenizers in files of any kind: `tokenizer.json`, tiktoken's ranks, and our own for what neither can say.

Reads a file by what is in it, wherever it was made; writes a `tokenizer.json` where one gives the same ids, and
`gristmill-tokenizer.json` where none does: merges across pieces, scaffold tokens, inference without merges. That is one JSON
object: `format` and `version` first, then the fields of `Vocabulary`, tokens in the letters of byte-level files (null for a
special token, whose name is in `special_tokens`), `whole` as the ranks of such merges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.parsing import FLAGS, parse
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.ranks import looks_like_ranks, parse_ranks
from gristmill.tokenizer.vocabulary import Inference, UnsupportedTokenizer, Vocabulary, letters, spell, to_json

OWN, STANDARD, RANKS = "gristmill-tokenizer.json", "tokenizer.json", "tokenizer.tiktoken"
FORMAT, VERSION = "gristmill-tokenizer", 1

_OURS = re.compile(rb'\s*\{\s*"format"\s*:')


def load(path: str | Path, cuts: tuple[Pattern, ...] = (), special_tokens: Mapping[str, int] | None = None) -> Vocabulary:
    """Return the vocabulary of a file, or of the folder that holds it.

    Args:
        path: a folder with `tokenizer.json` or `gristmill-tokenizer.json`, either of these, or a ranks file of tiktoken.
        cuts: what a ranks file does not say: how its publisher cuts text; all other files say it themselves.
        special_tokens: and the special tokens, name → id.

    Raises:
        UnsupportedTokenizer: a `tokenizer.json` that is no plain byte-level BPE.
        InputError: no such file; none of these; cuts or special tokens missing, or given twice; or a mistake in it. Names the
            file and the key.
    """
    file = find_file(path)
    data = file.read_bytes()
    where = str(path)
    if looks_like_ranks(data):
        if not cuts:
            raise InputError(
                f"tokenizer {where!r} is a ranks file, which does not say how text is cut: give the pattern of its publisher as "
                "`pattern`, such as gpt2, llama3 (which is that of cl100k_base too) or o200k"
            )
        return parse_ranks(data, where, cuts, special_tokens or {})
    if cuts or special_tokens:
        raise InputError(f"tokenizer {where!r} says itself how it cuts text and what its special tokens are; give neither")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"tokenizer {where!r}: {file} cannot be read as a tokenizer.json: {error}") from error
    return parse_own(text, where) if _OURS.match(data) else parse(text, where)


def load_base(path: str, eos_token: str | None = None) -> Vocabulary:
    """Return the vocabulary of a tokenizer whose merges others go on from.

    Args:
        path: a `tokenizer.json`, or the folder of one.
        eos_token: must be one of its special tokens, if given.

    Raises:
        InputError: as `load`, or no `tokenizer.json` gives its ids; names the parameter `base`.
    """
    try:
        if looks_like_ranks(find_file(path).read_bytes()):
            raise InputError(f"{path!r} is a ranks file, which does not say how text is cut; give a {STANDARD} made from it")
        found = load(path)
    except InputError as error:
        raise InputError(f"base: {error}") from error
    if eos_token is not None and eos_token not in found.special_tokens:
        raise InputError(
            f"eos_token {eos_token!r} is no special token of base {path!r}; it has {', '.join(found.special_tokens) or 'none'}"
        )
    missing = int((found.byte_ids() < 0).sum())
    for unfit, what in (
        (found.inference != "merges", f"makes tokens by {found.inference}, not by merges"),
        (found.whole is not None, "has merges of whole pieces"),
        (found.scaffolds > 0, "has scaffold tokens"),
        (missing > 0, f"has no token for {missing} of 256 bytes"),
    ):
        if unfit:
            raise InputError(f"base: tokenizer {path!r} {what}; give one with all bytes as tokens, and merges inside pieces only")
    return found


def find_file(path: str | Path) -> Path:
    """Return the file of a tokenizer that `path` is, or holds.

    Raises:
        InputError: there is none, or two.
    """
    place = Path(path)
    found = [file for file in (place / STANDARD, place / OWN) if file.is_file()] if place.is_dir() else [place]
    if len(found) > 1:
        raise InputError(f"tokenizer {str(path)!r} holds {STANDARD} and {OWN}; give one of these files")
    file = found[0] if found else place / STANDARD
    if not file.is_file():
        raise InputError(
            f"tokenizer {str(path)!r}: {file} does not exist; give a folder with a {STANDARD} or that file, "
            "or make one: python -m jobs train-tokenizer jobs/recipes/tokenizer-superbpe-8k.yaml"
        )
    return file


def plain_name(file: Path) -> str:
    """Return what a tokenizer's file is called beside the tokens: by what is in it, wherever it came from."""
    data = file.read_bytes()
    return RANKS if looks_like_ranks(data) else OWN if _OURS.match(data) else STANDARD


def check_plain_names(file: Path, where: str) -> None:
    """Check that the special tokens of a `tokenizer.json` are found in texts by their names alone.

    Raises:
        UnsupportedTokenizer: the library looks at what is around one of them.
    """
    if file.name == OWN or looks_like_ranks(file.read_bytes()):
        return
    added = json.loads(file.read_text(encoding="utf-8")).get("added_tokens") or []
    for token in added:
        for flag in FLAGS:
            if token.get(flag):
                raise UnsupportedTokenizer(
                    f"tokenizer {where!r}: key added_tokens has {token['content']!r} with {flag}, which is more than its name"
                )


def save(vocabulary: Vocabulary, folder: str | Path) -> Path:
    """Write the vocabulary into an existing folder, and return the file."""
    name, text = as_file(vocabulary)
    file = Path(folder) / name
    file.write_text(text, encoding="utf-8")
    return file


def as_file(vocabulary: Vocabulary) -> tuple[str, str]:
    """Return the name and the text of the file that holds this vocabulary: `tokenizer.json` wherever that can be."""
    return (STANDARD, to_json(vocabulary)) if vocabulary.standard else (OWN, to_own(vocabulary))


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
    table = {letter: byte for byte, letter in letters().items()}
    names = {i: name for name, i in special.items()}
    _expect(len(names) == len(special), "special_tokens", "gives two names one id")
    nulls = {i for i, token in enumerate(spelled) if token is None}
    _expect(nulls == set(names), "special_tokens", f"must name just the tokens that are null, found {special}")
    found = []
    for i, token in enumerate(spelled):
        if token is None:
            found.append(names[i].encode())
            continue
        _expect(
            isinstance(token, str) and all(letter in table for letter in token),
            "tokens",
            f"has {token!r} at {i}, which is not byte-level",
        )
        found.append(bytes(table[letter] for letter in token))
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
        good = isinstance(step, dict) and isinstance(step.get("regex"), str) and isinstance(step.get("digits"), bool)
        _expect(
            good and len(step) == 2, "cuts", f"must hold objects of regex (a string) and digits (true or false), found {step}"
        )
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
