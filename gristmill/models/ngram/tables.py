"""A Kneser-Ney model ready to score: its n-grams in hash tables that give exact answers, read many tokens at a time.

Reads the arrays of a model (see `kneser_ney.Level`); makes `Tables` once, and with them the loss of each token.

An n-gram is named by its context's slot in the table of the length below (of one token: the token) and its last token: together
a key of few bits, exact at any length. All but the longest lie in slots of 16 bytes: key, loss and backoff. The longest, most of
a model, lie in slots of 8 bytes: a tag of 32 bits and the loss. The tag is exact too (Cleary 1984, "Compact hash tables using
bidirectional linear probing"): keys are hashed by a permutation of their own range, so the bucket where an n-gram belongs tells
the hash's upper bits, and the tag keeps the lower ones and how many buckets from there it lies. So no n-gram is ever taken for
another. Four or eight slots make a bucket, one line of the cache: most lookups end where they begin.

What costs time is memory: a table of millions of n-grams fits no cache, and branches after a read that is waited for stall the
processor. So a block of tokens goes through one length at a time, in loops without branches that only compute places and read
them, many reads under way at once; another loop then looks at what was read. Only n-grams are looked up whose context and whose
end (without the first token) were found, as a model that has an n-gram has both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.errors import InputError
from gristmill.models.ngram.lookup import BLOCK, EMPTY, NARROW, WIDE, Ids, Ints, Singles, Words, fill_narrow, fill_wide, score

MOST_SLOTS = 2**32  # of a table: a slot and an id make one key of 64 bits
MOST_REST = 28  # bits of a hash in a tag; the others count buckets from where the n-gram belongs
LINE = 64  # bytes of a line of the cache


@dataclass(frozen=True)
class Tables:
    """A model to score with.

    `unigrams`: float32 [vocab_size + 3, 2], loss and backoff. `wide`: uint64 [slots, 2], all tables of n-grams from 2 tokens to
    all but the longest: key, then loss and backoff. `starts`: int64 [order + 1], where the table of each length begins in it.
    `narrow`: uint64 [slots], the longest: the tag in the lower half, the loss in the upper. `shape`: uint64 [4], the bits of a
    token, of a key and of the lower part of a hash of `narrow`, and its buckets.
    """

    order: int
    vocab_size: int
    unigrams: Singles
    wide: Words
    starts: Ints
    narrow: Words
    shape: Words

    def score(self, ids: Ids, bounds: Ints) -> Singles | None:
        """Return the losses of these documents, float32 [tokens], in nats; None where an id is outside the vocabulary."""
        out = np.empty(len(ids), np.float32)
        outside = score(
            ids,
            bounds,
            self.order,
            self.vocab_size,
            self.unigrams,
            self.wide,
            self.wide.view(np.float32),
            self.starts,
            self.narrow,
            self.narrow.view(np.float32).reshape(-1, 2),
            self.shape,
            np.full((self.order, BLOCK + 1), -1, np.int64),
            np.zeros((self.order, BLOCK + 1), np.float32),
            np.empty((3, BLOCK), np.uint64),
            np.empty(BLOCK),
            np.empty(BLOCK, np.int64),
            np.empty(BLOCK, np.bool_),
            out,
        )
        return None if outside else out


def make_tables(order: int, vocab_size: int, unigrams: Singles, levels: Sequence[tuple[Ints, Ids, Singles, Singles]]) -> Tables:
    """Return the tables of a model.

    Args:
        order: tokens of the longest n-gram.
        vocab_size: ids lie below it; at most 2**24.
        unigrams: float32 [vocab_size + 3, 2].
        levels: of each length from 2 on: begins, words, losses and backoffs, see `kneser_ney.Level`.

    Raises:
        InputError: There are more n-grams of a length than a table holds.
    """
    bits = (vocab_size + 1).bit_length()
    sizes = [_checked(int(WIDE) * (len(words) * 2 // int(WIDE) + 1)) for _, words, _, _ in levels[:-1]]  # half of it stays free
    starts: Ints = np.cumsum([0, 0, 0, *sizes]).astype(np.int64)
    wide = _empty(2 * int(starts[-1])).reshape(-1, 2)
    values, parents, most = wide.view(np.float32), np.arange(vocab_size + 3), vocab_size + 3
    for length, (begins, words, losses, backoffs) in enumerate(levels[:-1], 2):
        slots = np.empty(len(words), np.int64)
        fill_wide(begins, words, parents, bits, wide[starts[length] : starts[length + 1]], slots)
        values[starts[length] + slots, 2], values[starts[length] + slots, 3] = losses, backoffs
        parents, most = slots, sizes[length - 2]
    begins, words, losses, _ = levels[-1]
    narrow, shape, slots = make_narrow(begins, words, parents, bits, (most - 1).bit_length() + bits)
    narrow.view(np.float32)[2 * slots + 1] = losses
    return Tables(order, vocab_size, unigrams, wide, starts, narrow, shape)


def make_narrow(begins: Ints, words: Ids, parents: Ints, token_bits: int, bits: int) -> tuple[Words, Words, Ints]:
    """Return the table of the longest n-grams with their tags, its shape, and the slot of each; see `Tables`.

    Args:
        begins: first n-gram of each context [contexts + 1].
        words: last token of each n-gram [n].
        parents: slot of each context [contexts].
        token_bits: of a token.
        bits: of a key: of a slot and a token.
    """
    top, slots = min(bits, 32), np.empty(len(words), np.int64)
    buckets = len(words) * 8 // 5 // int(NARROW) + 1  # three eighths of it stay free
    while True:
        size = _checked(buckets * int(NARROW))
        rest = (-(-(2**top) // buckets) - 1).bit_length() + bits - top
        if rest <= MOST_REST:
            table = _empty(size)
            shape = np.array([token_bits, bits, rest, buckets], np.uint64)
            if fill_narrow(begins, words, parents, shape, table, slots):
                return table, shape, slots
        buckets += buckets // 4 + 1  # hashes too long for few buckets, or a long run of full ones: both rare


def _empty(words: int) -> Words:
    """Return this number of empty words, aligned so that each bucket lies in one line of the cache."""
    wide = np.full(words + LINE // 8, EMPTY)
    skip = -wide.ctypes.data % LINE // 8
    return wide[skip : skip + words]


def _checked(size: int) -> int:
    if size > MOST_SLOTS:
        raise InputError(f"a table of {size} slots for n-grams of one length is more than {MOST_SLOTS}; prune the model more")
    return size
