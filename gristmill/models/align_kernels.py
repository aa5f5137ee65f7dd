"""The compiled loops of alignment: two cuts of the same bytes walked side by side.

They read flat arrays and fill arrays that the caller made. Each document is computed from its own tokens alone, so what comes
out does not depend on what else is in the batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import Int, inner, outer

ALIGNED, UNKNOWN_TOKEN, LESS, MORE, OTHER = range(5)

Lengths = npt.NDArray[np.int32]
Bounds = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


@outer
def check(
    ours: Lengths,
    our_bounds: Bounds,
    theirs: Lengths,
    their_bounds: Bounds,
    prefix: Int,
    reasons: npt.NDArray[np.uint8],
    extra: npt.NDArray[np.int64],
) -> None:
    """Write why each document cannot be aligned, and by how many bytes theirs are more than ours."""
    for document in range(reasons.size):
        total, unknown = 0, False
        for i in range(their_bounds[document], their_bounds[document + 1]):
            total += theirs[i]
            unknown |= theirs[i] < 0
        for i in range(our_bounds[document], our_bounds[document + 1]):
            total -= ours[i]
            unknown |= ours[i] < 0
        extra[document] = total
        if unknown:
            reasons[document] = UNKNOWN_TOKEN
        elif total < 0:
            reasons[document] = LESS
        elif total > 0 and total != prefix:
            reasons[document] = MORE
        else:
            reasons[document] = ALIGNED


@outer
def trim(
    theirs: Lengths,
    values: Floats,
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    reasons: npt.NDArray[np.uint8],
    extra: npt.NDArray[np.int64],
    unplaced: Floats,
) -> None:
    """Take the prefix off each document that has one, in place.

    A token that was all prefix is taken out, those without bytes before it move up, and its value goes to the next token.
    """
    for document in range(reasons.size):
        left = extra[document] if reasons[document] == ALIGNED else 0
        carry, at = 0.0, begins[document]
        while left and at < ends[document]:
            if theirs[at] > left:
                theirs[at] -= left
                left = 0
                break
            if theirs[at]:
                carry += values[at] if values[at] == values[at] else 0.0
                left -= theirs[at]
                for i in range(at, begins[document], -1):
                    theirs[i], values[i] = theirs[i - 1], values[i - 1]
                begins[document] += 1
            at += 1
        while at < ends[document] and carry and theirs[at] == 0:
            at += 1
        if carry and at < ends[document] and values[at] == values[at]:
            values[at] += carry
            carry = 0.0
        unplaced[document] = carry


@inner
def _take(theirs: Lengths, values: Floats, b: Int, used: Int, size: Int) -> tuple[Int, Int, float, bool, float]:
    """Return what the next `size` bytes have, from after the first `used` bytes of token b.

    Returns:
        The token and the bytes of it used after that, the value, whether some bytes have none, and the value of tokens without
        bytes in between.
    """
    known, missing, lost = 0.0, False, 0.0
    while size:
        whole, value = np.int64(theirs[b]), values[b]
        if whole == 0:
            lost += value if value == value else 0.0
            b += 1
            continue
        taken = min(size, whole - used)
        if value != value:
            missing = True
        elif taken == whole:
            known += value
        else:
            known += value * (taken / whole)
        size -= taken
        used += taken
        if used == whole:
            b += 1
            used = 0
    return b, used, known, missing, lost


@inner
def _zeros(lengths: Lengths, at: Int, end: Int) -> Int:
    """Return how many tokens from `at` on have no bytes."""
    count = 0
    while at + count < end and lengths[at + count] == 0:
        count += 1
    return count


@outer
def move(
    ours: Lengths,
    our_bounds: Bounds,
    theirs: Lengths,
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    values: Floats,
    reasons: npt.NDArray[np.uint8],
    moved: Floats,
    exact: Marks,
    unplaced: Floats,
) -> None:
    """Write the values of our tokens and which of them are exact; add what came to none; see `align`."""
    for document in range(reasons.size):
        a, last = our_bounds[document], our_bounds[document + 1]
        b, end, lost = begins[document], ends[document], 0.0
        used: Int = 0
        if reasons[document] != ALIGNED:
            moved[a:last] = np.nan
            exact[a:last] = False
            a = last
        while a < last:
            size = np.int64(ours[a])
            if size == 0:
                run = _zeros(ours, a, last)
                paired = _zeros(theirs, b, end) == run  # none where b is partly used: it has bytes
                for i in range(run):
                    moved[a + i] = values[b + i] if paired else np.nan
                    exact[a + i] = moved[a + i] == moved[a + i]
                a += run
                b += run if paired else 0
                continue
            if used == 0 and theirs[b] == size:  # most tokens: the quick way to what `_take` would give
                moved[a] = values[b]
                exact[a] = moved[a] == moved[a]
                b += 1
            else:
                starts = used == 0
                b, used, known, missing, between = _take(theirs, values, b, used, size)
                moved[a] = np.nan if missing else known
                exact[a] = starts and used == 0 and not missing
                lost += between + (known if missing else 0.0)
            a += 1
        for i in range(b, end):
            lost += values[i] if values[i] == values[i] else 0.0
        unplaced[document] += lost
