"""Tokenizers in files of any kind: `tokenizer.json`, tiktoken's ranks, and our own for what neither can say.

Reads a file by what is in it, wherever it was made; writes a `tokenizer.json` where one gives the same ids, and
`gristmill-tokenizer.json` (`own_format`) where none does: merges across pieces, scaffold tokens, inference without merges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gristmill.errors import InputError
from gristmill.tokenizer.own_format import is_own, parse_own, to_own
from gristmill.tokenizer.parsing import FLAGS, parse
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.ranks import looks_like_ranks, parse_ranks
from gristmill.tokenizer.tokenizer_file import OWN, RANKS, STANDARD, TokenizerFile, find_file
from gristmill.tokenizer.vocabulary import UnsupportedTokenizer, Vocabulary, to_json


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
    return parse_file(TokenizerFile.read(path), cuts, special_tokens)


def parse_file(
    file: TokenizerFile, cuts: tuple[Pattern, ...] = (), special_tokens: Mapping[str, int] | None = None
) -> Vocabulary:
    """Return the vocabulary of a file that was read; see `load`."""
    where = file.where
    if looks_like_ranks(file.data):
        if not cuts:
            raise InputError(
                f"tokenizer {where!r} is a ranks file, which does not say how text is cut: give the pattern of its publisher as "
                "`pattern`, such as gpt2, llama3 (which is that of cl100k_base too) or o200k"
            )
        return parse_ranks(file.data, where, cuts, special_tokens or {})
    if cuts or special_tokens:
        raise InputError(f"tokenizer {where!r} says itself how it cuts text and what its special tokens are; give neither")
    try:
        text = file.data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"tokenizer {where!r} cannot be read as a tokenizer.json: {error}") from error
    return parse_own(text, where) if is_own(file.data) else parse(text, where)


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


def plain_name(file: Path) -> str:
    """Return what a tokenizer's file is called beside the tokens: by what is in it, wherever it came from."""
    data = file.read_bytes()
    return RANKS if looks_like_ranks(data) else OWN if is_own(data) else STANDARD


def check_plain_names(file: TokenizerFile) -> None:
    """Check that the special tokens of a `tokenizer.json` are found in texts by their names alone.

    Raises:
        UnsupportedTokenizer: the library looks at what is around one of them.
    """
    if is_own(file.data) or looks_like_ranks(file.data):
        return
    added = json.loads(file.data).get("added_tokens") or []
    for token in added:
        for flag in FLAGS:
            if token.get(flag):
                raise UnsupportedTokenizer(
                    f"tokenizer {file.where!r}: key added_tokens has {token['content']!r} with {flag}, which is more "
                    "than its name"
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
