"""Windows of a per-token column, gathered from the maps of many shards by one call of numpy.

Reads: open columns (`column.py`). Writes: nothing.

All maps of a process lie in one address space. An array whose row i *is* the window that begins at value i of that
space costs nothing (rows overlap, nothing of it is read), and indexing it with the places of a batch's sequences copies
just these windows, wherever their shards are mapped: one call a batch instead of one a row, which is what makes the
reader as fast as copying memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.format.column import BITS, TokenColumn

Int64 = npt.NDArray[np.int64]

_BEFORE = np.iinfo(np.int64).min // 4  # below any token, and far enough from the end of int64 to subtract


class _Space:
    """A stretch of the address space as overlapping windows of values, for `np.asarray`."""

    __slots__ = ("__array_interface__",)

    def __init__(self, address: int, values: int, length: int, dtype: np.dtype[Any]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "data": (address, True),
            "shape": (max(values - length + 1, 1), length),
            "strides": (dtype.itemsize, dtype.itemsize),
            "typestr": dtype.str,
        }


class OpenColumns:
    """One column of all shards of a build; shards are opened as they are needed, the longest unused are closed.

    Args:
        begins: int64, (shards + 1,): number in the stream of each shard's first token, then the stream's end.
        dtype: type of a value, bool where eight share a byte.
        padding: what stands after the stream's end.
        opening: opens the column of one shard.
        closing: called with the number of a shard that is closed.
        capacity: shards kept open.

    At most `capacity` shards are open, so a row that crosses from one shard to the next needs two.
    """

    def __init__(
        self,
        begins: Int64,
        dtype: np.dtype[Any],
        padding: float,
        opening: Callable[[int], TokenColumn],
        closing: Callable[[int], None],
        capacity: int,
    ) -> None:
        self.dtype, self.padding = dtype, padding
        self._packed = dtype == BITS
        self._opening, self._closing, self._capacity = opening, closing, max(capacity, 2)
        self._shard_begins = begins
        self._end = int(begins[-1])
        self._columns: dict[int, TokenColumn] = {}
        self._used: dict[int, int] = {}
        self._tick = 0
        # The open extents, sorted; the first entry stands for 'not open'. An origin is where token 0 of the stream would lie.
        self._keep(np.array([[_BEFORE], [_BEFORE], [0], [-1]]))
        self._documents: list[npt.NDArray[np.int32]] = [np.zeros(1, dtype=np.int32)]  # the borders of each extent's
        self._low, self._high = np.iinfo(np.int64).max, 0  # of all places
        self._views: dict[int, npt.NDArray[Any]] = {}

    def windows(self, begins: Int64, length: int) -> npt.NDArray[Any]:
        """Return the `length` values from each of `begins` on, (n, length); `padding` after the stream's end."""
        found = self._begins.searchsorted(begins, "right")  # in place from here on: a new array costs a microsecond
        found -= 1
        room = self._ends.take(found)
        room -= begins
        if not len(room) or np.minimum.reduce(room) < length:
            return self._piecewise(begins, length)
        if len(self._columns) == self._capacity:
            self._touch(found)
        places = self._origins.take(found)
        places += begins
        return self._gather(places, length)

    def pieces(self, begins: Int64, lengths: Int64) -> list[npt.NDArray[Any]]:
        """Return the `lengths[i]` values from `begins[i]` on, an array each; all within the stream.

        The arrays may be views of the maps: copy them before anything else is asked for.
        """
        found = np.searchsorted(self._begins, begins, side="right") - 1
        if (self._ends[found] - begins - lengths).min(initial=0) < 0:
            return [self._copy(begin, length) for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)]
        if len(self._columns) == self._capacity:
            self._touch(found)
        places = (self._origins[found] + begins).tolist()
        return [self._slice(place, count) for place, count in zip(places, lengths.tolist(), strict=True)]

    def starts(self, begins: Int64, length: int) -> npt.NDArray[np.bool_]:
        """Return where documents begin in the windows of `length` from each of `begins` on, (n, length); False after the end."""
        found = self._begins.searchsorted(begins, "right") - 1
        inside = self._ends.take(found) - begins >= length
        limits = np.empty((len(begins), 2), dtype=np.int32)  # of the offsets' own type: another would convert the whole array
        limits[:, 0] = np.where(inside, begins - self._begins.take(found), 0)
        limits[:, 1] = limits[:, 0] + length
        parts, shifts = [], []
        for row in np.flatnonzero(inside).tolist():
            borders = self._documents[found[row]]
            low, high = borders.searchsorted(limits[row]).tolist()
            parts.append(borders[low:high])
            shifts.append(row * length - int(limits[row, 0]))
        for row in np.flatnonzero(~inside).tolist():  # last: opening shards moves the extents that were found
            begin = int(begins[row])
            for borders, first in self._borders(begin, min(begin + length, self._end)):
                parts.append(borders)
                shifts.append(row * length + first - begin)
        out = np.zeros((len(begins), length), dtype=np.bool_)
        if parts:
            places = np.concatenate(parts, dtype=np.int64)
            places += np.repeat(np.array(shifts), [len(part) for part in parts])
            out.reshape(-1)[places] = True
        return out

    def _borders(self, begin: int, end: int) -> Iterator[tuple[npt.NDArray[np.int32], int]]:
        """Yield (where documents begin, number of the first token of what that is counted in) in [begin, end), by extents."""
        while begin < end:
            found = int(self._begins.searchsorted(begin, "right")) - 1
            if begin >= self._ends[found]:
                self.column(self.shard_of(begin))
                continue
            borders, first = self._documents[found], int(self._begins[found])
            stop = min(end, int(self._ends[found]))
            low, high = borders.searchsorted(np.array((begin - first, stop - first), dtype=np.int32)).tolist()
            yield borders[low:high], first
            begin = stop

    def will_need(self, begins: Int64, ends: Int64) -> None:
        """Ask the system to read the values [begins[i], ends[i]) ahead, as far as the extent goes that each begins in."""
        found = self._begins.searchsorted(begins, "right") - 1
        origins = self._origins.take(found)
        first, last = origins + begins, origins + np.minimum(ends, self._ends.take(found)) - 1
        first, last = (first // 8, last // 8) if self._packed else (first * self.dtype.itemsize, last * self.dtype.itemsize)
        for shard, low, high in zip(self._shards.take(found).tolist(), first.tolist(), last.tolist(), strict=True):
            if shard >= 0 and low <= high:
                self._columns[shard].will_need(low, high)

    def column(self, shard: int) -> TokenColumn:
        """Return the open column of a shard."""
        self._tick += 1
        if shard not in self._columns:
            self._open(shard)
        self._used[shard] = self._tick
        return self._columns[shard]

    def shard_of(self, token: int) -> int:
        """Return the shard that a token of the stream lies in."""
        return int(np.searchsorted(self._shard_begins, token, side="right")) - 1

    # ---- the table of open extents ----

    def _touch(self, found: Int64) -> None:
        """Note who was used last, which matters only when someone has to go."""
        self._tick += 1
        for shard in np.unique(self._shards[found]).tolist():
            self._used[shard] = self._tick

    def _keep(self, table: Int64) -> None:
        """Take the open extents, (4, n): begin, end, origin, shard."""
        self._table = np.ascontiguousarray(table)
        self._begins, self._ends, self._origins, self._shards = self._table

    def _open(self, shard: int) -> None:
        if len(self._columns) == self._capacity:
            self._close(min(self._columns, key=lambda s: self._used[s]))
        column = self._columns[shard] = self._opening(shard)
        first = int(self._shard_begins[shard])
        extents = [extent for extent in column.extents if extent.count]
        at = int(np.searchsorted(self._begins, first, side="right"))
        begins = [first + e.begin for e in extents]
        ends = [begin + e.count for begin, e in zip(begins, extents, strict=True)]
        origins = [e.address - begin for begin, e in zip(begins, extents, strict=True)]
        opened = np.array([begins, ends, origins, [shard] * len(extents)], dtype=np.int64)
        self._keep(np.concatenate([self._table[:, :at], opened, self._table[:, at:]], axis=1))
        self._documents[at:at] = [e.offsets for e in extents]
        self._low = min([self._low, *(e.address for e in extents)])
        self._high = max([self._high, *(e.address + e.count for e in extents)])
        self._views = {}

    def _close(self, shard: int) -> None:
        kept = self._shards != shard
        self._documents = [offsets for offsets, keep in zip(self._documents, kept.tolist(), strict=True) if keep]
        self._keep(self._table[:, kept])
        del self._columns[shard], self._used[shard]
        self._closing(shard)

    # ---- copying ----

    def _view(self, length: int) -> npt.NDArray[Any]:
        """Return the windows of `length` values (bytes, for booleans) that begin at each place from the lowest on."""
        if length not in self._views:
            kind = np.dtype(np.uint8) if self._packed else self.dtype
            low, high = (self._low // 8, self._high // 8 + 4) if self._packed else (self._low, self._high)
            self._views[length] = np.asarray(_Space(low * kind.itemsize, high - low, length, kind))
        return self._views[length]

    def _gather(self, places: Int64, length: int) -> npt.NDArray[Any]:
        if not self._packed:
            view = self._views.get(length)
            places -= self._low
            found: npt.NDArray[Any] = (self._view(length) if view is None else view)[places]
            return found
        width = length // 8 + 2  # a window that begins within a byte ends within another; what follows is the file's footer
        packed = self._view(width)[(places >> 3) - self._low // 8]
        bits = np.unpackbits(packed, axis=1, bitorder="little").view(np.bool_)
        starts = (places & 7) + np.arange(len(places)) * bits.shape[1]
        windows: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(bits.reshape(-1), length)[starts]
        return windows

    def _piecewise(self, begins: Int64, length: int) -> npt.NDArray[Any]:
        """Gather rows whose shards are not open yet, or that cross the borders of extents or the stream's end."""
        missing = self._missing(begins)
        if len(missing) <= self._capacity:
            for shard in missing:
                self.column(shard)
        found = np.searchsorted(self._begins, begins, side="right") - 1
        whole = self._ends[found] - begins >= length
        out = np.empty((len(begins), length), dtype=self.dtype)
        if whole.any():
            out[whole] = self._gather((self._origins[found] + begins)[whole], length)
        for row in np.flatnonzero(~whole).tolist():
            begin = int(begins[row])
            inside = max(0, min(length, self._end - begin))
            out[row, :inside] = self._copy(begin, inside)
            out[row, inside:] = self.padding
        return out

    def _missing(self, begins: Int64) -> list[int]:
        """Return the shards that these windows begin in, open or not."""
        inside = begins[begins < self._end]
        shards: list[int] = np.unique(np.searchsorted(self._shard_begins, inside, side="right") - 1).tolist()
        return shards

    def _copy(self, begin: int, length: int) -> npt.NDArray[Any]:
        """Return a copy of a stretch of the stream, extent by extent: opening the next may close the one before."""
        out = np.empty(length, dtype=self.dtype)
        done = 0
        while done < length:
            shard = self.shard_of(begin + done)
            start = begin + done - int(self._shard_begins[shard])
            extent = self.column(shard).extent(start)
            count = min(length - done, extent.begin + extent.count - start)
            out[done : done + count] = self._slice(extent.address + start - extent.begin, count)
            done += count
        return out

    def _slice(self, place: int, count: int) -> npt.NDArray[Any]:
        flat = self._view(1)[:, 0]
        if not self._packed:
            return flat[place - self._low : place - self._low + count]
        first = place // 8 - self._low // 8
        bits = np.unpackbits(flat[first : first + count // 8 + 2], bitorder="little")
        return bits[place % 8 : place % 8 + count].view(np.bool_)
