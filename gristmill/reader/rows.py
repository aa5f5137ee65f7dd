"""Some sequences of a build as rows: their tokens, what follows each token, and where documents begin.

Reads: a stream of tokens. Writes: nothing. `CutRows` are windows of the stream (concatenate and cut); `PackedRows` are put
together from documents; `MixedRows` are rows of several builds. Beside each token stands its *label*, the next token of the
stream, where it has one. `SplicedRows` are cut from the documents that an epoch reads again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.reader.boundaries import piece_starts
from gristmill.reader.gather import Int64
from gristmill.reader.planned import Pieces
from gristmill.reader.stream import TokenStream

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Rows(Protocol):
    """n sequences; every array that is returned has the shape (n, length)."""

    def values(self, name: str) -> Values:
        """Return a column's values of the tokens."""
        ...

    def next_values(self, name: str) -> Values:
        """Return a column's values of the labels: what stands where there is no label means nothing."""
        ...

    def labelled(self, *, within_documents: bool) -> Mask | None:
        """Return which tokens have a label; None: all. With `within_documents` a document's last token has none."""
        ...

    def starts(self) -> Mask:
        """Return where documents begin, as attention sees them."""
        ...

    def next_starts(self) -> Mask:
        """Return which labels begin a document."""
        ...


class CutRows:
    """Windows of the stream; only the stream's last may be shorter than a row. See `Rows`."""

    def __init__(self, stream: TokenStream, begins: Int64, length: int) -> None:
        self._stream, self._begins, self._length = stream, begins, length
        self._found: Mask | None = None

    def values(self, name: str) -> Values:
        """See `Rows`."""
        return self._stream.windows(name, self._begins, self._length)

    def next_values(self, name: str) -> Values:
        """See `Rows`."""
        return self._stream.windows(name, self._begins + 1, self._length)

    def labelled(self, *, within_documents: bool) -> Mask | None:
        """See `Rows`; the stream's last token has no label."""
        mask = ~self.next_starts() if within_documents else None
        if np.maximum.reduce(self._begins) < self._stream.tokens - self._length:
            return mask
        left = self._stream.tokens - 1 - self._begins
        short = np.flatnonzero(left < self._length)
        if len(short):
            mask = np.ones((len(left), self._length), dtype=np.bool_) if mask is None else mask
            mask[short] &= np.arange(self._length) < left[short, None]
        return mask

    def starts(self) -> Mask:
        """See `Rows`."""
        return self._marks()[:, :-1]

    def next_starts(self) -> Mask:
        """See `Rows`."""
        return self._marks()[:, 1:]

    def _marks(self) -> Mask:
        """Return where documents begin, (n, length + 1): the tokens and the last label."""
        if self._found is None:
            self._found = self._stream.starts(self._begins, self._length + 1)
        return self._found


class PackedRows:
    """Rows put together from pieces of the stream, each of one document; what is left of a row is padding. See `Rows`."""

    def __init__(self, stream: TokenStream, pieces: Pieces, length: int) -> None:
        self._stream, self._pieces, self._length = stream, pieces, length
        begins, lengths, bounds = pieces
        rows = len(bounds) - 1
        before = np.concatenate([[0], np.cumsum(lengths)])
        self._filled = np.diff(before[bounds])
        row = np.repeat(np.arange(rows), np.diff(bounds))
        self._ends = before[1:] - before[bounds[row]] + row * length  # of each piece, in the flattened rows
        self._after = begins[bounds[:-1]] + lengths[bounds[:-1]]  # the token after each row's first piece
        alone = lengths[bounds[:-1]] == length
        self._goes_on = np.zeros(rows, dtype=np.bool_)  # rows that one piece fills, and whose document is longer
        inside = np.flatnonzero(alone & (self._after < stream.tokens))
        if len(inside):
            self._goes_on[inside] = ~stream.starts(self._after[inside], 1)[:, 0]

    def values(self, name: str) -> Values:
        """See `Rows`."""
        return self._stream.pieces(name, *self._pieces, self._length)

    def next_values(self, name: str) -> Values:
        """See `Rows`."""
        here = self.values(name)
        out = np.empty_like(here)
        out[:, :-1] = here[:, 1:]
        out[:, -1:] = self._stream.windows(name, self._after, 1)
        return out

    def labelled(self, *, within_documents: bool) -> Mask | None:
        """See `Rows`; in any case a piece's last token has a label only where a longer document was cut."""
        mask = np.arange(self._length) < self._filled[:, None]
        mask.reshape(-1)[self._ends - 1] = False
        mask[self._goes_on, -1] = True
        return mask

    def starts(self) -> Mask:
        """See `Rows`; every piece begins one, and so does the padding."""
        return piece_starts(self._pieces.lengths, self._pieces.bounds, self._length)

    def next_starts(self) -> Mask:
        """See `Rows`."""
        out = np.ones((len(self._filled), self._length), dtype=np.bool_)
        out[:, :-1] = self.starts()[:, 1:]
        out[self._goes_on, -1] = False
        return out


class SplicedRows:
    """Rows cut from documents of the stream that are laid one after another, as in a later pass of an epoch. See `Rows`.

    Args:
        stream: the build's tokens.
        pieces: the documents' pieces; only a pass's last row may have fewer tokens than `length`.
        after: int64, (n,): number in the stream of the token after each row's last, -1 where the pass ends.
        length: tokens of a row.
    """

    def __init__(self, stream: TokenStream, pieces: Pieces, after: Int64, length: int) -> None:
        self._stream, self._pieces, self._after, self._length = stream, pieces, after, length
        self._filled = np.add.reduceat(pieces.lengths, pieces.bounds[:-1])
        self._goes_on = np.flatnonzero(after >= 0)
        self._found: Mask | None = None

    def values(self, name: str) -> Values:
        """See `Rows`."""
        return self._stream.pieces(name, *self._pieces, self._length)

    def next_values(self, name: str) -> Values:
        """See `Rows`."""
        out = np.roll(self.values(name), -1, axis=1)
        out[self._goes_on, -1:] = self._stream.windows(name, self._after[self._goes_on], 1)
        return out

    def labelled(self, *, within_documents: bool) -> Mask | None:
        """See `Rows`; the last token of a pass has no label."""
        mask = ~self.next_starts() if within_documents else None
        if len(self._goes_on) == len(self._after):
            return mask
        left = np.where(self._after >= 0, self._length, self._filled - 1)
        ends: Mask = np.arange(self._length) < left[:, None]
        return ends if mask is None else mask & ends

    def starts(self) -> Mask:
        """See `Rows`."""
        return self._marks()[:, :-1]

    def next_starts(self) -> Mask:
        """See `Rows`."""
        return self._marks()[:, 1:]

    def _marks(self) -> Mask:
        """Return where documents begin, (n, length + 1): the tokens and the last label; False after the end of a pass."""
        if self._found is None:
            begins, lengths, bounds = self._pieces
            row = np.repeat(np.arange(len(self._after)), np.diff(bounds))
            before = np.cumsum(lengths) - lengths
            marks = np.zeros((len(self._after), self._length + 1), dtype=np.bool_)
            marks[row, before - before[bounds[:-1]][row]] = True
            marks[:, 0] = self._stream.starts(begins[bounds[:-1]], 1)[:, 0]  # it may go on with the row before's last document
            marks[self._goes_on, -1] = self._stream.starts(self._after[self._goes_on], 1)[:, 0]
            self._found = marks
        return self._found


class MixedRows:
    """Rows of several builds. See `Rows`.

    Args:
        parts: (places among all rows, the rows that go there).
        count: rows.
        kind: returns the type of a column. The builds may store it in several; that of the batch must not depend on which of
            them some rows are from.
    """

    def __init__(self, parts: Sequence[tuple[Int64, Rows]], count: int, kind: Callable[[str], np.dtype[Any]]) -> None:
        self._parts, self._count, self._kind = parts, count, kind

    def _merge(self, arrays: Sequence[Values], kind: np.dtype[Any] | None = None) -> Values:
        out = np.empty((self._count, arrays[0].shape[1]), dtype=kind or np.bool_)
        for (places, _), array in zip(self._parts, arrays, strict=True):
            out[places] = array
        return out

    def values(self, name: str) -> Values:
        """See `Rows`."""
        return self._merge([rows.values(name) for _, rows in self._parts], self._kind(name))

    def next_values(self, name: str) -> Values:
        """See `Rows`."""
        return self._merge([rows.next_values(name) for _, rows in self._parts], self._kind(name))

    def labelled(self, *, within_documents: bool) -> Mask | None:
        """See `Rows`."""
        masks = [rows.labelled(within_documents=within_documents) for _, rows in self._parts]
        known = next((mask for mask in masks if mask is not None), None)
        if known is None:
            return None
        whole = np.ones((self._count, known.shape[1]), dtype=np.bool_)
        for (places, _), mask in zip(self._parts, masks, strict=True):
            if mask is not None:
                whole[places] = mask
        return whole

    def starts(self) -> Mask:
        """See `Rows`."""
        return self._merge([rows.starts() for _, rows in self._parts])

    def next_starts(self) -> Mask:
        """See `Rows`."""
        return self._merge([rows.next_starts() for _, rows in self._parts])
