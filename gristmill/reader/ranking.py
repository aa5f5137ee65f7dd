"""Exact counts by score inside groups of tokens: the top n of a batch, of each sequence, of each document's piece.

Pure functions on whole arrays. A *group* is a run of the flattened batch; groups are given by where each begins.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]
Keys = npt.NDArray[np.signedinteger]
Int64 = npt.NDArray[np.int64]

Count = Callable[[float, int], int]  # of a share and a total

Scope = Literal["batch", "sequence", "document"]


def share_count(keep: float, total: int) -> int:
    """Return how many of `total` a share of `keep` is: rounded to the nearest, halves up, on the decimal as it is written."""
    share = Fraction(repr(float(keep)))
    return (2 * share.numerator * total + share.denominator) // (2 * share.denominator)


def tail_count(alpha: float, total: int) -> int:
    """Return how many of `total` distinct scores are at or above their α-quantile, inf {s: P(S ≤ s) ≥ α}."""
    level = Fraction(repr(float(alpha)))
    below = -(-level.numerator * total // level.denominator) - 1  # ⌈α · total⌉ - 1
    return total - max(below, 0)


@lru_cache(maxsize=32)
def count_table(count: Count, share: float, most: int) -> Int64:
    """Return `count(share, total)` for each total from 0 to `most`, int64: exact arithmetic, once instead of for each group."""
    return np.array([count(share, total) for total in range(most + 1)], dtype=np.int64)


def group_begins(scope: Scope, shape: tuple[int, int], starts: Mask | None) -> Int64:
    """Return where groups begin in the flattened batch: int64, (groups,), ascending, the first 0.

    Raises:
        ValueError: the scope is documents, and `starts` is None.
    """
    rows, length = shape
    if scope == "batch":
        return np.zeros(1, dtype=np.int64)
    if scope == "sequence":
        return np.arange(0, rows * length, length, dtype=np.int64)
    if starts is None:
        raise ValueError("scope document: starts is None; give a bool array, true where a label begins a document")
    first = starts.copy()
    first[:, :1] = True
    return np.flatnonzero(first)


def group_totals(mask: Mask, begins: Int64) -> Int64:
    """Return how many are true in each group, int64."""
    if len(begins) == 1:
        return np.array([np.count_nonzero(mask)], dtype=np.int64)
    return np.add.reduceat(mask.reshape(-1), begins, dtype=np.int64)


def sort_keys(scores: Scores) -> tuple[Keys, Mask]:
    """Return (integers that sort as the scores do, equal where they are equal; where the score is NaN), of the same shape.

    Bits instead of floats: numpy compares and partitions float16 at a tenth of the speed of integers.
    """
    width = scores.dtype.itemsize
    bits: Keys = np.ascontiguousarray(scores).view(f"i{width}")
    largest = np.iinfo(bits.dtype).max
    sign = bits >> (8 * width - 1)  # -1 or 0
    keys = (bits ^ (sign & largest)) - sign  # sign and magnitude to two's complement: -0.0 becomes 0
    infinity = np.array(np.inf, dtype=scores.dtype).view(bits.dtype)
    return keys.astype(np.int64 if width == 8 else np.int32, copy=False), (bits & largest) > infinity


def top_mask(keys: Keys, candidates: Mask, count: int, *, ties: bool = False) -> Mask:
    """Return a mask of exactly `count` candidates with the highest keys; among equals the earlier in row order wins.

    Args:
        keys: int32 or int64, any shape.
        candidates: boolean, same shape.
        count: from 0 to the number of candidates.
        ties: take all that equal the lowest one taken, so that there may be more than `count`.
    """
    if count == 0:
        return np.zeros(keys.shape, dtype=np.bool_)
    ranked = np.where(candidates, keys, np.iinfo(keys.dtype).min)
    border = np.partition(ranked, keys.size - count, axis=None)[keys.size - count]
    if ties:
        chosen: Mask = ranked >= border
        return chosen
    chosen = ranked > border
    equal = np.flatnonzero(ranked == border)
    chosen.reshape(-1)[equal[: count - int(np.count_nonzero(chosen))]] = True
    return chosen


def top_mask_in_groups(keys: Keys, bits: int, candidates: Mask, begins: Int64, counts: Int64, *, ties: bool = False) -> Mask:
    """Return `top_mask` of each group, for all groups at once.

    One sort of integers that hold the group above and the key below; 32 bits where both fit (float16), which is twice as fast.

    Args:
        keys: int32 or int64, any shape, from `sort_keys`.
        bits: width of the scores that the keys were made from: 16, 32 or 64.
        candidates: boolean, same shape.
        begins: int64, (groups,), from `group_begins`.
        counts: int64, (groups,): from 0 to the number of candidates in the group.
        ties: as in `top_mask`.
    """
    if bits == 64:  # no room for the group: ranks instead
        keys, bits = np.unique(keys, return_inverse=True)[1].reshape(keys.shape), 32
    kind: np.dtype[np.signedinteger] = np.dtype(np.int32 if bits == 16 and len(begins) < 1 << 15 else np.int64)
    ends = np.append(begins[1:], keys.size)
    sizes = ends - begins
    lowest = -(1 << (bits - 1))  # below every key of so many bits, and its sum with a group above the group before
    packed: Keys = np.where(candidates, keys, lowest).reshape(-1).astype(kind, copy=False)
    packed += np.repeat(np.arange(len(begins)).astype(kind) << bits, sizes)
    order = np.sort(packed)
    borders = np.where(counts > 0, order[np.minimum(ends - counts, keys.size - 1)], np.iinfo(kind).max)
    border = np.repeat(borders, sizes)
    if ties:
        return (packed >= border).reshape(keys.shape)
    chosen = packed > border
    equal = np.flatnonzero(packed == border)
    there = np.searchsorted(begins, equal, side="right") - 1
    rank = np.arange(len(equal)) - np.searchsorted(there, there)  # from 0 in each group
    above = ends - np.searchsorted(order, borders, side="right")
    chosen[equal[rank < (counts - above)[there]]] = True
    return chosen.reshape(keys.shape)
