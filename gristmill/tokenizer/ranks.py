"""Vocabularies of tiktoken: a ranks file says the bytes of each token, and that any two neighbours that spell one may merge.

Reads lines of `base64 rank`; gives a vocabulary with explicit merges. The file holds neither the pattern nor the special
tokens: they come from its publisher's code, and are given here.

In tiktoken a merge is ranked by what it spells, so each way to cut a token in two tokens is a merge of that token's rank. Of
these all but one can be left out where each token is the result of its own bytes in rank order, as every trained vocabulary
has it: what is next to each other when rank r is due is what the ranks below r make of these bytes alone, so only that one
pair can meet. Tokens that fall apart in three or more parts are only found as whole pieces (`ignore_merges`). If one of them
could be put together later, from a token of higher rank, the argument fails, and all pairs are kept, as transformers does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.json_parts import MOST_IDS
from gristmill.tokenizer.patterns import Pattern
from gristmill.tokenizer.vocabulary import Vocabulary


def looks_like_ranks(data: bytes) -> bool:
    """Tell whether the first line is one of a ranks file."""
    line = data.lstrip().split(b"\n", 1)[0].split()
    return len(line) == 2 and line[1].isdigit() and _decoded(line[0]) is not None


def parse_ranks(data: bytes, where: str, cuts: tuple[Pattern, ...], special_tokens: Mapping[str, int]) -> Vocabulary:
    """Return the vocabulary of a ranks file; ids are ranks.

    Args:
        data: of the file.
        where: its name for messages.
        cuts: the publisher's pattern.
        special_tokens: the publisher's special tokens: name → id.

    Raises:
        InputError: a line that is none, a rank or a token twice, a byte that is no token, a special token with the id of another.
    """
    ranks = _read(data, where)
    for name, i in special_tokens.items():
        if i in ranks or i < 0:
            raise InputError(
                f"special_tokens gives {name!r} the id {i}; tokenizer {where!r} has {len(ranks)} tokens with ids to "
                f"{max(ranks)}, give one that none of them has"
            )
    if len(set(special_tokens.values())) < len(special_tokens):
        raise InputError(f"special_tokens gives two names one id: {dict(special_tokens)}")
    last = max([*ranks, *special_tokens.values()])
    if last >= MOST_IDS:
        raise InputError(f"tokenizer {where!r} has ids to {last}, its special tokens counted; there can be {MOST_IDS:,} at most")
    tokens = [b""] * (last + 1)
    for i, token in ranks.items():
        tokens[i] = token
    for name, i in special_tokens.items():
        tokens[i] = name.encode()
    plain = Vocabulary(tuple(tokens), cuts=cuts, special_tokens=dict(special_tokens), ignore_merges=True)
    missing = np.flatnonzero(plain.byte_ids() < 0).tolist()
    if missing:
        raise InputError(f"tokenizer {where!r} has no token for {len(missing)} of 256 bytes, such as 0x{missing[0]:02x}")
    return Vocabulary(plain.tokens, _merges(plain), cuts, plain.special_tokens, ignore_merges=True)


def _read(data: bytes, where: str) -> dict[int, bytes]:
    """Return the token of each rank."""
    ranks: dict[int, bytes] = {}
    numbers: dict[bytes, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        parts = line.split()
        if not parts:
            continue
        token = _decoded(parts[0])
        if len(parts) != 2 or not parts[1].isdigit() or not token:
            raise InputError(f"tokenizer {where!r}, line {number}: found {line[:60]!r}; a ranks file has lines of 'base64 rank'")
        rank = int(parts[1])
        if rank in ranks or token in numbers:
            raise InputError(f"tokenizer {where!r}, line {number}: rank {rank} or token {token!r} is there twice")
        ranks[rank], numbers[token] = token, rank
    if not ranks:
        raise InputError(f"tokenizer {where!r} has no tokens")
    return ranks


def _decoded(text: bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _merges(vocabulary: Vocabulary) -> np.ndarray:
    """Return the merges, int32 [merges, 3], in the order of the tokens that they make."""
    from gristmill.tokenizer.encoding.splits import all_splits, last_merges
    from gristmill.tokenizer.encoding.trie import make_trie

    trie = make_trie(vocabulary)
    special = set(vocabulary.special_tokens.values())
    ids = np.array([i for i, token in enumerate(vocabulary.tokens) if len(token) > 1 and i not in special], np.int64)
    text = b"".join(vocabulary.tokens[i] for i in ids.tolist())
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(vocabulary.tokens[i]) for i in ids.tolist()], out=offsets[1:])
    data = np.frombuffer(text, np.uint8)
    every, last = all_splits(trie, data, offsets, ids), last_merges(trie, data, offsets, ids)
    late = every[:, 2] < np.maximum(every[:, 0], every[:, 1])
    apart = ids[last[:, 2] < 0]
    kept = every if np.isin(every[late, 2], apart).any() else last[last[:, 2] >= 0]
    merges: np.ndarray = kept.astype(np.int32)
    return merges
