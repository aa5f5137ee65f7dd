"""The order of one source: which sequence each of its endless samples is. Reads and writes nothing.

Sample j of a source of `count` sequences is place p = j mod count of epoch e = j div count; each epoch has every sequence
once. Where place p lies is a pure function, for any count, without a table of the data:

- `"none"`: sequence p.
- `"global"`: permute(p, count, (*key, e)), uniform over the whole source.
- `Blocks`: the stream is cut into blocks of contiguous sequences; whole blocks are permuted, and groups of a few of them
  are shuffled together, so that only those need to be at hand at a time. The last block, where it is shorter, comes last
  in each epoch, shuffled in itself. The exact numbers are in docs/order.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.arguments import one_of, whole
from gristmill.reader.order import LIMIT, permute, permute_each

Int64 = npt.NDArray[np.int64]

STRETCH = 4096  # sample numbers computed at once: numpy's cost a call is spread over them


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Shuffle with bounded reach.

    Attributes:
        sequences: contiguous sequences in a block; the larger, the fewer places of the data a block's reading begins at.
        open: blocks that are shuffled together; a sample comes from sequences · open that are open at the time.
    """

    sequences: int = 1024
    open: int = 16

    def __post_init__(self) -> None:
        for name, value in (("sequences", self.sequences), ("open", self.open)):
            object.__setattr__(self, name, whole(f"Blocks: {name}", value, 1))


Shuffle = Literal["global", "none"] | Blocks


def check(shuffle: Shuffle) -> None:
    """Raise ValueError unless this is a way to shuffle."""
    if not isinstance(shuffle, Blocks):
        one_of("shuffle", shuffle, ("global", "none"), " or Blocks(sequences=…, open=…)")


@dataclass(frozen=True, slots=True)
class _Groups:
    """The places of an epoch as groups: blocks shuffled together; after them the sequences of the shorter last block."""

    count: int
    block: int  # sequences in a whole block
    open: int  # blocks in a group

    @classmethod
    def of(cls, count: int, blocks: Blocks) -> _Groups:
        block = min(blocks.sequences, count)
        return cls(count, block, min(blocks.open, count // block))

    @property
    def blocks(self) -> int:
        return self.count // self.block

    @property
    def tail(self) -> int:
        """Return the number of the last group, that of the shorter block; it may be empty."""
        return -(-self.blocks // self.open)

    def begin(self, group: int) -> int:
        return min(group * self.open, self.blocks) * self.block

    def kinds(self) -> list[tuple[int, int]]:
        """Return (first group, sequences in it and in those after it up to the next kind), without empty groups."""
        firsts = sorted({0, self.blocks // self.open, self.tail})
        kinds = [(first, (self.begin(first + 1) if first < self.tail else self.count) - self.begin(first)) for first in firsts]
        return [kind for kind in kinds if kind[1]]

    def of_places(self, places: Int64) -> Int64:
        groups = places // (self.block * self.open)
        groups[places >= self.blocks * self.block] = self.tail
        return groups

    def sequences(self, places: Int64, epochs: Int64, key: tuple[int, ...]) -> Int64:
        """Return the sequence at each place of an epoch."""
        groups = self.of_places(places)
        out: Int64 = places - np.minimum(groups * self.open, self.blocks) * self.block
        kinds = self.kinds()
        codes = epochs * (self.tail + 1) + groups
        for (first, size), stop in zip(kinds, [first for first, _ in kinds[1:]] + [self.tail + 1], strict=True):
            mine = np.flatnonzero((groups >= first) & (groups < stop))
            out[mine] = _permuted(out[mine], size, codes[mine], lambda code: (*key, *divmod(code, self.tail + 1)))
        whole = np.flatnonzero(groups < self.tail)
        blocks = out[whole] // self.block
        within = out[whole] - blocks * self.block
        blocks = self._shuffled(blocks + groups[whole] * self.open, epochs[whole], key)
        out += self.blocks * self.block
        within += blocks * self.block
        out[whole] = within
        return out

    def _shuffled(self, blocks: Int64, epochs: Int64, key: tuple[int, ...]) -> Int64:
        """Return the block at each place among the blocks of an epoch; a run of samples asks for few places many times."""
        if len(blocks) and (epochs == epochs[0]).all():
            low = int(blocks.min())
            near = int(blocks.max()) - low + 1
            if near < len(blocks):
                table = permute(np.arange(low, low + near, dtype=np.int64), self.blocks, (*key, int(epochs[0])))
                return np.take(table, blocks - low)
        return _permuted(blocks, self.blocks, epochs, lambda epoch: (*key, epoch))

    def spans(self, epoch: int, group: int, key: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return the blocks of a group as ranges of sequences."""
        if group == self.tail:
            return [(self.begin(group), self.count)]
        places = np.arange(group * self.open, min((group + 1) * self.open, self.blocks), dtype=np.int64)
        begins = permute(places, self.blocks, (*key, epoch)) * self.block
        return [(begin, begin + self.block) for begin in begins.tolist()]


class Order:
    """The endless order of one source.

    Attributes:
        count: sequences in an epoch.
        key: integers that choose the order; epoch e is keyed by (*key, e).
        shuffle: how far samples are scattered.
    """

    def __init__(self, count: int, key: Sequence[int], shuffle: Shuffle) -> None:
        """Make the order of `count` sequences; ValueError where there can be none."""
        if not 1 <= count <= LIMIT:
            raise ValueError(f"no order of {count} sequences: there must be from 1 to 2^62")
        check(shuffle)
        self.count = count
        self.key = tuple(key)
        self.shuffle = shuffle
        self._groups = _Groups.of(count, shuffle) if isinstance(shuffle, Blocks) else None
        self._stretch = lru_cache(maxsize=16)(self._computed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what is cached."""
        return (Order, (self.count, self.key, self.shuffle))

    def at(self, numbers: npt.ArrayLike) -> Int64:
        """Return the sequence of each sample number.

        Args:
            numbers: integers in [0, 2^62), any shape, in any order.

        Returns:
            int64 array of the shape of `numbers`, in [0, count).

        Raises:
            ValueError: a number outside.
        """
        samples = np.asarray(numbers, dtype=np.int64)
        if samples.size and (int(samples.min()) < 0 or int(samples.max()) >= LIMIT):
            raise ValueError(f"samples from {samples.min()} to {samples.max()}: they are numbered from 0 to 2^62 - 1")
        flat = samples.reshape(-1)
        epochs = flat // self.count
        places = flat - epochs * self.count
        if self._groups is not None:
            places = self._groups.sequences(places, epochs, self.key)
        elif self.shuffle == "global":
            places = _permuted(places, self.count, epochs, lambda epoch: (*self.key, epoch))
        return places.reshape(samples.shape)

    def run(self, first: int, size: int) -> Int64:
        """Return `at` of the `size` samples from `first` on; cheap where samples near them were asked for before."""
        stretch, start = divmod(first, STRETCH)
        if first < 0:
            raise ValueError(f"samples from {first} on: they are numbered from 0 to 2^62 - 1")
        if start + size <= STRETCH:
            return self._stretch(stretch)[start : start + size].copy()
        end = start + size
        pieces = [self._stretch(stretch + n)[: end - n * STRETCH] for n in range(-(-end // STRETCH))]
        return np.concatenate([pieces[0][start:], *pieces[1:]])

    def _computed(self, stretch: int) -> Int64:
        return self.at(np.arange(STRETCH, dtype=np.int64) + stretch * STRETCH)

    def start(self, number: int) -> int:
        """Return the sample at which the reading of what sample `number` needs begins: with `Blocks` the first of its group."""
        if self._groups is None:
            return number
        epoch, place = divmod(number, self.count)
        group = int(self._groups.of_places(np.array([place]))[0])
        return epoch * self.count + self._groups.begin(group)

    def spans(self, first: int, size: int) -> list[tuple[int, int]]:
        """Return the ranges [a, b) of sequences whose reading begins with the `size` samples from `first` on, in that order.

        With `Blocks`: the blocks of the groups whose first sample is among these; who begins in the middle of a group asks
        from `start(first)` on. Unshuffled: one range, two where an epoch ends inside. Global: a range a sample.
        """
        if self._groups is not None:
            return self._group_spans(self._groups, first, first + size)
        if self.shuffle == "global":
            return [(sequence, sequence + 1) for sequence in self.run(first, size).tolist()]
        end = first % self.count + size
        ranges = [(first % self.count, min(end, self.count)), (0, min(end - self.count, self.count))]
        return [(begin, stop) for begin, stop in ranges if begin < stop]

    def _group_spans(self, groups: _Groups, first: int, end: int) -> list[tuple[int, int]]:
        spans = []
        number = self.start(first)
        while number < end:
            epoch, place = divmod(number, self.count)
            group = int(groups.of_places(np.array([place]))[0])
            if number >= first:
                spans += groups.spans(epoch, group, self.key)
            number = epoch * self.count + (groups.begin(group + 1) if group < groups.tail else self.count)
        return spans


def _permuted(indices: Int64, n: int, codes: Int64, key: Callable[[int], tuple[int, ...]]) -> Int64:
    """Return permute(indices[i], n, key(codes[i])) for each i."""
    if not len(indices):
        return indices
    if (codes == codes[0]).all():
        return permute(indices, n, key(int(codes[0])))
    distinct, which = np.unique(codes, return_inverse=True)
    return permute_each(indices, n, [key(code) for code in distinct.tolist()], which)
