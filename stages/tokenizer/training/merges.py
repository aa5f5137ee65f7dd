"""The trainer: the merges of byte-pair encoding over a stream of ids (Sennrich et al. 2016), with rules on what may be merged.

Reads a `Stream` (words with counts, or running text in ids), changes it, gives the merges. Counts are exact in 64 bits; the
order is that of the stock trainer: highest count first, then the smallest left id, then the smallest right id. Overlapping
occurrences all count ("aaa" holds the pair "aa" twice), merging goes from left to right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stages.tokenizer.training import kernels, pairs, tokens
from stages.tokenizer.training.rules import Rules

SORTED = 1 << 25  # places sorted at once when pairs are counted: 8 bytes each
EFFORT = 1 << 22  # places visited between two reports of progress
ROWS = 1024  # merges between two, at most
MOST_SLOTS = 2**32 - 1  # places are kept in 32 bits
MOST_IDS = kernels.FIRST - 1

Ints = npt.NDArray[np.int64]


class Pieces(Protocol):
    """What is read of a `Stream`."""

    ids: npt.NDArray[np.int32]
    ends: Ints
    weights: Ints | None
    groups: Ints


@dataclass(frozen=True)
class Learned:
    """What was learned, in the order of merging.

    `merges`: int32 [n, 3], left id, right id, id of the joined token: a new one, or that of the first token that has the
    same bytes. `counts`: int64 [n], how often the pair stood in the stream. `tokens`: the initial tokens and the new ones.
    `group_tokens`: int64 [n + 1, groups], tokens of each group (times the weights) before the first merge and after each.
    """

    merges: npt.NDArray[np.int32]
    counts: Ints
    tokens: tuple[bytes, ...]
    group_tokens: Ints


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much the trainer keeps in memory. The merges don't depend on it.

    `pairs`: pairs tracked at once. `places`: places of pairs kept at once (4 bytes each).
    """

    pairs: int
    places: int


def silent(done: int, total: int) -> None:
    """Report nothing."""


def learn(
    stream: Pieces,
    initial: Sequence[bytes],
    merges: int,
    *,
    min_frequency: int = 2,
    rules: Rules = Rules(),  # noqa: B008 - frozen
    progress: Callable[[int, int], None] = silent,
    room: Room | None = None,
) -> Learned:
    """Learn merges until there are `merges` new tokens, or no allowed pair occurs `min_frequency` times.

    Args:
        stream: its ids are indices into `initial`; they are of no use afterwards.
        initial: bytes of each id; b"" for an id that no merge may take or make (a special token's).
        merges: new tokens to make; a merge that makes a token which is there already does not count.
        min_frequency: at least 1.
        progress: called with (new tokens, `merges`) several times a second.
        room: for tests.

    Raises:
        ValueError: the stream is longer than 2^32 - 1 slots, or holds ids that are no tokens, or pieces that do not cover it.
    """
    _check(stream, initial, merges, min_frequency)
    trainer = _Trainer(stream, initial, merges, min_frequency, rules, room or _room(stream.ids.size, merges))
    progress(0, merges)
    for done in trainer.run():
        progress(done, merges)
    return trainer.learned()


def _check(stream: Pieces, initial: Sequence[bytes], merges: int, min_frequency: int) -> None:
    slots = stream.ids.size
    if slots > MOST_SLOTS:
        raise ValueError(f"the stream has {slots:_} slots, more than {MOST_SLOTS:_}; sample less text")
    if len(initial) + merges > MOST_IDS:
        raise ValueError(f"there would be {len(initial) + merges:_} tokens, more than {MOST_IDS:_}")
    if merges < 0 or min_frequency < 1:
        raise ValueError(f"merges must be at least 0, min_frequency at least 1; found {merges}, {min_frequency}")
    if slots and not 0 <= int(stream.ids.min()) <= int(stream.ids.max()) < len(initial):
        raise ValueError(f"the stream's ids are from {stream.ids.min()} to {stream.ids.max()}, but there are {len(initial)} tokens")
    if (stream.ends[-1] if stream.ends.size else 0) != slots:
        raise ValueError(f"the pieces end at slot {stream.ends[-1:]}, but the stream has {slots} slots")


def _room(slots: int, merges: int) -> Room:
    """Return room for half the places of a long stream, all of a short one, and some times the pairs that will be merged."""
    return Room(pairs=8 * merges + (1 << 17), places=max(slots // 2, min(slots, 1 << 24)) + (1 << 16))


class _Trainer:
    """The arrays of one training, and who gives them more room."""

    def __init__(
        self, stream: Pieces, initial: Sequence[bytes], merges: int, min_frequency: int, rules: Rules, room: Room
    ) -> None:
        ids = len(initial) + merges
        weights = np.empty(0, np.int64) if stream.weights is None else stream.weights
        blocks = np.zeros((stream.ids.size >> kernels.BLOCK) + 1 if weights.size else 0, np.int32)
        self.group_ends = np.append(0, stream.ends)[stream.groups[1:]].astype(np.int64)
        self.work = kernels.Work(stream.ids, stream.ends, weights, blocks, self.group_ends)
        self.tokens = tokens.make_tokens(initial, ids)
        self.rules = (rules.limits(), rules.leading())
        self.least = min_frequency
        self.most_ids = ids
        self.initial = len(initial)
        columns = 1
        self.pairs = pairs.make_pairs(columns, room.pairs, room.places, [min_frequency] * columns)
        self.scratch = kernels.Scratch(
            *(np.empty(0, kind) for kind in (np.uint32, np.uint32, np.int32, np.int32)),
            np.full(ids + 1, -1, np.int32),
            np.empty(ids + 1, np.int32),
            np.empty(ids + 1, np.int64),
            np.empty(ids + 1, np.int64),
            np.empty((ids + 1, columns), np.int64),
        )
        groups = self.group_ends.size
        self.log = kernels.Log(
            np.empty((ROWS, 3), np.int32),
            np.empty(ROWS, np.int64),
            np.empty((ROWS, groups), np.int64),
            np.array([len(initial), 0, 0], np.int64),
            np.zeros(groups, np.int64),
        )
        self.parts: list[tuple[npt.NDArray[np.int32], Ints, Ints]] = []
        kernels.prepare(self.work)

    def run(self) -> Iterator[int]:
        """Merge; yield the number of new tokens now and then."""
        self._count()
        self.before = self.log.now.copy()
        while True:
            code = kernels.merge(
                self.work, self.tokens, self.rules, self.pairs, self.scratch, self.log, self.most_ids, EFFORT
            )
            self._collect_log()
            if code == kernels.ENOUGH:
                return
            if code == kernels.NOTHING:
                if self.pairs.thresholds[0] <= self.least:
                    return
                self._recount()
            elif code != kernels.PAUSE:
                self._make_room(code, int(self.log.numbers[kernels.NEED]))
            yield int(self.log.numbers[kernels.IDS]) - self.initial

    def learned(self) -> Learned:
        """Return what was learned."""
        merges, counts, left = (np.concatenate(columns) for columns in zip(*self.parts, strict=True))
        starts, text = self.tokens.starts, self.tokens.text.tobytes()
        made = [text[starts[i] : starts[i + 1]] for i in range(int(self.log.numbers[kernels.IDS]))]
        return Learned(merges, counts, tuple(made), np.concatenate([self.before[None], left]))

    def _collect_log(self) -> None:
        rows = int(self.log.numbers[kernels.LOGGED])
        self.parts.append((self.log.merges[:rows].copy(), self.log.counts[:rows].copy(), self.log.left[:rows].copy()))
        self.log.numbers[kernels.LOGGED] = 0

    def _count(self) -> None:
        """Count the pairs of the whole stream, keeping those for which there is room."""
        known = int(self.log.numbers[kernels.IDS])
        histogram = np.zeros(known, np.int64)
        self.log.now[:] = 0
        kernels.tally(self.work, histogram, self.log.now)
        starts = np.append(0, np.cumsum(histogram))
        size = max(min(SORTED, int(starts[-1])), int(histogram.max(initial=0)))
        places, rights = np.empty(size, np.uint32), np.empty(size, np.int32)
        low = 0
        while low < known:
            high = max(low + 1, int(np.searchsorted(starts, starts[low] + size, "right")) - 1)
            if starts[high] > starts[low]:
                kernels.scatter(self.work, low, high, starts[low:high] - starts[low], places, rights)
                self._collect(low, high, starts, places, rights)
            low = high

    def _collect(self, low: int, high: int, starts: Ints, places: npt.NDArray[np.uint32], rights: npt.NDArray[np.int32]) -> None:
        """Track the sorted pairs, raising the thresholds when there is no room."""
        base = starts[low]
        while True:
            low = kernels.collect(
                self.work, self.tokens, self.rules, self.pairs, self.scratch, low, high, base, starts, places, rights
            )
            if low == high:
                return
            if not self._raise():
                self._grow(2 * self.pairs.keys.size, 2 * self.pairs.pool.size)

    def _raise(self) -> bool:
        """Raise the thresholds until half the room is free; say if that could be done without coming near the best count."""
        used = int(self.pairs.used[pairs.PAIRS])
        counts = self.pairs.counts[:used, 0]
        order = np.argsort(-counts, kind="stable")
        kept = min(int(np.searchsorted(np.cumsum(self.pairs.sizes[order]), self.pairs.pool.size // 2)), self.pairs.keys.size // 2)
        if kept >= used or counts[order[kept]] >= counts[order[0]] // 2:
            return False
        self.pairs.thresholds[0] = counts[order[kept]] + 1
        pairs.settle(self.work.ids, self.pairs)
        return True

    def _grow(self, room: int, places: int) -> None:
        self.pairs = pairs.grown(self.pairs, room, places)
        pairs.settle(self.work.ids, self.pairs)

    def _recount(self) -> None:
        """Count anew with lower thresholds: no pair that is tracked reaches the present ones any more."""
        before = int(self.pairs.thresholds[0])
        while True:
            self.pairs.used[:] = 0
            self.pairs.thresholds[:] = self.least
            pairs.settle(self.work.ids, self.pairs)
            self._count()
            if self.pairs.thresholds[0] < before:
                return
            self._grow(2 * self.pairs.keys.size, 2 * self.pairs.pool.size)

    def _make_room(self, code: int, need: int) -> None:
        """Make the room that the next merge lacks."""
        if code == kernels.NO_PLACES:
            arrays = (np.empty(max(need, 2 * array.size), array.dtype) for array in self.scratch[:4])
            self.scratch = kernels.Scratch(*arrays, *self.scratch[4:])
        elif code == kernels.NO_TEXT:
            text = np.zeros(2 * self.tokens.text.size + need, np.uint8)
            text[: self.tokens.text.size] = self.tokens.text
            self.tokens = self.tokens._replace(text=text)
        else:
            pairs.settle(self.work.ids, self.pairs)
            if self._short(need, code) and not (self._raise() and not self._short(need, code)):
                used, taken = (int(value) for value in self.pairs.used)
                self._grow(*((2 * used + need, 0) if code == kernels.NO_PAIRS else (0, 2 * taken + need)))

    def _short(self, need: int, code: int) -> bool:
        """Say if less than a quarter of the pairs or places is free, or less than is needed."""
        which = pairs.PAIRS if code == kernels.NO_PAIRS else pairs.POOL
        room = (self.pairs.keys.size, self.pairs.pool.size)[which]
        return room - int(self.pairs.used[which]) < max(need, room // 4)
