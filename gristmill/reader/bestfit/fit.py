"""Best-fit-decreasing packing: which documents share a row, so that none that fits in a row is cut.

Pure functions on lengths; they read and write nothing. A document longer than a row is cut into full rows and one
remainder; remainders and documents, the *pieces*, are packed window by window: longest first (of equally long ones the
earlier in the stream), each into the row with the least room that is enough; of equal rows into the one that has had
this room longest; into a new row if there is none. That is best-fit-decreasing bin packing (Johnson 1973, "Near-optimal
bin packing algorithms"); rows are the bins, and padding is the room left in the end.

Lengths are small integers, so pieces of one length and rows of one room are handled together, as in histogram packing
(Krell et al. 2021, arXiv 2107.02027), but exactly. Two facts make it linear in pieces and row length, without a search:

- A row that takes pieces of length x takes them until its room is below x: with the least room of all rows, it has
  the least still. So one step moves all rows of one room, each with as many pieces as it can hold.
- Therefore the rows with room for a piece, in order of room, are a stack: as x falls, rows with room x come on top,
  and only the last row that a length is put into, which may have room for more, comes back: on top.

Which rows took part in a step is found afterwards for all steps at once: rows leave a room in the order in which
they came.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.integer[Any]]

ALGORITHM = 1  # raised when the same lengths come to lie in other rows: saved training states mean other samples then


class Rows(NamedTuple):
    """Rows of packed pieces, in order of their first token; in a row, pieces are in stream order.

    Attributes:
        begins: int64, (pieces,): number of each piece's first token, from 0 at the first document, row by row.
        lengths: int64, (pieces,): its tokens, 1 or more.
        bounds: int64, (rows + 1,): the pieces of row i are bounds[i] to bounds[i + 1].
    """

    begins: Int64
    lengths: Int64
    bounds: Int64


def pack(documents: Lengths, length: int, window: int) -> Rows:
    """Pack documents that follow one another in the stream into rows of at most `length` tokens.

    Args:
        documents: tokens of each, (n,); those of 0 tokens vanish.
        length: tokens of a row, 1 or more.
        window: documents packed together: the n are split into round(n / window) nearly equal windows, one at least.
    """
    first, begins, lengths = _cut(np.asarray(documents, dtype=np.int64), length)
    count = max(1, round(len(documents) / window))
    borders = first[np.arange(count + 1) * len(documents) // count].tolist()
    parts, sizes = [], [np.zeros(1, dtype=np.int64)]
    for begin, end in pairwise(borders):
        rows = _in_order_of_first(best_fit(lengths[begin:end], length))
        parts.append(begin + np.argsort(_narrow(rows), kind="stable"))
        sizes.append(np.bincount(rows))
    order = np.concatenate(parts)
    return Rows(begins[order], lengths[order], np.cumsum(np.concatenate(sizes)))


def _cut(documents: Int64, length: int) -> tuple[Int64, Int64, Int64]:
    """Cut what is longer than a row; return (first piece of each document and the end, begins, lengths of pieces)."""
    first = np.zeros(len(documents) + 1, dtype=np.int64)
    np.cumsum(-(-documents // length), out=first[1:])
    counts = np.diff(first)
    inside = (np.arange(first[-1]) - np.repeat(first[:-1], counts)) * length
    begins = np.repeat(np.cumsum(documents) - documents, counts) + inside
    return first, begins, np.minimum(np.repeat(documents, counts) - inside, length)


def _in_order_of_first(rows: Int64) -> Int64:
    """Renumber rows, given for each piece, in the order in which they first occur."""
    first = np.empty(int(rows.max(initial=-1)) + 1, dtype=np.int64)
    first[rows[::-1]] = np.arange(len(rows))[::-1]  # the last one written stays
    found = np.zeros(len(rows), dtype=np.bool_)
    found[first] = True
    return (np.cumsum(found) - 1)[first[rows]]


def _narrow(keys: Int64) -> npt.NDArray[Any]:
    """Return keys ≥ 0 in 16 bits where they fit: numpy sorts those by radix, five times as fast."""
    return keys.astype(np.uint16 if keys.max(initial=0) < 1 << 16 else np.uint32)


# ---- one window ----


def best_fit(pieces: Int64, length: int) -> Int64:
    """Return the row of each piece, int64, (n,); rows are numbered from 0 as they are opened.

    Args:
        pieces: lengths, int64, (n,), each from 1 to `length`.
        length: tokens of a row.
    """
    order = np.argsort(_narrow(length - pieces), kind="stable")
    room, taken = _steps(np.bincount(pieces, minlength=length + 1), length)
    size = pieces[order][np.cumsum(taken) - taken]  # the steps take all pieces, from the longest on
    each = np.minimum(room // size, taken)
    rows = taken // each
    # A visit is one row in one step.
    room, left, each = (np.repeat(column, rows) for column in (room, room - size * each, each))
    opened = room == length
    row = (np.cumsum(opened) - 1)[_roots(_previous(room, left, opened, length))]
    out = np.empty(len(pieces), dtype=np.int64)
    out[order] = np.repeat(row, each)
    return out


def _steps(counts: Int64, length: int) -> tuple[Int64, Int64]:
    """Return the steps of packing counts[x] pieces of each length x, longest first: (room, pieces taken) of each step.

    A step puts as many pieces as they can hold into some rows of one room, or what is left of a length into one row. A room
    of `length` is that of new rows.
    """
    found: list[int] = []
    taken: list[int] = []
    rooms = [0] * length + [1 << 62]  # rows by the room they have; new ones never run out
    stack = [length]  # rooms that there are and that a piece fits in, the least on top
    above = length
    for size in np.flatnonzero(counts)[::-1].tolist():
        pieces = int(counts[size])
        while above > size:
            above -= 1
            if rooms[above]:
                stack.append(above)
        while pieces:
            room = stack[-1]
            each = room // size
            if rooms[room] * each > pieces:
                break
            found.append(room)
            taken.append(rooms[room] * each)
            stack.pop()
            rooms[room - size * each] += rooms[room]
            pieces -= rooms[room] * each
            rooms[room] = 0
        else:
            continue
        rows, rest = divmod(pieces, each)
        if rows:
            found.append(room)
            taken.append(pieces - rest)
            rooms[room - size * each] += rows
            rooms[room] -= rows
        if rest:
            found.append(room)
            taken.append(rest)
            rooms[room] -= 1
            if not rooms[room]:
                stack.pop()
            rooms[room - size * rest] = 1
            stack.append(room - size * rest)
    return np.array(found, dtype=np.int64), np.array(taken, dtype=np.int64)


def _previous(room: Int64, left: Int64, opened: npt.NDArray[np.bool_], length: int) -> Int64:
    """Return each visit's previous visit of the same row, itself where there is none.

    The i-th visit that finds a row with some room continues the i-th visit that left a row with that room.
    """
    out = np.arange(len(room))
    came = np.argsort(_narrow(left), kind="stable")
    later = np.flatnonzero(~opened)
    went = later[np.argsort(_narrow(room[later]), kind="stable")]
    coming, going = np.bincount(left, minlength=length + 1), np.bincount(room[later], minlength=length + 1)
    shift = (np.cumsum(coming) - coming) - (np.cumsum(going) - going)
    out[went] = came[np.arange(len(went)) + shift[room[went]]]
    return out


def _roots(previous: Int64) -> Int64:
    """Return the first visit of each visit's row: follow all links at once, twice as far each time."""
    while not np.array_equal(found := previous[previous], previous):
        previous = found
    return previous
