"""An n-gram model over token ids: interpolated, modified Kneser-Ney (Chen and Goodman 1998), estimated as KenLM's lmplz does.

Reads documents as flat ids and bounds; makes exact `Counts` of a shard, which merge; estimates a `Model` from them, which is
kept in one Arrow file and gives the loss of each token in nats.

As in Heafield et al. 2013 ("Scalable modified Kneser-Ney language model estimation"):

    p(w | c) = (a(c w) − D(a(c w))) / a(c)  +  γ(c) · p(w | c without its first token),   γ(c) = Σ_w D(a(c w)) / a(c)

with a the counts for the longest n-grams and those that begin a document, else the number of different tokens before; D one
of three discounts (1, 2, 3 or more) a length, from the counts of counts; below single tokens lies the uniform distribution
over the vocabulary, a document's end and one unknown token: `1 / (vocab_size + 2)` each. So ids that were never seen have
the probability of KenLM's `<unk>`, and `lmplz --vocab_pad (vocab_size + 2)` gives the same numbers on the same documents.
An n-gram that occurs at most `prune` times is left out, its share goes to γ, as in lmplz.

Over all ids and the end, together with the one unknown token, the probabilities after any context sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.models.ngram import kernels as kernels
from gristmill.models.ngram.tables import make_tables

MOST_ORDER = 5
MOST_IDS = 2**24  # a slot and an id make one key of 64 bits
Integers = npt.NDArray[np.uint16] | npt.NDArray[np.uint32] | npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Discounts = tuple[float, float, float]
FALLBACK: Discounts = (0.5, 1.0, 1.5)
"""What lmplz takes by default where counts of counts give no discounts and a fallback is asked for."""


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of `order` tokens occurs; documents are preceded by starts and followed by one end.

    `keys`: uint64 [n, words], increasing, see `kneser_ney_kernels`. `counts`: int64 [n]. Those of shorter n-grams follow from
    them, as each is the end of one of these.
    """

    order: int
    vocab_size: int
    keys: kernels.Words
    counts: kernels.Ints

    @property
    def documents(self) -> int:
        """Return how many were counted: each has one end."""
        ends = _last(self.keys[:, 0], width_of(self.vocab_size)) == self.vocab_size + 1
        return int(self.counts[ends].sum())

    @property
    def tokens(self) -> int:
        """Return how many were counted, without the ends of documents."""
        return int(self.counts.sum()) - self.documents


@dataclass(frozen=True)
class Level:
    """The n-grams of one length, in order of context and token.

    `begins`: int64 [contexts + 1], the first of each context; contexts are ids (of one token) or n-grams of the level below.
    `words`: uint32 [n], the last token. `losses`: float32 [n], −ln p. `backoffs`: float32 [n], −ln γ; none for the longest.
    """

    begins: kernels.Ints
    words: kernels.Ids
    losses: Singles
    backoffs: Singles


@dataclass(frozen=True)
class Model:
    """Probabilities of n-grams. `unigrams`: float32 [vocab_size + 3, 2], −ln p and −ln γ of each id, start, end, unknown."""

    order: int
    vocab_size: int
    discounts: tuple[Discounts, ...]
    unigrams: Singles
    levels: tuple[Level, ...]

    def open(self) -> Callable[[Integers, kernels.Ints], Singles]:
        """Return score(ids [tokens], bounds int64 [documents + 1]) → float32 [tokens]: −ln p of each token, in nats.

        Each document is read after a start, so its first token has a loss too, that of beginning a document. Raises InputError
        for ids outside the vocabulary. No entropies: they take a sum over the vocabulary at each context.
        """
        levels = [(each.begins, each.words, each.losses, each.backoffs) for each in self.levels]
        tables = make_tables(self.order, self.vocab_size, self.unigrams, levels)

        def score(ids: Integers, bounds: kernels.Ints) -> Singles:
            flat, ends = _flat(ids, bounds)
            out = tables.score(flat, ends)
            if out is None:
                raise _outside(flat, self.vocab_size)
            return out

        return score


def count(ids: Integers, bounds: kernels.Ints, *, order: int, vocab_size: int) -> Counts:
    """Return the counts of these documents.

    Args:
        ids: unsigned [tokens].
        bounds: int64 [documents + 1]; document d is ids[bounds[d]:bounds[d + 1]].
        order: tokens of the longest n-gram, 2 to 5.
        vocab_size: ids lie below it.

    Raises:
        ValueError: The order is not allowed, or bounds do not fit the ids.
        InputError: An id is outside the vocabulary.
    """
    if not 2 <= order <= MOST_ORDER:
        raise ValueError(f"order must be from 2 to {MOST_ORDER}, found {order}")
    if not 1 <= vocab_size <= MOST_IDS:
        raise ValueError(f"vocab_size must be from 1 to {MOST_IDS}, found {vocab_size}")
    flat, ends = _flat(ids, bounds)
    bits = width_of(vocab_size)
    per = 64 // bits
    keys = np.zeros((len(flat) + len(ends) - 1, -(-order // per)), np.uint64)
    if kernels.pack(flat, ends, order, bits, vocab_size, vocab_size + 1, keys):
        raise _outside(flat, vocab_size)
    if keys.shape[1] == 1:
        keys[:, 0].sort()
    else:
        keys = keys[np.lexsort(tuple(keys[:, i] for i in range(keys.shape[1] - 1, -1, -1)))]
    counts = np.empty(len(keys), np.int64)
    kept = kernels.squeeze(keys, counts)
    return Counts(order, vocab_size, keys[:kept].copy(), counts[:kept].copy())


def merge(shards: Sequence[Counts]) -> Counts:
    """Return the sum of the counts, whatever the order of the shards."""
    if len({(each.order, each.vocab_size) for each in shards}) != 1:
        raise ValueError("counts of one or more shards, of the same order and vocab_size, can be merged")
    parts = list(shards)
    while len(parts) > 1:
        parts = [_merge(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]


def _merge(left: Counts, right: Counts) -> Counts:
    most = len(left.counts) + len(right.counts)
    keys, counts = np.empty((most, left.keys.shape[1]), np.uint64), np.empty(most, np.int64)
    kept = kernels.merge(left.keys, left.counts, right.keys, right.counts, keys, counts)
    return Counts(left.order, left.vocab_size, keys[:kept].copy(), counts[:kept].copy())


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one length in order of their suffixes: a key of each [n], adjusted and true counts [n]."""

    rows: kernels.Ints
    adjusted: kernels.Ints
    raw: kernels.Ints


def estimate(counts: Counts, *, prune: Sequence[int] = (), fallback: Discounts | None = None) -> Model:
    """Return the model of these counts.

    Args:
        counts: of all documents.
        prune: for each length from 1 on, the count up to which n-grams are left out; the last holds for all longer ones. The
            first must be 0, and none less than the one before.
        fallback: discounts of a length where counts of counts give none (few or repeated documents); None: an error.

    Raises:
        ValueError: `prune` or `fallback` is not allowed.
        InputError: The counts give no discounts, and there is no fallback.
    """
    limits = _limits(prune, counts.order)
    if fallback is not None and not all(0 < each <= j + 1 for j, each in enumerate(fallback)):
        raise ValueError(f"fallback must be three discounts above 0 and at most 1, 2 and 3, found {fallback}")
    grams = _gather(counts)
    discounts = tuple(discounts_of(each.adjusted, i + 1, fallback) for i, each in enumerate(grams))
    size, bits = counts.vocab_size, width_of(counts.vocab_size)
    words = [_last(counts.keys[each.rows, 0], bits) for each in grams]
    lower = _unigrams(grams[0], words[0], discounts[0], size)
    starts, tables = _empty([0, 0, *(len(each.rows) for each in grams[1:])])
    unigrams = np.zeros((size + 3, 2), np.float32)
    unigrams[:, 0] = -np.log(lower)
    unigrams[size, 0] = 0  # nothing predicts a start; as in an ARPA file of lmplz
    ranks: kernels.Ints = np.arange(size + 3)  # of the n-grams of the level below in their final order; −1: pruned
    backoffs: list[Singles] = []
    levels: list[tuple[kernels.Ints, kernels.Ids, Singles]] = []
    for i in range(1, counts.order):
        each, contexts = grams[i], np.empty(len(grams[i].rows), np.int64)
        kernels.enter(counts.keys, each.rows, i + 1, bits, tables, starts, contexts)
        suffixes = words[i] if i == 1 else np.searchsorted(grams[i - 1].rows, each.rows, side="right") - 1
        kept = each.raw > limits[i]
        higher, rests = _interpolate(each.adjusted, kept, contexts, len(ranks), discounts[i], lower[suffixes])
        order, begins = _in_order(kept, words[i], ranks[contexts], int(ranks.max(initial=-1)) + 1)
        backoffs.append(np.empty(len(begins) - 1, np.float32))
        backoffs[-1][ranks[ranks >= 0]] = -np.log(rests[ranks >= 0])
        levels.append((begins, words[i][order].astype(np.uint32), (-np.log(higher[order])).astype(np.float32)))
        ranks = np.full(len(each.rows), -1, np.int64)
        ranks[order] = np.arange(len(order))
        lower = higher
    unigrams[:, 1] = backoffs[0]
    rests_of = [*backoffs[1:], np.zeros(0, np.float32)]
    made = tuple(Level(*level, rest) for level, rest in zip(levels, rests_of, strict=True))
    return Model(counts.order, size, discounts, unigrams, made)


def _unigrams(grams: _Grams, words: kernels.Ints, discounts: Discounts, size: int) -> Doubles:
    """Return the probability of each id, start, end and the unknown token, float64 [size + 3]."""
    total = grams.adjusted.sum()
    taken = np.array(discounts)[np.minimum(grams.adjusted, 3) - 1]
    found = np.full(size + 3, taken.sum() / total / (size + 2))
    found[words] += (grams.adjusted - taken) / total
    return found


def _in_order(
    kept: npt.NDArray[np.bool_], words: kernels.Ints, contexts: kernels.Ints, count: int
) -> tuple[kernels.Ints, kernels.Ints]:
    """Return the n-grams that are kept, in order of context and token, and the first of each context.

    Args:
        kept: [n].
        words: [n], the last token of each.
        contexts: [n], its context's rank.
        count: how many contexts there are.
    """
    order = np.flatnonzero(kept)
    order = order[np.lexsort((words[order], contexts[order]))]
    begins = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(contexts[order], minlength=count), out=begins[1:])
    return order, begins


def _interpolate(
    adjusted: kernels.Ints, kept: npt.NDArray[np.bool_], contexts: kernels.Ints, count: int, discounts: Discounts, lower: Doubles
) -> tuple[Doubles, Doubles]:
    """Return the probabilities of n-grams [n], and γ of each of `count` contexts, 1 where nothing was seen after it."""
    total = np.bincount(contexts, adjusted, minlength=count)
    taken = np.where(kept, np.array(discounts)[np.minimum(adjusted, 3) - 1], adjusted)
    rests: Doubles = np.ones(count)
    np.divide(np.bincount(contexts, taken, minlength=count), total, out=rests, where=total > 0)
    return (adjusted - taken) / total[contexts] + rests[contexts] * lower, rests


def discounts_of(adjusted: kernels.Ints, length: int, fallback: Discounts | None) -> Discounts:
    """Return the discounts for adjusted counts of 1, 2, and 3 or more (Chen and Goodman 1998, equation 17).

    Raises InputError when the counts give none and there is no fallback.
    """
    n = [int((adjusted == j).sum()) for j in range(5)]
    if min(n[1:4]) > 0:
        share = n[1] / (n[1] + 2 * n[2])
        one, two, three = (j - (j + 1) * share * n[j + 1] / n[j] for j in (1, 2, 3))
        if 0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3:
            return one, two, three
    if fallback is None:
        raise InputError(
            f"n-grams of {length} tokens: {n[1]}, {n[2]}, {n[3]} and {n[4]} of them have adjusted counts of 1, 2, 3 and 4, which "
            f"gives no discounts; count more or less repetitive documents, or pass fallback={FALLBACK}"
        )
    return fallback


def _gather(counts: Counts) -> list[_Grams]:
    size = len(counts.counts)
    if not size:
        raise InputError("there are no documents to estimate a model from")
    shared, reach = np.empty(size, np.uint8), np.empty(size, np.uint8)
    kernels.compare_neighbours(counts.keys, counts.order, width_of(counts.vocab_size), counts.vocab_size, shared, reach)
    found = []
    for length in range(1, counts.order + 1):
        arrays = [np.empty(size, np.int64) for _ in range(3)]
        kept = kernels.gather(counts.order, length, counts.counts, shared, reach, *arrays)
        found.append(_Grams(*(each[:kept].copy() for each in arrays)))
    return found


def _empty(sizes: Sequence[int]) -> tuple[kernels.Ints, kernels.Words]:
    """Return where the table of each length begins and empty tables, a third of the slots of each to stay free."""
    slots = [0 if length < 2 else size + size // 2 + 2 for length, size in enumerate(sizes)]
    if max(slots) >= 2**32:
        raise InputError(f"{max(sizes)} n-grams of one length are more than a table holds (2**32 · 2/3); prune more")
    starts: kernels.Ints = np.concatenate([[0], np.cumsum(slots)]).astype(np.int64)
    return starts, np.full((int(starts[-1]), 2), kernels.EMPTY)


def _flat(ids: Integers, bounds: kernels.Ints) -> tuple[kernels.Ids, kernels.Ints]:
    """Return the arrays as the kernels take them; raises ValueError where the bounds do not fit."""
    ends = np.ascontiguousarray(bounds, np.int64)
    if len(ends) < 1 or ends[0] < 0 or ends[-1] > len(ids) or (np.diff(ends) < 0).any():
        raise ValueError(f"bounds must rise from 0 or more to at most {len(ids)}, the number of ids")
    return np.ascontiguousarray(ids, np.uint32), ends


def _limits(prune: Sequence[int], order: int) -> list[int]:
    limits = [*prune, *[prune[-1] if prune else 0] * (order - len(prune))]
    if len(limits) != order or limits[0] != 0 or limits != sorted(limits):
        raise ValueError(
            f"prune must be at most {order} numbers, the first 0, none less than the one before; found {tuple(prune)}"
        )
    return limits


def width_of(vocab_size: int) -> int:
    """Return the bits of a token in a key: of an id, the start and the end."""
    return (vocab_size + 1).bit_length()


def _last(keys: kernels.Words, bits: int) -> kernels.Ints:
    return (keys >> np.uint64(64 - bits)).astype(np.int64)


def _outside(ids: kernels.Ids, size: int) -> InputError:
    return InputError(f"id {int(ids.max())} is outside the vocabulary of {size} tokens that the model is for; use its tokenizer")
