"""Two interpolated n-gram models over token ids: a base counted on all documents, a reference on the curated ones.

Reads ids and counts, gives rows of counts for the exchange, and then losses in nats.

The probability of a token after a context of k − 1 tokens, by interpolated absolute discounting (Ney, Essen and Kneser 1994):

    p_k(w | c) = max(n(c w) − D, 0) / n(c)  +  D · t(c) / n(c) · p_{k−1}(w | c without its first token)

with n the counts, t(c) the number of different tokens seen after c, and p_0 uniform over the vocabulary; where n(c) = 0 it is
p_{k−1}. It sums to 1 over the vocabulary. Leaving one out is exact: a token's own occurrence is taken from n(c w), n(c) and,
where it is the only one, from t(c), at each k. Only tokens with one before them are counted: the first of a document is
never predicted.

Tables are hashed: the entry of an n-gram is its hash modulo `slots`, without a check (single tokens: their id modulo
`slots`). N-grams that share an entry are counted together, which raises n(c w) and n(c) and can lower t(c); probabilities
then no longer sum to 1 exactly. Rule of thumb: `slots` of twice the different n-grams of the longest length.

Entries lie in sections of `slots` each, by (kind, model, length): first the n-grams, then the contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import types

from pipeline.compiling import njit
from stages.score.reference import Losses, Ngram

ROWS = pa.schema([("key", pa.uint64()), ("context", pa.int64()), ("count", pa.int64())])

BASE, REFERENCE = 0, 1
MODELS = 2
CONTEXT_BITS = 28  # see scheme.MOST_SLOTS

Ids = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]

SEED = np.uint64(0x2545F4914F6CDD1D)
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
SHIFT, ONE = np.uint64(32), np.uint64(1)


def _slots_of(ids: Ids, at: int, length: int, slots: int) -> tuple[np.int64, np.int64]:
    """Return the slots of the n-gram of this length that ends at `at`, and of its context (all but the last token)."""
    last = np.uint64(ids[at])
    if length == 1:
        return np.int64(last & np.uint64(slots - 1)), np.int64(0)
    value = SEED
    for i in range(at - length + 1, at):
        value = (value ^ (np.uint64(ids[i]) + ONE)) * MULTIPLIER
        value ^= value >> SHIFT
    context = np.int64(value & np.uint64(slots - 1))
    value = (value ^ (last + ONE)) * MULTIPLIER
    value ^= value >> SHIFT
    return np.int64(value & np.uint64(slots - 1)), context


def _emit(ids: Ids, offsets: Ints, curated: Marks, order: int, slots: int, out: npt.NDArray[np.uint64]) -> int:
    """Write an entry and its context slot, packed, for each n-gram and each context; return how many."""
    written = 0
    contexts = MODELS * order * slots
    for document in range(curated.size):
        for at in range(offsets[document] + 1, offsets[document + 1]):
            for length in range(1, min(order, at - offsets[document] + 1) + 1):
                gram, context = _slots_of_compiled(ids, at, length, slots)
                for model in range(MODELS if curated[document] else 1):
                    start = (model * order + length - 1) * slots
                    out[written] = np.uint64((start + gram) << CONTEXT_BITS | context)
                    out[written + 1] = np.uint64((contexts + start + context) << CONTEXT_BITS)
                    written += 2
    return written


def _probability(
    ids: Ids, at: int, reach: int, own: int, first: int, slots: int, discount: float, size: int, counts: Ints, contexts: Ints
) -> float:
    """Return the probability of the token at `at` after its context.

    Args:
        reach: tokens in the longest n-gram to look at.
        own: 1 when this very occurrence was counted, so is to be left out; else 0.
        first: entry of the model's first section.
        size: of the vocabulary.
        counts: of n-grams [entries].
        contexts: occurrences and different next tokens [entries, 2].
    """
    probability = 1.0 / size
    for length in range(1, reach + 1):
        gram, context = _slots_of_compiled(ids, at, length, slots)
        start = first + (length - 1) * slots
        total = contexts[start + context, 0] - own
        if total <= 0:
            continue
        count = counts[start + gram] - own
        different = contexts[start + context, 1] - (own if count == 0 else 0)
        count, different = min(count, total), min(max(different, 1), total)  # the bounds bite only where slots are shared
        probability = (max(count - discount, 0.0) + discount * different * probability) / total
    return min(probability, 1.0)  # over 1 only where slots are shared


def _losses(
    ids: Ids,
    offsets: Ints,
    curated: Marks,
    order: int,
    slots: int,
    discount: float,
    size: int,
    counts: Ints,
    contexts: Ints,
    base: Losses,
    reference: Losses,
) -> None:
    """Fill the losses of both models [tokens]; the first token of a document stays as it is."""
    for document in range(curated.size):
        seen = 1 if curated[document] else 0
        for at in range(offsets[document] + 1, offsets[document + 1]):
            reach = min(order, at - offsets[document] + 1)
            base[at] = -math.log(_probability_compiled(ids, at, reach, 1, 0, slots, discount, size, counts, contexts))
            first = order * slots
            reference[at] = -math.log(_probability_compiled(ids, at, reach, seen, first, slots, discount, size, counts, contexts))


_OPTIONS = {"cache": True, "nogil": True}
_IDS, _INTS, _MARKS, _FLOATS = types.uint32[::1], types.int64[::1], types.boolean[::1], types.float64[::1]
_INT, _FLOAT = types.int64, types.float64

_slots_of_compiled: Callable[..., Any] = njit(**_OPTIONS)(_slots_of)
_probability_compiled: Callable[..., Any] = njit(**_OPTIONS)(_probability)
_emit_compiled: Callable[..., int] = njit(_INT(_IDS, _INTS, _MARKS, _INT, _INT, types.uint64[::1]), **_OPTIONS)(_emit)
_losses_compiled: Callable[..., None] = njit(
    types.void(_IDS, _INTS, _MARKS, _INT, _INT, _FLOAT, _INT, _INTS, types.int64[:, ::1], _FLOATS, _FLOATS), **_OPTIONS
)(_losses)


def count(ids: Ids, offsets: Ints, curated: Marks, parameters: Ngram) -> pa.Table:
    """Return the counts of these documents as `ROWS`: one row an entry, in the order of keys.

    Args:
        ids: uint32 [tokens].
        offsets: int64 [documents + 1].
        curated: bool [documents].
        parameters: of the model.
    """
    tokens = np.diff(offsets)
    room = int((tokens * np.where(curated, MODELS, 1)).sum()) * parameters.order * 2
    packed = np.empty(room, np.uint64)
    packed = packed[: _emit_compiled(ids, offsets, curated, parameters.order, parameters.slots, packed)]
    packed.sort()
    entries = packed >> np.uint64(CONTEXT_BITS)
    starts = np.flatnonzero(np.diff(entries, prepend=np.uint64(2**63)))
    contexts = packed[starts] & np.uint64(2**CONTEXT_BITS - 1)
    counts = np.diff(starts, append=len(packed))
    return _rows(entries[starts] * np.uint64(_step(parameters)), contexts.astype(np.int64), counts.astype(np.int64))


def add_up(rows: pa.Table) -> pa.Table:
    """Return one row a key: the sum of its counts, the least of its contexts (they differ only where slots are shared)."""
    keys, contexts, counts = (rows[name].to_numpy() for name in ROWS.names)
    if len(keys) == 0:
        return _rows(keys, contexts, counts)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return _rows(keys[starts], np.minimum.reduceat(contexts[order], starts), np.add.reduceat(counts[order], starts))


def has_reference(model: pa.Table, parameters: Ngram) -> bool:
    """Tell whether anything was counted for the reference model."""
    entries = _entries(model, parameters)
    section = parameters.order * parameters.slots
    return bool(((entries >= REFERENCE * section) & (entries < (REFERENCE + 1) * section)).any())


@dataclass(frozen=True)
class Tables:
    """Both models, ready to score.

    `counts`: int64 [entries], of n-grams. `contexts`: int64 [entries, 2]: occurrences of a context, different tokens after it.
    """

    parameters: Ngram
    counts: Ints
    contexts: Ints

    @classmethod
    def of(cls, model: pa.Table, parameters: Ngram) -> Self:
        """Build the tables from the rows of all documents."""
        size = MODELS * parameters.order * parameters.slots
        entries, values = _entries(model, parameters), model["count"].to_numpy()
        grams = entries < size
        counts, contexts = np.zeros(size, np.int64), np.zeros((size, 2), np.int64)
        counts[entries[grams]] = values[grams]
        contexts[entries[~grams] - size, 0] = values[~grams]
        after = entries[grams] // parameters.slots * parameters.slots + model["context"].to_numpy()[grams]
        contexts[:, 1] = np.bincount(after, minlength=size)
        return cls(parameters, counts, contexts)

    def losses(self, ids: Ids, offsets: Ints, curated: Marks, vocab_size: int) -> tuple[Losses, Losses]:
        """Return the losses of the base and the reference model, float64 [tokens], NaN for the first of each document.

        Args:
            ids: uint32 [tokens].
            offsets: int64 [documents + 1].
            curated: bool [documents]; these were counted in both models, the others in the base alone.
            vocab_size: number of tokens that the probabilities sum over.
        """
        base, reference = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
        p = self.parameters
        arguments = (p.order, p.slots, p.discount, vocab_size, self.counts, self.contexts, base, reference)
        _losses_compiled(ids, offsets, curated, *arguments)
        return base, reference


def _step(parameters: Ngram) -> int:
    """Return the distance between the keys of two entries: they fill the 64 bits evenly, as the exchange cuts by key."""
    return 2**64 // (2 * MODELS * parameters.order * parameters.slots)


def _entries(model: pa.Table, parameters: Ngram) -> Ints:
    keys: npt.NDArray[np.uint64] = model["key"].to_numpy()
    return (keys // np.uint64(_step(parameters))).astype(np.int64)


def _rows(keys: npt.NDArray[np.uint64], contexts: Ints, counts: Ints) -> pa.Table:
    return pa.table([pa.array(keys), pa.array(contexts), pa.array(counts)], schema=ROWS)
