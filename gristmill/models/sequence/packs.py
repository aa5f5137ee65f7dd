"""Documents → rows of one fixed shape for a classifier of sequences: packed one behind the other, or padded. numpy only.

Reads token ids that lie document after document. A document is never cut here: its tokenizer did that. Rows have one shape, so
that matrix products have one shape: what comes out for a document then does not depend on how many were given, in which order,
or which lie beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.models.causal_lm.packs import PADDING
from gristmill.reader.bestfit.fit import best_fit

Int64 = npt.NDArray[np.int64]


class Pack(NamedTuple):
    """Documents one behind the other in one row.

    Attributes:
        ids: int64 [pack], 0 in padding.
        positions: int64 [pack], from 0 in each document.
        cuts: int32 [documents + paddings + 1], where documents begin, and the end; padding comes last.
        documents: int64 [documents], their numbers.
    """

    ids: Int64
    positions: Int64
    cuts: npt.NDArray[np.int32]
    documents: Int64


class Padded(NamedTuple):
    """Documents one below the other.

    Attributes:
        ids: int64 [rows, length], the given id in padding.
        lengths: int64 [rows], tokens of each; 1 in rows that only fill up.
        documents: int64 [documents], their numbers; of the first rows.
    """

    ids: Int64
    lengths: Int64
    documents: Int64


def packed(ids: Int64, bounds: Int64, size: int) -> Iterator[Pack]:
    """Yield packs of `size` tokens with all documents d = ids[bounds[d]:bounds[d + 1]], none of them empty or longer."""
    if len(bounds) < 2:
        return
    rows = best_fit(np.diff(bounds), size)
    order = np.argsort(rows, kind="stable")
    for documents in np.split(order, np.cumsum(np.bincount(rows))[:-1]):
        yield one_pack(ids, bounds, documents, size)


def one_pack(ids: Int64, bounds: Int64, documents: Int64, size: int) -> Pack:
    """Return the pack of these documents."""
    lengths = np.diff(bounds)[documents]
    starts = np.cumsum(lengths) - lengths
    used = int(lengths.sum())
    within = np.arange(used) - np.repeat(starts, lengths)
    inputs = np.zeros(size, np.int64)
    inputs[:used] = ids[np.repeat(bounds[documents], lengths) + within]
    fill = np.arange(size - used)
    cuts = np.concatenate([starts, used + fill[::PADDING], [size]]).astype(np.int32)
    return Pack(inputs, np.concatenate([within, fill % PADDING]), cuts, documents)


def padded(ids: Int64, bounds: Int64, size: int, step: int, fill: int) -> Iterator[Padded]:
    """Yield rows of equal length, a multiple of `step`, as many of them as `size` tokens hold, at least one.

    `fill`: the id of padding.
    """
    lengths = np.diff(bounds)
    steps = -(-lengths // step)
    for each in np.unique(steps).tolist():
        long = each * step
        chosen = np.flatnonzero(steps == each)
        rows = max(1, size // long)
        for begin in range(0, len(chosen), rows):
            documents = chosen[begin : begin + rows]
            filled = np.ones(rows, np.int64)
            filled[: len(documents)] = lengths[documents]
            inside = np.arange(long) < filled[: len(documents), None]
            inputs = np.full((rows, long), fill, np.int64)
            inputs[: len(documents)][inside] = ids[(bounds[documents][:, None] + np.arange(long))[inside]]
            yield Padded(inputs, filled, documents)
