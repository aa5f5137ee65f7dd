"""What the merges of a vocabulary say about text: where no merge can cross, and in which two phases they can be applied.

Reads a Vocabulary, writes flat tables for the compiled loops. "Merge barriers": two characters that no merge joins are never in
one token, so text can be cut between them beforehand, whatever the vocabulary, and the short pieces repeat. Superwords cross
nearly every such place; but their merges come late. So the merges of low rank, the first phase, have barriers between
characters, and the merges of high rank, the second, between the ids that the first phase leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.encoding.pair_tables import MOST_IDS, pair_bits
from gristmill.tokenizer.vocabulary import Vocabulary

MOST_LINKS = 4_000_000  # pairs of ids that the second phase may join; with more there are no barriers between ids
PRICE = 50  # a merge across a space costs as much as so many others gain
LEAST_SHARE = 8  # fewer than one in so many merges are no first phase worth having

Ints = npt.NDArray[np.int64]
_SIZES = [1] * 128 + [0] * 64 + [2] * 32 + [3] * 16 + [4] * 8 + [0] * 8  # bytes of a character by its first; 0: not a first
WHOLE, PART, NEVER = 0, 1, 2  # the character at an edge of a token: known, known in part, or the edge is inside a character


@dataclass(frozen=True)
class Merges:
    """The merges that count, in rank order: left and right id, id of both joined; int64 [merges] each."""

    left: Ints
    right: Ints
    joined: Ints

    def __len__(self) -> int:
        """Return their number."""
        return len(self.left)

    def part(self, begin: int, end: int) -> Merges:
        """Return those of rank begin to end."""
        return Merges(self.left[begin:end], self.right[begin:end], self.joined[begin:end])


@dataclass(frozen=True)
class Barriers:
    """Where no merge of the first phase crosses a place between two characters.

    `ascii`: uint8 [128 * 128], 1 where some merge joins these two. `edges`: uint8 [65536], by the last byte before and the first
    byte behind: 1 where a merge of parts of characters may join them. `characters`: bits of pairs of code points.
    """

    ascii: npt.NDArray[np.uint8]
    edges: npt.NDArray[np.uint8]
    characters: npt.NDArray[np.uint8]


class UnsupportedMerges(ValueError):
    """The compiled encoder has no tables for such a vocabulary."""


def known_merges(vocabulary: Vocabulary) -> Merges:
    """Return the merges of a vocabulary; of a pair given twice the last counts, as in the Hugging Face library.

    Raises:
        UnsupportedMerges: ids do not fit, a byte is no token, or a merge spells something else.
    """
    if max(len(vocabulary.tokens), len(vocabulary.merges)) >= MOST_IDS:
        raise UnsupportedMerges(f"more than {MOST_IDS:_} tokens or merges")
    missing = np.flatnonzero(vocabulary.byte_ids() < 0)
    if len(missing):
        raise UnsupportedMerges(f"byte 0x{missing[0]:02X} is no token")
    merges = vocabulary.merges.astype(np.int64).reshape(-1, 3)
    pairs = merges[:, 0] << 32 | merges[:, 1]
    _, last = np.unique(pairs[::-1], return_index=True)
    kept = merges[np.sort(len(merges) - 1 - last)]
    for rank, (left, right, joined) in enumerate(kept.tolist()):
        if vocabulary.tokens[left] + vocabulary.tokens[right] != vocabulary.tokens[joined]:
            raise UnsupportedMerges(f"merge {rank} of ids {left} and {right} does not spell id {joined}")
    return Merges(*(np.ascontiguousarray(column) for column in kept.T))


def find_transition(vocabulary: Vocabulary, merges: Merges) -> int:
    """Return how many merges make the first phase; all of them if two phases would be of no use.

    The first phase may end before rank T if no merge below T takes a token that a merge from T on makes: then once no merge
    below T is left, there never is one again. Of such T the one is best that has the most merges below it and hardly any
    across a space behind a word, as each of these takes a barrier away from everywhere.
    """
    total = len(merges)
    if not total:
        return 0
    made = np.full(len(vocabulary.tokens), -1)
    np.maximum.at(made, merges.joined, np.arange(total))
    needs = np.maximum.accumulate(np.maximum(made[merges.left], made[merges.right]))
    spaced = np.array([token[:1] == b" " for token in vocabulary.tokens])
    solid = np.array([not token.decode(errors="ignore").isspace() for token in vocabulary.tokens])
    worth = np.cumsum(np.where(solid[merges.left] & spaced[merges.right], -PRICE, 1))
    best = int(np.where(needs < np.arange(1, total + 1), worth, worth.min() - 1).argmax()) + 1
    return best if best * LEAST_SHARE >= total else total


def find_barriers(tokens: tuple[bytes, ...], merges: Merges) -> Barriers:
    """Return the barriers of these merges in valid UTF-8."""
    ends, begins = np.zeros((len(tokens), 3), np.int64), np.zeros((len(tokens), 3), np.int64)
    for i in np.unique(merges.left).tolist():
        ends[i] = last_character(tokens[i])
    for i in np.unique(merges.right).tolist():
        begins[i] = first_character(tokens[i])
    left, right = ends[merges.left], begins[merges.right]
    possible = (left[:, 0] != NEVER) & (right[:, 0] != NEVER)
    whole = possible & (left[:, 0] == WHOLE) & (right[:, 0] == WHOLE)
    partial = possible & ~whole
    edges = np.zeros(1 << 16, np.uint8)
    edges[left[partial, 2] << 8 | right[partial, 2]] = 1
    pairs = np.unique(left[whole, 1] << 32 | right[whole, 1])
    before, behind = pairs >> 32, pairs & 0xFFFFFFFF
    both = (before < 128) & (behind < 128)
    table = np.zeros(128 * 128, np.uint8)
    table[before[both] << 7 | behind[both]] = 1
    return Barriers(table, edges, pair_bits(before[~both], behind[~both]))


def last_character(token: bytes) -> tuple[int, int, int]:
    """Return what is known of the character that ends with a token (WHOLE, PART, NEVER), its code point, its last byte."""
    for size in range(1, min(4, len(token)) + 1):
        expected = _SIZES[token[-size]]
        if expected:
            whole = _point(token[-size:]) if expected == size else -1
            return (WHOLE, whole, token[-1]) if whole >= 0 else (NEVER, 0, token[-1])
    return (PART, 0, token[-1]) if 0 < len(token) < 4 else (NEVER, 0, 0)


def first_character(token: bytes) -> tuple[int, int, int]:
    """Return the same of the character that begins with a token, and its first byte."""
    size = _SIZES[token[0]] if token else 0
    if not size:
        return NEVER, 0, 0
    if size > len(token):
        return PART, 0, token[0]
    point = _point(token[:size])
    return (WHOLE, point, token[0]) if point >= 0 else (NEVER, 0, token[0])


def _point(character: bytes) -> int:
    """Return the code point of the bytes of one character, -1 if they are none."""
    try:
        return ord(character.decode())
    except UnicodeDecodeError:
        return -1


def find_links(byte_ids: npt.NDArray[np.int32], low: Merges, high: Merges) -> npt.NDArray[np.uint8]:
    """Return the bits of the pairs of ids (last one left of a place, first one right of it) that a merge of `high` may join.

    A token made by `high` begins with the first ids of its left parts, as many as there are ways to make it, and so on.
    """
    alone = {*byte_ids.tolist(), *low.joined.tolist()}  # what the first phase can leave
    begins: dict[int, set[int]] = {i: {i} for i in alone}
    ends: dict[int, set[int]] = {i: {i} for i in alone}
    rows = list(zip(high.left.tolist(), high.right.tolist(), high.joined.tolist(), strict=True))
    changed = True
    while changed:  # once more if a merge takes what a later one makes
        changed = False
        for left, right, joined in rows:
            for known, part in ((begins, left), (ends, right)):
                new = known.get(part, set()) - known.setdefault(joined, set())
                known[joined] |= new
                changed |= bool(new)
    count = sum(len(ends.get(left, ())) * len(begins.get(right, ())) for left, right, _ in rows)
    if count > MOST_LINKS:
        return np.full(8, 255, np.uint8)
    pairs = sorted({(a, b) for left, right, _ in rows for a in ends.get(left, ()) for b in begins.get(right, ())})
    flat = np.array(pairs, np.int64).reshape(-1, 2)
    return pair_bits(flat[:, 0], flat[:, 1])
