"""The arrays of one training, who fills them at the start, and who gives them more room.

Used by `merges.py` alone, which imports it late: it brings numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.training import choosing, joining, kernels, pairs, tokens

if TYPE_CHECKING:
    from gristmill.tokenizer.training.capacity import Capacity
    from gristmill.tokenizer.training.rules import Quota, Rules
    from gristmill.tokenizer.training.stream import Stream

SORTED = 1 << 25  # places sorted at once when pairs are counted, at most: 8 bytes each
EFFORT = 1 << 22  # places visited between two reports of progress
ROWS = 1024  # merges between two, at most
EASE = 4  # how much lower a threshold goes when the pairs that reach it have run out
FEW, MOST = (
    4000,
    16,
)  # a group's pairs are followed from one occurrence in so many tokens, but from so many at the latest, at first

Ints = npt.NDArray[np.int64]
Part = tuple[npt.NDArray[np.int32], Ints, Ints]
"""Rows of `Learned`: merges, counts, group_tokens after each."""


class Trainer:
    """One training. A pair is followed if its count reaches `threshold`, or `threshold` times a group's share in that group."""

    def __init__(
        self,
        stream: Stream,
        initial: Sequence[bytes],
        merges: int,
        min_frequency: int,
        rules: Rules,
        quota: Quota,
        scaffold: bool,
        room: Capacity,
    ) -> None:
        """Make the arrays; nothing is counted yet."""
        ids = len(initial) + merges
        groups = stream.groups.size - 1
        columns = 1 + quota.targets.size
        weights = np.empty(0, np.int64) if stream.weights is None else stream.weights
        blocks = np.zeros((stream.ids.size >> kernels.BLOCK) + 1 if weights.size else 0, np.int32)
        group_ends = np.append(0, stream.ends)[stream.groups[1:]].astype(np.int64)
        self.work = kernels.Work(stream.ids, stream.ends, weights, blocks, group_ends)
        self.tokens = tokens.make_tokens(initial, ids)
        self.rules = (rules.limits(), rules.leading(), *rules.names())
        self.least, self.threshold = min_frequency, room.threshold
        self.shares, self.floors = np.ones(columns), np.full(columns, min_frequency)
        self.raised = False
        self.pairs = pairs.make_pairs(columns, room.pairs, room.places, np.full(columns, min_frequency))
        self.scratch = kernels.make_scratch(ids, columns, 0)
        frequency = np.zeros(ids if scaffold else 0, np.int64)
        self.policy = choosing.make_policy(len(initial), merges, min_frequency, quota.targets, quota.reserve, frequency)
        self.log = joining.Log(
            np.empty((ROWS, 3), np.int32),
            np.empty(ROWS, np.int64),
            np.empty((ROWS, groups), np.int64),
            np.array([len(initial), 0, 0], np.int64),
            np.zeros(groups, np.int64),
        )
        self.before = self.log.now
        kernels.prepare(self.work)

    def run(self) -> Iterator[tuple[int, Part]]:
        """Merge; yield now and then the number of new tokens and what was merged since."""
        self._count()
        self.before = self.log.now.copy()
        code = joining.PAUSE
        while code != joining.ENOUGH:
            code = int(joining.merge(self.work, self.tokens, self.rules, self.pairs, self.scratch, self.policy, self.log, EFFORT))
            rows = int(self.log.numbers[joining.LOGGED])
            numbers = self.policy.numbers
            done = int(numbers[choosing.MADE] - numbers[choosing.SCAFFOLDS])
            yield done, (self.log.merges[:rows].copy(), self.log.counts[:rows].copy(), self.log.left[:rows].copy())
            self.log.numbers[joining.LOGGED] = 0
            if code == joining.NO_PAIR:
                if self.pairs.thresholds[numbers[choosing.COLUMN]] <= self.least:
                    return
                self._recount(int(numbers[choosing.COLUMN]))
            elif code not in (joining.PAUSE, joining.ENOUGH):
                self._make_room(code, int(self.log.numbers[joining.NEED]))

    def spelled(self) -> tuple[bytes, ...]:
        """Return the bytes of all tokens there are."""
        starts, text = self.tokens.starts, self.tokens.text.tobytes()
        return tuple(text[starts[i] : starts[i + 1]] for i in range(int(self.log.numbers[joining.IDS])))

    def _count(self) -> None:
        """Count the pairs of the whole stream, following those for which there is room."""
        known = int(self.log.numbers[joining.IDS])
        histogram, frequency = np.zeros(known, np.int64), np.zeros(known, np.int64)
        self.log.now[:] = 0
        kernels.tally(self.work, histogram, frequency, self.log.now)
        if self.policy.frequency.size:
            self.policy.frequency[:known] = frequency
        if self.shares.size > 1 and (self.shares == 1).all():
            self.shares[1:] = np.maximum(self.log.now, 1) / max(int(self.log.now.sum()), 1)
            self.floors[1:] = np.clip(self.log.now // FEW, self.least, max(MOST, self.least))
        self._set_thresholds()
        starts = np.append(0, np.cumsum(histogram))
        size = max(min(SORTED, int(starts[-1]) // 8), int(histogram.max(initial=0)))
        places, rights = np.empty(size, np.uint32), np.empty(size, np.int32)
        low = 0
        while low < known:
            high = int(np.searchsorted(starts, starts[low] + size, "right")) - 1
            if starts[high] > starts[low]:
                kernels.scatter(self.work, low, high, starts[low:high] - starts[low], places, rights)
                self._collect(low, high, starts, places, rights)
            low = high

    def _collect(self, low: int, high: int, starts: Ints, places: npt.NDArray[np.uint32], rights: npt.NDArray[np.int32]) -> None:
        """Follow the sorted pairs, raising the thresholds when there is no room."""
        base = int(starts[low])
        while True:
            low = int(
                kernels.collect(
                    self.work, self.tokens, self.rules, self.pairs, self.scratch, low, high, base, starts, places, rights
                )
            )
            if low == high:
                return
            if not self._raise(gently=False):
                self._grow(2 * self.pairs.keys.size, 2 * self.pairs.pool.size)

    def _set_thresholds(self) -> None:
        """Set what follows from `threshold`, `shares` and `floors`."""
        self.pairs.thresholds[:] = np.maximum(self.floors, np.ceil(self.threshold * self.shares))

    def _raise(self, gently: bool) -> bool:
        """Raise the threshold until half the room is free; False if it can't be, or, gently, comes near the best counts."""
        used = int(self.pairs.used[pairs.PAIRS])
        heights = (self.pairs.counts[:used] / self.shares).max(axis=1)
        order = np.argsort(-heights, kind="stable")
        kept = min(int(np.searchsorted(np.cumsum(self.pairs.sizes[order]), self.pairs.pool.size // 2)), self.pairs.keys.size // 2)
        if kept >= used or heights[order[kept]] >= heights[order[0]]:
            return False
        threshold = int(heights[order[kept]]) + 1
        filled = self.pairs.heap_sizes > 0
        tops = np.where(filled, self.pairs.heights[:, 0], 0)
        wanted = np.maximum(self.floors, np.ceil(threshold * self.shares))
        if gently and (filled & (wanted > np.maximum(self.floors, tops // 2))).any():
            return False
        self.threshold, self.raised = threshold, True
        self._set_thresholds()
        pairs.settle(self.work.ids, self.pairs)
        return True

    def _grow(self, room: int, places: int) -> None:
        """Make room for so many pairs and places; 0 for as many as there are."""
        self.pairs = pairs.grown(self.pairs, room, places)
        pairs.settle(self.work.ids, self.pairs)

    def _recount(self, column: int) -> None:
        """Count anew with lower thresholds: no followed pair reaches the present one of this column any more."""
        before = int(self.pairs.thresholds[column])
        if column:
            self.shares[column] /= EASE
            self.floors[column] = max(self.floors[column] // EASE, self.least)
        else:
            self.threshold = max(self.threshold // (2 * EASE), 1)
        threshold = self.threshold
        while True:
            self.pairs.used[:] = 0
            if self.raised:  # there was too little room
                self.pairs = pairs.grown(self.pairs, 2 * self.pairs.keys.size, 2 * self.pairs.pool.size)
            self.threshold, self.raised = threshold, False
            self._set_thresholds()
            pairs.settle(self.work.ids, self.pairs)
            self._count()
            if self.pairs.thresholds[column] < before:
                return

    def _make_room(self, code: int, need: int) -> None:
        """Make the room that the next merge lacks."""
        if code == joining.NO_PLACES:
            self.scratch = kernels.make_scratch(
                self.scratch.index.size - 1, self.shares.size, max(need, 2 * self.scratch.places.size)
            )
        elif code == joining.NO_TEXT:
            self.tokens = tokens.grown(self.tokens, self.tokens.words.size, 2 * self.tokens.text.size + need)
        elif code == joining.NO_IDS:
            ids = 2 * self.tokens.words.size
            self.tokens = tokens.grown(self.tokens, ids, self.tokens.text.size)
            self.scratch = kernels.make_scratch(ids, self.shares.size, self.scratch.places.size)
            self.policy = choosing.grown(self.policy, ids)
        else:
            which, room = (pairs.PAIRS, self.pairs.keys.size) if code == joining.NO_PAIRS else (pairs.POOL, self.pairs.pool.size)
            pairs.settle(self.work.ids, self.pairs)
            if room - self.pairs.used[which] < room // 8:
                self._raise(gently=True)
            used = int(self.pairs.used[which])
            if room - used < max(need, room // 8):  # what is needed is a bound, seldom filled: better more room than a recount
                room = max(room, used + need) + room // 4
                self._grow(*((room, 0) if which == pairs.PAIRS else (0, room)))
