"""The compiled loops of linear models: words of a text to hashes, n-grams to rows of weights, scores, and one pass of training.

They read Arrow's buffers and numpy arrays and fill arrays that the caller made. A score is a sum of whole numbers, so no order
of adding shows in it; training adds in the order that it is given. All else is +, -, *, / and square roots of IEEE 754, which are
the same on every machine; `exp` is written out here, since that of the system's library is not.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gristmill.compiling import inner, outer
from gristmill.minhash.folding import KIND as KIND_BITS
from gristmill.minhash.words import LETTER, SINGLE

# Hash of a word: FNV-1a 64 over its code points, finished as MurmurHash3 is (Appleby); of an n-gram: a polynomial of its words'.
FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)
POLY = np.uint64(0x9E3779B97F4A7C15)
SHIFT_33 = np.uint64(33)

ZERO, ONE, TWO, THREE, FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
KIND, CODE = np.uint32(KIND_BITS), np.uint32((1 << KIND_BITS) - 1)

LN2_HIGH, LN2_LOW, LOG2_E = 6.93147180369123816490e-01, 1.90821492927058770002e-10, 1.44269504088896338700
FARTHEST = 40  # exp(-40) added to 1 is 1
POWERS = np.array([2.0**k for k in range(-64, 65)])
INVERSE = np.array([1.0 / math.factorial(k) for k in range(14)])


@inner
def decoded(data: npt.NDArray[np.uint8], at: np.uint64) -> tuple[np.uint32, np.uint64]:
    """Return the character beyond ASCII that begins at `at`, and its size in bytes."""
    first, second = np.uint32(data[at]), np.uint32(data[at + ONE]) & 0x3F
    if first < 0xE0:
        return np.uint32((first & 0x1F) << 6 | second), TWO
    third = np.uint32(data[at + TWO]) & 0x3F
    if first < 0xF0:
        return np.uint32((first & 0x0F) << 12 | second << 6 | third), THREE
    return np.uint32((first & 0x07) << 18 | second << 12 | third << 6 | np.uint32(data[at + THREE]) & 0x3F), FOUR


@inner
def finished(value: np.uint64) -> np.uint64:
    """Mix the bits of a word's running hash."""
    value = (value ^ (value >> SHIFT_33)) * MIX_1
    value = (value ^ (value >> SHIFT_33)) * MIX_2
    return value ^ (value >> SHIFT_33)


@inner
def words(
    data: npt.NDArray[np.uint8],
    at: np.uint64,
    end: np.uint64,
    table: npt.NDArray[np.uint32],
    hashes: npt.NDArray[np.uint64],
    places: npt.NDArray[np.uint64],
    filled: int,
) -> tuple[int, np.uint64]:
    """Append the hashes of the words of data[at:end] to `hashes` from `filled` on; return (new filled, where it stopped).

    It stops between words when there is no room for two more (a character can end one word and be another). `places`
    [hashes, 2], where it is not empty, is told where each word begins and ends. Positions are unsigned: numba then leaves out the
    check for negative indices.
    """
    value, begin, size = FNV_OFFSET, at, ONE
    while at < end and filled + 1 < hashes.size:
        code = np.uint32(data[at])
        if code < 0x80:
            size = ONE
        else:
            code, size = decoded(data, at)
        entry = table[code]
        kind = entry >> KIND
        if kind == LETTER:
            if value == FNV_OFFSET:
                begin = at
            value = (value ^ np.uint64(entry & CODE)) * FNV_PRIME
        else:
            if value != FNV_OFFSET:
                hashes[filled] = finished(value)
                if places.size:
                    places[filled, 0], places[filled, 1] = begin, at
                filled += 1
                value = FNV_OFFSET
            if kind == SINGLE:
                hashes[filled] = finished((FNV_OFFSET ^ np.uint64(entry & CODE)) * FNV_PRIME)
                if places.size:
                    places[filled, 0], places[filled, 1] = at, at + size
                filled += 1
        at += size
    if value != FNV_OFFSET:
        hashes[filled] = finished(value)
        if places.size:
            places[filled, 0], places[filled, 1] = begin, at
        filled += 1
    return filled, at


@inner
def exp(x: float) -> float:
    """Return e to the x, for x from -FARTHEST to FARTHEST, to 2 units in the last place."""
    k = math.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    value: float = INVERSE[13]
    for i in range(12, -1, -1):
        value = value * r + INVERSE[i]
    power: float = POWERS[int(k) + 64]
    return value * power


@inner
def probabilities(sums: npt.NDArray[np.float64]) -> None:
    """Make sums probabilities, in place: of one the logistic function, of several softmax."""
    if sums.size == 1:
        sums[0] = 1.0 / (1.0 + exp(-min(max(sums[0], -FARTHEST), FARTHEST)))
        return
    top = sums[0]
    for k in range(1, sums.size):
        top = max(top, sums[k])
    total = 0.0
    for k in range(sums.size):
        sums[k] = exp(max(sums[k] - top, -FARTHEST))
        total += sums[k]
    for k in range(sums.size):
        sums[k] /= total


@outer
def score(
    data: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    table: npt.NDArray[np.uint32],
    ngrams: int,
    shift: int,
    weights: npt.NDArray[np.int16],
    unit: float,
    biases: npt.NDArray[np.float64],
    hashes: npt.NDArray[np.uint64],
    places: npt.NDArray[np.uint64],
    totals: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Fill `out` [texts, labels] with the probabilities of data[begins[t]:ends[t]], NaN for a text without a word.

    Args:
        table: see `characters.py`.
        ngrams: words of the longest n-gram.
        shift: 64 less the bits of a row's number.
        weights: [rows, outputs], in units of `unit`.
        biases: [outputs].
        hashes, places, totals, sums: room to work in: 64 hashes at least, no places, [outputs], [outputs].
    """
    outputs, right = sums.size, np.uint64(shift)
    for text in range(begins.size):
        at, end, kept, count = np.uint64(begins[text]), np.uint64(ends[text]), 0, 0
        totals[:] = 0
        while at < end:
            filled, at = words(data, at, end, table, hashes, places, kept)
            for length in range(1, ngrams + 1):
                first = max(kept, length - 1)
                count += max(0, filled - first)
                if outputs == 1:
                    total = 0
                    for j in range(first, filled):
                        value = hashes[j - length + 1]
                        for i in range(j - length + 2, j + 1):
                            value = value * POLY + hashes[i]
                        total += weights[value >> right, 0]
                    totals[0] += total
                else:
                    for j in range(first, filled):
                        value = hashes[j - length + 1]
                        for i in range(j - length + 2, j + 1):
                            value = value * POLY + hashes[i]
                        for k in range(outputs):
                            totals[k] += weights[value >> right, k]
            kept = min(filled, ngrams - 1)  # what n-grams of the words to come begin with
            for i in range(kept):
                hashes[i] = hashes[filled - kept + i]
        if count == 0:
            out[text] = np.nan
            continue
        for k in range(outputs):
            sums[k] = biases[k] + unit * totals[k] / math.sqrt(count)
        probabilities(sums)
        if outputs == 1:
            out[text, 0], out[text, 1] = 1.0 - sums[0], sums[0]
        else:
            for k in range(outputs):
                out[text, k] = sums[k]


@inner
def rows_of(
    data: npt.NDArray[np.uint8],
    begin: np.uint64,
    end: np.uint64,
    table: npt.NDArray[np.uint32],
    ngrams: int,
    right: np.uint64,
    hashes: npt.NDArray[np.uint64],
    places: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.uint32],
) -> int:
    """Fill `rows` with the rows of all n-grams of a text, as often as they stand there; return their number."""
    filled, _ = words(data, begin, end, table, hashes, places, 0)
    count = 0
    for length in range(1, ngrams + 1):
        for j in range(length - 1, filled):
            value = hashes[j - length + 1]
            for i in range(j - length + 2, j + 1):
                value = value * POLY + hashes[i]
            rows[count] = value >> right
            count += 1
    return count


@outer
def cut(data: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64], most: int, ends: npt.NDArray[np.int64]) -> None:
    """Fill `ends` [texts] with where the first `most` characters of each text end."""
    for text in range(ends.size):
        at, end, left = bounds[text], bounds[text + 1], most
        while at < end:
            if data[at] & 0xC0 != 0x80:  # a character begins
                if left == 0:
                    break
                left -= 1
            at += 1
        ends[text] = at


@outer
def train(
    data: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    targets: npt.NDArray[np.int32],
    order: npt.NDArray[np.int64],
    table: npt.NDArray[np.uint32],
    ngrams: int,
    shift: int,
    rate: float,
    decay: float,
    weights: npt.NDArray[np.float32],
    squares: npt.NDArray[np.float32],
    biases: npt.NDArray[np.float64],
    bias_squares: npt.NDArray[np.float64],
    hashes: npt.NDArray[np.uint64],
    places: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.uint32],
    sums: npt.NDArray[np.float64],
) -> float:
    """Go once through the texts in this order, by AdaGrad (Duchi et al. 2011); return the squared error of the predictions.

    Args:
        targets: [texts], the output that should be 1; with one output 1, or 0 for none.
        rate, decay: of steps, and what draws weights to 0 with each.
        weights, squares: [rows, outputs], and the sums of their squared gradients; changed in place, as those of `biases` are.
        hashes, places, rows, sums: room for the words and the n-grams of the longest text, no places, [outputs].
    """
    outputs, right, error = sums.size, np.uint64(shift), 0.0
    for text in order:
        count = rows_of(data, np.uint64(begins[text]), np.uint64(ends[text]), table, ngrams, right, hashes, places, rows)
        if count == 0:
            continue
        norm = 1.0 / math.sqrt(count)
        for k in range(outputs):
            total = 0.0
            for j in range(count):
                total += weights[rows[j], k]
            sums[k] = biases[k] + norm * total
        probabilities(sums)
        for k in range(outputs):
            wanted = 1.0 if targets[text] == (1 if outputs == 1 else k) else 0.0
            slope = sums[k] - wanted
            error += slope * slope
            bias_squares[k] += slope * slope
            biases[k] -= rate * slope / math.sqrt(bias_squares[k])
            slope *= norm
            for j in range(count):
                row = rows[j]
                gradient = slope + decay * weights[row, k]
                square = squares[row, k] + gradient * gradient
                squares[row, k] = square
                weights[row, k] -= rate * gradient / math.sqrt(square)
    return error


@outer
def count(
    data: npt.NDArray[np.uint8],
    begins: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    table: npt.NDArray[np.uint32],
    ngrams: int,
    shift: int,
    hashes: npt.NDArray[np.uint64],
    places: npt.NDArray[np.uint64],
    texts: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Count in how many texts each n-gram is.

    Args:
        hashes, places: room for the words of the longest text, [hashes] and [hashes, 2].
        texts: [rows], the texts with an n-gram of this row; 0 at first.
        last: [rows], the last of them; -1 at first.
        first: [rows, 3], of its first n-gram where it begins and ends in `data`, and its words.
    """
    right = np.uint64(shift)
    for text in range(begins.size):
        filled, _ = words(data, np.uint64(begins[text]), np.uint64(ends[text]), table, hashes, places, 0)
        for length in range(1, ngrams + 1):
            for j in range(length - 1, filled):
                value = hashes[j - length + 1]
                for i in range(j - length + 2, j + 1):
                    value = value * POLY + hashes[i]
                row = value >> right
                if texts[row] == 0:
                    first[row, 0], first[row, 1], first[row, 2] = places[j - length + 1, 0], places[j, 1], length
                if last[row] != text:
                    last[row] = text
                    texts[row] += 1
