"""The compiled loops of `join`: texts to 64-bit hashes, and keys to rows of a table, by these and then by all their bytes.

They read Arrow's buffers and fill arrays that the caller made.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

FNV_START, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@outer
def hash_texts(data: Bytes, bounds: Ints, out: Hashes) -> None:
    """Write FNV-1a of each text, uint64 [texts]; text t is data[bounds[t]:bounds[t + 1]]."""
    for text in range(out.size):
        value = FNV_START
        for i in range(bounds[text], bounds[text + 1]):
            value = (value ^ np.uint64(data[i])) * FNV_PRIME
        out[text] = value


@inner
def _same(one: Bytes, at: int, other: Bytes, place: int, size: int) -> bool:
    i = 0
    while i < size and one[at + i] == other[place + i]:
        i += 1
    return i == size


@outer
def match(
    data: Bytes, bounds: Ints, hashes: Hashes, keys: Bytes, key_bounds: Ints, ordered: Hashes, rows: Ints, out: Ints
) -> None:
    """Write the first row of the table whose key is a text, −1 where there is none.

    Args:
        data, bounds: the texts, as in `hash_texts`. `hashes`: theirs.
        keys, key_bounds: the table's keys.
        ordered: uint64 [keys], their hashes in rising order.
        rows: int64 [keys], the row of each, rising where hashes are equal.
        out: int64 [texts], to be filled.
    """
    for text in range(out.size):
        out[text] = -1
        size = bounds[text + 1] - bounds[text]
        at, end = 0, ordered.size
        while at < end:
            middle = (at + end) // 2
            if ordered[middle] < hashes[text]:
                at = middle + 1
            else:
                end = middle
        while at < ordered.size and ordered[at] == hashes[text]:
            row = rows[at]
            if key_bounds[row + 1] - key_bounds[row] == size and _same(keys, key_bounds[row], data, bounds[text], size):
                out[text] = row
                break
            at += 1


@outer
def twice(keys: Bytes, key_bounds: Ints, ordered: Hashes, rows: Ints) -> int:
    """Return a place in `rows` whose key stands in an earlier row too, −1 where all keys differ; see `match`."""
    for at in range(ordered.size):
        row, before = rows[at], at - 1
        size = key_bounds[row + 1] - key_bounds[row]
        while before >= 0 and ordered[before] == ordered[at]:
            other = rows[before]
            if key_bounds[other + 1] - key_bounds[other] == size and _same(keys, key_bounds[row], keys, key_bounds[other], size):
                return at
            before -= 1
    return -1
