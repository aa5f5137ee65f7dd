"""The compiled loops that score with a Kneser-Ney model: entering n-grams into hash tables, and looking up many at a time.

They read the arrays of `kneser_ney_tables.Tables`, which says how tables are laid out and why, and fill arrays that the caller
made; all release the GIL.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer

Words = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]

BLOCK = 512
"""Tokens that are looked up together: enough to hide the waiting, few enough that what is kept of them stays in the cache."""

EMPTY = np.uint64(2**64 - 1)
TAG = np.uint64(2**32 - 1)  # the bits of a tag in a narrow slot; all set where it is empty
MIX_1 = np.uint64(0x9E3779B97F4A7C15)  # odd constants that spread the bits of a product
MIX_2 = np.uint64(0xD6E8FEB86659FD93)
ZERO, ONE, TWO, THREE, HALF = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(32)
WIDE, NARROW = np.uint64(4), np.uint64(8)  # slots of a bucket


@inner
def _home(key: np.uint64, buckets: np.uint64) -> np.uint64:
    """Return the bucket of a wide table where a key belongs."""
    mixed = key * MIX_1
    mixed = (mixed ^ (mixed >> HALF)) * MIX_2
    return ((mixed >> HALF) * buckets) >> HALF


@inner
def permuted(key: np.uint64, bits: np.uint64) -> np.uint64:
    """Return the hash of a key of `bits` bits (1 to 64): of as many bits, and different for each key."""
    mask = ((ONE << (bits - ONE)) << ONE) - ONE
    mixed = (key * MIX_1) & mask
    mixed ^= mixed >> ((bits + ONE) >> ONE)
    return (mixed * MIX_2) & mask


@inner
def _belongs(mixed: np.uint64, bits: np.uint64, buckets: np.uint64) -> np.uint64:
    """Return the bucket of the narrow table where a hash of `bits` bits belongs; it rises with the hash."""
    top = min(bits, HALF)
    return ((mixed >> (bits - top)) * buckets) >> top


@outer
def fill_wide(begins: Ints, words: Ids, parents: Ints, bits: int, table: Words, slots: Ints) -> None:
    """Enter n-grams in order of context and token into their empty table; only its keys are filled.

    Args:
        begins: first n-gram of each context [contexts + 1].
        words: last token of each n-gram [n].
        parents: slot of each context [contexts].
        bits: of a token.
        table: [slots, 2].
        slots: filled with the slot of each n-gram [n].
    """
    size = np.uint64(table.shape[0])
    for context in range(parents.size):
        for i in range(begins[context], begins[context + 1]):
            key = np.uint64(parents[context]) << np.uint64(bits) | np.uint64(words[i])
            slot = _home(key, size // WIDE) * WIDE
            while table[slot, 0] != EMPTY:
                slot = slot + ONE if slot + ONE < size else ZERO
            table[slot, 0] = key
            slots[i] = slot


@outer
def fill_narrow(begins: Ints, words: Ids, parents: Ints, shape: Words, table: Words, slots: Ints) -> bool:
    """Enter the longest n-grams, see `fill_wide`; return whether each found room near enough to where it belongs.

    Args:
        shape: see `Tables`.
        table: [slots], whose tags are filled.
    """
    token_bits, bits, rest, buckets = shape[0], shape[1], shape[2], shape[3]
    far = (ONE << (HALF - rest)) - ONE
    for context in range(parents.size):
        for i in range(begins[context], begins[context + 1]):
            mixed = permuted(np.uint64(parents[context]) << token_bits | np.uint64(words[i]), bits)
            bucket, steps = _belongs(mixed, bits, buckets), ZERO
            while table[bucket * NARROW + NARROW - ONE] != EMPTY:
                bucket = bucket + ONE if bucket + ONE < buckets else ZERO
                steps += ONE
                if steps >= far:
                    return False
            slot = bucket * NARROW
            while table[slot] != EMPTY:
                slot += ONE
            table[slot] = steps << rest | mixed & ((ONE << rest) - ONE)
            slots[i] = slot
    return True


@inner
def _look_up_wide(
    many: int,
    room: Words,
    table: Words,
    values: Singles,
    picked: Ints,
    losses: Doubles,
    slots: Ints,
    backs: Singles,
) -> None:
    """Look up n-grams that are not the longest; fill loss, slot and backoff of those found, at their places `picked`."""
    keys, homes, reads = room[0], room[1], room[2]
    size = np.uint64(table.shape[0])
    for i in range(many):
        homes[i] = _home(keys[i], size // WIDE) * WIDE
    for i in range(many):
        reads[i] = table[homes[i], 0]  # nothing waits for it, so that many are under way at once
    for i in range(many):
        slot, key, first = homes[i], keys[i], reads[i]
        while True:
            one, two, three = table[slot + ONE, 0] == key, table[slot + TWO, 0] == key, table[slot + THREE, 0] == key
            hit = (first == key) | one | two | three
            if hit | (table[slot + THREE, 0] == EMPTY):  # a bucket fills from its first slot on, and only a full one runs over
                break
            slot = slot + WIDE if slot + WIDE < size else ZERO
            first = table[slot, 0]
        if hit:
            slot += np.uint64(one) + np.uint64(two) * TWO + np.uint64(three) * THREE
            at = picked[i]
            losses[at] = values[slot, 2]
            slots[at + 1] = np.int64(slot)
            backs[at + 1] = values[slot, 3]


@inner
def _look_up_narrow(many: int, room: Words, table: Words, values: Singles, shape: Words, picked: Ints, losses: Doubles) -> None:
    """Look up n-grams of the greatest length; fill the loss of those found."""
    keys, homes, reads = room[0], room[1], room[2]
    bits, rest, buckets = shape[1], shape[2], shape[3]
    for i in range(many):
        mixed = permuted(keys[i], bits)
        keys[i] = mixed & ((ONE << rest) - ONE)
        homes[i] = _belongs(mixed, bits, buckets) * NARROW
    for i in range(many):
        reads[i] = table[homes[i] + NARROW - ONE]
    for i in range(many):
        slot, tag, last = homes[i], keys[i], reads[i]
        while True:
            place = ZERO
            for j in range(8):
                place |= np.uint64(j + 1) if table[slot + np.uint64(j)] & TAG == tag else ZERO
            if (place != ZERO) | (last == EMPTY):
                break
            slot = slot + NARROW if slot + NARROW < buckets * NARROW else ZERO
            last = table[slot + NARROW - ONE]
            tag += ONE << rest
        if place != ZERO:
            losses[picked[i]] = values[slot + place - ONE, 1]


@inner
def _pick(
    many: int,
    ids: Ids,
    low: int,
    bits: np.uint64,
    contexts: Ints,
    backs: Singles,
    fresh: Marks,
    keys: Words,
    picked: Ints,
    losses: Doubles,
) -> int:
    """Back off from the contexts of one length; write keys and places of longer n-grams that may be there; return how many."""
    chosen = 0
    for i in range(many):
        losses[i] += np.float64(0) if fresh[i] else np.float64(backs[i])
        keys[chosen] = np.uint64(contexts[i]) << bits | np.uint64(ids[low + i])
        picked[chosen] = i
        chosen += (not fresh[i]) & (contexts[i] >= 0) & (contexts[i + 1] >= 0)
    return chosen


@inner
def _begin(
    many: int,
    ids: Ids,
    low: int,
    begin: int,
    bits: np.uint64,
    unigrams: Singles,
    fresh: Marks,
    keys: Words,
    picked: Ints,
    losses: Doubles,
) -> None:
    """Write the loss of each token of a block by itself, with the backoff of the one before; the keys of both together."""
    for i in range(many):
        token = np.uint64(ids[low + i])
        before = np.uint64(begin) if fresh[i] else np.uint64(ids[low + i - 1])
        keys[i] = before << bits | token
        losses[i] = np.float64(unigrams[token, 0]) + np.float64(unigrams[before, 1])
        picked[i] = i


@outer
def score(
    ids: Ids,
    bounds: Ints,
    order: int,
    begin: int,
    unigrams: Singles,
    wide: Words,
    wide_values: Singles,
    starts: Ints,
    narrow: Words,
    narrow_values: Singles,
    shape: Words,
    slots: Ints,
    backs: Singles,
    room: Words,
    losses: Doubles,
    picked: Ints,
    fresh: Marks,
    out: Singles,
) -> int:
    """Fill the loss of each token after those before it in its document; return 0, or 1 for an id ≥ `begin`.

    Args:
        ids: uint32 [tokens].
        bounds: int64 [documents + 1].
        order: tokens of the longest n-gram.
        begin: the id that stands for a document's start.
        unigrams, wide, starts, narrow, shape: see `Tables`; `wide_values` [slots, 4] and `narrow_values` [slots, 2] are their
            memory as float32.
        slots: [order, BLOCK + 1], −1; row k - 1: where the n-gram of length k that ends at token i of a block lies, in column
            i + 1; −1 where it is not; column 0 is of the token before the block.
        backs: [order, BLOCK + 1], 0; their backoffs.
        room: [3, BLOCK], as are the next without the 3.
        losses: of the tokens of a block.
        picked: places in the block of the n-grams that are looked up.
        fresh: where a document begins.
        out: float32 [tokens].
    """
    bits, document, keys = shape[0], 0, room[0]
    for low in range(bounds[0], bounds[-1], BLOCK):
        many, outside = min(BLOCK, bounds[-1] - low), False
        for i in range(many):
            fresh[i] = False
            outside |= ids[low + i] >= begin
        if outside:
            return 1
        while document < bounds.size - 1 and bounds[document] < low + many:
            if bounds[document] < bounds[document + 1]:
                fresh[bounds[document] - low] = True
            document += 1
        _begin(many, ids, low, begin, bits, unigrams, fresh, keys, picked, losses)
        chosen = many
        for length in range(2, order + 1):
            if length > 2:
                chosen = _pick(many, ids, low, bits, slots[length - 2], backs[length - 2], fresh, keys, picked, losses)
            if length == order:
                _look_up_narrow(chosen, room, narrow, narrow_values, shape, picked, losses)
                continue
            here, backoffs = slots[length - 1], backs[length - 1]
            here[0], backoffs[0] = here[BLOCK], backoffs[BLOCK]
            here[1:] = -1
            backoffs[1:] = 0
            first, last = starts[length], starts[length + 1]
            _look_up_wide(chosen, room, wide[first:last], wide_values[first:last], picked, losses, here, backoffs)
        for i in range(many):
            out[low + i] = losses[i]
    return 0
