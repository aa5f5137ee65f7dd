"""Documents → windows → packs of one fixed shape: what a decoder is given, token for token. numpy only.

Reads token ids that lie document after document; gives packs of `pack_tokens` inputs, with the targets to score. A window is
what the model sees at once: its tokens attend to none outside. A document that is longer than a window is read in several, each
of which sees the last `overlap` tokens of the one before again, as context; each token is scored once, in the first window that
reaches it.

Packs have one shape, so that matrix products have one shape: what comes out for a token then does not depend on how many
documents were given, in which order, or which lie beside it. Windows are put into packs by best fit (`gristmill.reader.bestfit`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.reader.bestfit.fit import best_fit

Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[np.integer[Any]]

PADDING = 32  # tokens of a window of padding: attention costs next to nothing on them


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How documents are cut and packed.

    Attributes:
        window: tokens that the model sees at once.
        overlap: tokens that a document's later windows see again before those they score, less than a window.
        pack: tokens of a pack, at least a window.
        first: id of the token put before a document, which predicts its first; None: that has no prediction.
        every_window: put `first` before the later windows of a document too.
    """

    window: int
    overlap: int
    pack: int
    first: int | None = None
    every_window: bool = False

    def __post_init__(self) -> None:
        if self.every_window and self.first is None:
            raise ValueError("every_window puts the first token before each window; first_token is none")
        if self.window < 2:
            raise ValueError(f"window is {self.window} tokens; at least 2 are needed to predict one from another")
        if not 0 <= self.overlap < self.later:
            most = self.later - 1
            raise ValueError(f"overlap is {self.overlap} tokens; in a window of {self.window} it can be 0 to {most}")
        if self.pack < self.window:
            raise ValueError(f"pack_tokens is {self.pack}; a window of {self.window} tokens has to fit in")

    @property
    def later(self) -> int:
        """Return how many tokens of its document a later window sees."""
        return self.window - self.every_window


class Windows(NamedTuple):
    """Windows in document order.

    A window is given one input for each of the tokens `begin` to `end` (places in the ids): the one before it, which predicts
    it. Predictions from `scored` on count; the others are context.

    Attributes:
        begin, scored, end: int64 [windows].
        led: bool [windows], whether the first input is the shape's first token instead.
    """

    begin: Int64
    scored: Int64
    end: Int64
    led: npt.NDArray[np.bool_]

    def take(self, chosen: Int64) -> Windows:
        """Return some of them."""
        return Windows(self.begin[chosen], self.scored[chosen], self.end[chosen], self.led[chosen])


class Pack(NamedTuple):
    """One pack.

    Attributes:
        ids: int64 [pack], what the model is given; 0 in padding.
        positions: int64 [pack], from 0 in each window.
        targets: int64 [pack], the token that each input predicts; 0 where none is scored.
        cuts: int32 [windows + paddings + 1], where windows begin, and the end; padding comes last, in windows of its own.
        windows: how many there are without padding.
        rows: int64 [scored], which inputs count.
        places: int64 [scored], the place in the given ids of the token that each of them predicts.
    """

    ids: Int64
    positions: Int64
    targets: Int64
    cuts: npt.NDArray[np.int32]
    windows: int
    rows: Int64
    places: Int64


def cut(bounds: Integers, shape: Shape) -> Windows:
    """Return the windows of documents d = bounds[d] to bounds[d + 1]."""
    edges = np.asarray(bounds, dtype=np.int64)
    start = edges[:-1] + (shape.first is None)
    left = np.maximum(edges[1:] - start, 0)  # tokens to predict
    step = shape.later - shape.overlap
    counts = np.where(left > 0, 1 + np.maximum(-(-(left - shape.window) // step), 0), 0)
    documents = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    later = number > 0
    scored = start[documents] + np.where(later, shape.window + (number - 1) * step, 0)
    begin = scored - later * (shape.overlap + shape.every_window)
    end = np.minimum(begin + shape.window, edges[1:][documents])
    return Windows(begin, scored, end, ~later & (shape.first is not None) | later & shape.every_window)


def packed(ids: Integers, bounds: Integers, shape: Shape) -> Iterator[Pack]:
    """Yield the packs of these documents; in a pack, windows are in document order."""
    windows = cut(bounds, shape)
    if not len(windows.begin):
        return
    rows = best_fit(windows.end - windows.begin, shape.pack)
    order = np.argsort(rows, kind="stable")
    ends = np.cumsum(np.bincount(rows))
    begin = 0
    for end in ends.tolist():
        yield _pack(ids, windows.take(order[begin:end]), shape)
        begin = end


def _pack(ids: Integers, windows: Windows, shape: Shape) -> Pack:
    """Return the pack of these windows."""
    lengths = windows.end - windows.begin
    starts = np.cumsum(lengths) - lengths
    used = int(lengths.sum())
    within = np.arange(used) - np.repeat(starts, lengths)
    place = np.repeat(windows.begin, lengths) + within
    inputs = np.zeros(shape.pack, dtype=np.int64)
    targets = np.zeros(shape.pack, dtype=np.int64)
    inputs[:used] = ids[place - 1]  # where that is −1, the first token follows
    if shape.first is not None:
        inputs[starts[windows.led]] = shape.first
    rows = np.flatnonzero(place >= np.repeat(windows.scored, lengths))
    targets[rows] = ids[place[rows]]
    fill = np.arange(shape.pack - used)
    positions = np.concatenate([within, fill % PADDING])
    cuts = np.concatenate([starts, used + fill[::PADDING], [shape.pack]]).astype(np.int32)
    return Pack(inputs, positions, targets, cuts, len(starts), rows, place[rows])
