"""The compiled loops of selection: counting scores by bin, choosing above a cut, and taking a share of each document.

They read and fill arrays that the caller made; all release the GIL. Bins are those of `histogram.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer
from gristmill.selection.bins import BASE, DROPPED, MOST

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bits = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

KINDS = 64  # of lengths of tokens
GOLDEN = 0.6180339887498949  # multiples of it lie far from one another between whole numbers
LOW_32 = np.uint64(2**32 - 1)


@inner
def _bin(bits: np.int32) -> np.int64:
    """Return the bin of a score from the bits of a float32, NaN left aside."""
    number = (np.int64(bits & 0x7FFFFFFF) >> DROPPED) - BASE + 1
    if number < 0:
        return np.int64(0)
    if number > MOST:
        number = np.int64(MOST)
    return -number if bits < 0 else number


@outer
def bins(bits: Bits, out: Bits) -> None:
    """Write the bin of each score."""
    for at in range(bits.size):
        out[at] = _bin(bits[at])


@outer
def count(bits: Bits, counted: Marks, lengths: Bits, passed: Marks, counts: Ints, seen: Bits) -> int:
    """Add tokens to the counts of their bins; return how many bins there are now.

    Args:
        bits: of scores, float32 [tokens].
        counted: [tokens], which to count.
        lengths: of the tokens in bytes [tokens], or empty.
        passed: [tokens], which to count among those that passed too, or empty.
        counts: zeros [2 * MOST + 1, 4]: tokens, bytes, and those that passed; bin b has row MOST + b.
        seen: [2 * MOST + 1], filled with the bins that have tokens, in order of their first.
    """
    different = 0
    for at in range(bits.size):
        if not counted[at]:
            continue
        number = _bin(bits[at])
        row = number + MOST
        if counts[row, 0] == 0:
            seen[different] = number
            different += 1
        size = max(lengths[at], 0) if lengths.size else 0
        counts[row, 0] += 1
        counts[row, 1] += size
        if passed.size == 0 or passed[at]:
            counts[row, 2] += 1
            counts[row, 3] += size
    return different


@outer
def above(
    bits: Bits,
    counted: Marks,
    lengths: Bits,
    bounds: Ints,
    high: bool,
    cuts: Ints,
    parts: Doubles,
    starts: Doubles,
    owed: Doubles,
    out: Marks,
) -> None:
    """Mark the tokens beyond a cut, and of those in the bin of the cut a part.

    Of each document's tokens in that bin every n-th is taken, n = 1 / part, so that what is taken of a document is off by less
    than a token; where to start is the document's own, so that over documents it is off by nothing on average. With lengths it is
    every n-th of those of each length, so that the bytes come out too, and short ones are taken as often as long ones.

    Args:
        bits: of scores, float32 [tokens].
        counted: [tokens], which may be taken.
        lengths: of the tokens in bytes [tokens] where the part is one of bytes, or empty.
        bounds: of documents [documents + 1].
        high: whether high scores are taken.
        cuts: of each document [documents]: its bin, of the score with the sign turned where low scores are taken.
        parts: of each document [documents], from 0 to 1.
        starts: of each document [documents], above 0, up to 1.
        owed: [kinds], of lengths; what is longer is of the last kind.
        out: [tokens], to be filled.
    """
    for document in range(bounds.size - 1):
        cut, part = cuts[document], parts[document]
        for kind in range(owed.size):
            start = starts[document] + kind * GOLDEN
            owed[kind] = np.ceil(start) - start  # from 0 to below 1: one is taken when it is 1
        for at in range(bounds[document], bounds[document + 1]):
            out[at] = False
            if not counted[at]:
                continue
            number = _bin(bits[at]) if high else -_bin(bits[at])
            if number > cut:
                out[at] = True
            elif number == cut:
                kind = min(max(lengths[at], 0), owed.size - 1) if lengths.size else 0
                owed[kind] += part
                if owed[kind] >= 1.0:
                    owed[kind] -= 1.0
                    out[at] = True


@outer
def totals(counted: Marks, lengths: Bits, bounds: Ints, out: Ints) -> None:
    """Write what each group has of counted tokens, or bytes where there are lengths."""
    for group in range(bounds.size - 1):
        total = np.int64(0)
        for at in range(bounds[group], bounds[group + 1]):
            if counted[at]:
                total += max(lengths[at], 0) if lengths.size else 1
        out[group] = total


@outer
def keys(bits: Bits, counted: Marks, high: bool, out: Words) -> int:
    """Write a key for each counted token, and return how many: by them the best come first, equal ones in their order."""
    written = 0
    for at in range(bits.size):
        if not counted[at]:
            continue
        value = np.int64(bits[at])
        if value < 0:
            value = -(value & 0x7FFFFFFF)  # as large as it is negative; −0 is 0
        if high:
            value = -value
        out[written] = np.uint64(value + 2**31) << np.uint64(32) | np.uint64(at)
        written += 1
    return written


@outer
def take(ranked: Words, groups: Bits, lengths: Bits, doubled: Ints, twice: Ints, out: Marks, edges: Bits) -> None:
    """Mark the best of each group until its share is used up.

    A token is taken when the share reaches its middle; so what is taken is the nearest to the share that there is, halves up.

    Args:
        ranked: keys of `keys` in ascending order.
        groups: of each token [tokens].
        lengths: in bytes [tokens], or empty for a share of tokens.
        doubled: twice the share of each group, rounded down.
        twice: zeros [groups], for twice what is before a token.
        out: False [tokens], to be marked.
        edges: −1 [groups], filled with the last token taken; where none is, the first in rank.
    """
    for at in range(ranked.size):
        token = np.int64(ranked[at] & LOW_32)
        group = groups[token]
        size = np.int64(max(lengths[token], 0)) if lengths.size else np.int64(1)
        if twice[group] + size <= doubled[group]:
            out[token] = True
            edges[group] = token
        elif edges[group] < 0:
            edges[group] = token
        twice[group] += 2 * size
