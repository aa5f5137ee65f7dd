"""Which source each sample comes from: exact counts, weights that change, sources that are used up. Reads and writes nothing.

Samples are numbered from 0 through the whole training. A *phase* is a stretch of them with one set of weights; it begins
where a weight changes and where a source is used up. Inside a phase, *blocks* of a power of two of samples hold as many of
each source as makes the counts since the phase's beginning exact, rounded, at every block's end; inside a block
each source is spread evenly, with keyed jitter and shift: every prefix has nearly its share and nothing is periodic. The n-th
sample of a source is its number n: a source's own order is kept. The exact numbers are in docs/order.md.

So sample i is a pure function of i, the weights up to i, and the seed; weights that change later leave no trace before.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

BLOCK = 1 << 12
LARGEST_BLOCK = 1 << 20
CACHED = 1 << 17  # samples whose source is kept: 2 MiB; at least two blocks

_MULTIPLY = np.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3, whose avalanche is well studied
_SHIFT = np.uint64(33)


@dataclass(frozen=True, slots=True)
class _Phase:
    """A stretch of samples with one set of weights.

    Attributes:
        start: number of its first sample.
        block: samples in a block.
        sources: those that have a weight and are not used up.
        bounds: their weights as cumulated whole numbers, from 0 to the sum of all.
        before: samples of every source, also those without a weight, before this phase.
        seed: chooses the jitter.
    """

    start: int
    block: int
    sources: tuple[int, ...]
    bounds: tuple[int, ...]
    before: tuple[int, ...]
    seed: int

    def given(self, block: int) -> list[int]:
        """Return the samples of each of `sources` in the phase's first `block` blocks: within 1 of the exact, rational count."""
        ends = [block * self.block * bound // self.bounds[-1] for bound in self.bounds]
        return [end - begin for begin, end in pairwise(ends)]

    def _given_of(self, place: int, block: int) -> int:
        return self.given(block)[place]

    def pattern(self, block: int) -> tuple[Int64, Int64]:
        """Return (source, number in the source) of each sample of a block, int64, each of shape (self.block,)."""
        begins = self.given(block)
        counts = np.array([end - begin for begin, end in zip(begins, self.given(block + 1), strict=True)])
        before = [self.before[source] + begin for source, begin in zip(self.sources, begins, strict=True)]
        ends = np.cumsum(counts)
        firsts = ends - counts
        slots = np.arange(self.block, dtype=np.int64)  # source by source
        hashes = _hashes(self.block + len(counts), (self.seed, self.start, block))
        jitter, shift = hashes[: self.block], hashes[self.block :]
        turned = jitter[firsts] < shift  # the first would come before the block: it comes last instead
        taken = slots + np.repeat(turned, counts)
        taken[ends[turned] - 1] = firsts[turned]
        places = slots - np.repeat(firsts - turned, counts) + (jitter[taken] - np.repeat(shift, counts))
        order = np.argsort(places / np.repeat(counts, counts), kind="stable")
        numbers = slots + np.repeat(np.array(before, dtype=np.int64) - firsts, counts)
        return np.repeat(np.array(self.sources, dtype=np.int64), counts)[order], numbers[order]

    def counts(self, sample: int, pattern: Callable[[int], tuple[Int64, Int64]]) -> Int64:
        """Return the samples of every source before `sample`, which is in this phase or its end; `pattern` may remember."""
        block, rest = divmod(sample - self.start, self.block)
        counts = np.array(self.before, dtype=np.int64)
        counts[list(self.sources)] += self.given(block)
        if rest:
            counts += np.bincount(pattern(block)[0][:rest], minlength=len(counts))
        return counts

    def used_up(self, limits: Sequence[int | None], end: int | None) -> int | None:
        """Return the sample after the first at which a source has given all its limit; None: not before `end`."""
        ends = {}
        for place, source in enumerate(self.sources):
            limit = limits[source]
            if limit is not None:
                left = limit - self.before[source]
                ends[source] = bisect_left(range(left + 1), left, key=partial(self._given_of, place))  # one a block at least
        block = min(ends.values(), default=1) - 1
        if not ends or (end is not None and self.start + block * self.block >= end):
            return None
        sources, numbers = self.pattern(block)
        last = np.array([-1 if limit is None else limit - 1 for limit in limits], dtype=np.int64)
        found = self.start + block * self.block + int(np.flatnonzero(numbers == last[sources])[0]) + 1
        return found if end is None or found < end else None


def _hashes(count: int, key: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return keyed hashes of the numbers from 0 to count - 1 as float64 in [0, 1)."""
    text = ",".join(str(part) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"gristmill-mix").digest()
    mixed = np.arange(count, dtype=np.uint64) ^ np.uint64(int.from_bytes(digest, "little"))
    for _ in range(2):
        mixed *= _MULTIPLY
        mixed ^= mixed >> _SHIFT
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Mixture:
    """The sources of all samples, as a pure function of their numbers.

    Attributes:
        total: samples until every source with a weight is used up; None: endless.
        limits: samples that each source gives at most; None: endless.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[Mapping[int, float]],
        max_epochs: Sequence[float | None],
        seed: int,
        names: Sequence[str],
    ) -> None:
        """Find the phases.

        Args:
            sizes: samples in one epoch of each source.
            weights: of each source: first sample number from which → weight, from 0 on; 0 is off. Only their ratios within a
                phase matter. A weight is taken as the decimal number that it is printed as: 0.1 is a tenth.
            max_epochs: each source gives at most floor(max_epochs · size) samples, then the others share its weight from
                the next sample on. None: endless.
            seed: chooses the jitter.
            names: of the sources, for errors.

        Raises:
            ValueError: what the arguments must not be; it names the source.
        """
        self._arguments = (tuple(sizes), tuple(dict(one) for one in weights), tuple(max_epochs), seed, tuple(names))
        if not names:
            raise ValueError("a mixture of no sources: give at least one")
        self.limits = [_limit(*one) for one in zip(sizes, max_epochs, names, strict=True)]
        plan = _Plan([_schedule(*one) for one in zip(weights, names, strict=True)], self.limits, seed, tuple(names))
        self._phases, self.total = plan.phases()
        self._starts = [phase.start for phase in self._phases]
        largest = max(phase.block for phase in self._phases)
        self._pattern = lru_cache(maxsize=max(CACHED // largest, 2))(self._computed)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without what is cached."""
        return (Mixture, self._arguments)

    def draw(self, first: int, size: int) -> tuple[Int64, Int64]:
        """Return (source, number in the source) of the `size` samples from `first` on, int64, each of shape (size,).

        Raises:
            IndexError: samples outside [0, total).
        """
        self._check(first, first + size)
        at = bisect_right(self._starts, first) - 1
        phase = self._phases[at]
        block, start = divmod(first - phase.start, phase.block)
        end = self._starts[at + 1] if at + 1 < len(self._starts) else None
        if start + size <= phase.block and (end is None or first + size <= end):
            sources, numbers = self._pattern(at, block)
            return sources[start : start + size].copy(), numbers[start : start + size].copy()
        return self._long(first, first + size)

    def _long(self, first: int, end: int) -> tuple[Int64, Int64]:
        pieces = []
        while first < end:
            at = bisect_right(self._starts, first) - 1
            phase = self._phases[at]
            block, start = divmod(first - phase.start, phase.block)
            stop = min(start + end - first, phase.block)
            if at + 1 < len(self._starts):
                stop = min(stop, start + self._starts[at + 1] - first)
            pieces.append([part[start:stop] for part in self._pattern(at, block)])
            first += stop - start
        return np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])

    def counts(self, sample: int) -> Int64:
        """Return the samples of each source among the first `sample`, int64 of shape (sources,).

        Raises:
            IndexError: `sample` outside [0, total].
        """
        self._check(sample, sample)
        at = bisect_right(self._starts, sample) - 1
        return self._phases[at].counts(sample, partial(self._pattern, at))

    def _computed(self, phase: int, block: int) -> tuple[Int64, Int64]:
        return self._phases[phase].pattern(block)

    def _check(self, first: int, end: int) -> None:
        if first < 0 or (self.total is not None and end > self.total):
            have = (
                "the mixture is endless" if self.total is None else f"the mixture has {self.total}: then all sources are used up"
            )
            raise IndexError(f"no samples {first} to {end}: they are numbered from 0, and {have}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What phases are found from: the weights of each source by sample number, and how many samples each can give."""

    schedules: Sequence[Sequence[tuple[int, Fraction]]]
    limits: Sequence[int | None]
    seed: int
    names: tuple[str, ...]

    def phases(self) -> tuple[list[_Phase], int | None]:
        """Return the phases in order, and the number of samples in all."""
        changes = sorted({start for schedule in self.schedules for start, _ in schedule})
        before = [0] * len(self.limits)
        phases: list[_Phase] = []
        start: int | None = 0
        while start is not None:
            current, *later = changes[bisect_right(changes, start) - 1 :]
            weights = self._left(current, before)
            if not weights:
                for change in later:
                    if self._left(change, before):
                        raise ValueError(
                            f"from sample {start} on every source with a weight is used up, but the weights change at sample "
                            f"{change}: let it change earlier, or raise max_epochs"
                        )
                return phases, start
            phase = self._phase(start, weights, before)
            phases.append(phase)
            end = later[0] if later else None
            used_up = phase.used_up(self.limits, end)
            start = end if used_up is None else used_up
            before = before if start is None else phase.counts(start, phase.pattern).tolist()
        return phases, None

    def _left(self, change: int, before: Sequence[int]) -> dict[int, Fraction]:
        """Return the weights that begin with `change`, of the sources that have one and are not used up."""
        weights = {}
        for source, schedule in enumerate(self.schedules):
            weight = schedule[bisect_right(schedule, change, key=_start) - 1][1]
            if weight:
                weights[source] = weight
        if not weights:
            raise ValueError(f"from sample {change} on all weights are 0: {', '.join(self.names)}")
        return {source: weight for source, weight in weights.items() if self.limits[source] != before[source]}

    def _phase(self, start: int, weights: Mapping[int, Fraction], before: Sequence[int]) -> _Phase:
        total = sum(weights.values())
        smallest = min(weights, key=lambda source: weights[source])
        share = weights[smallest] / total
        block = BLOCK
        while block * share < 2:  # so that rounding leaves each source a sample in every block
            block *= 2
        if block > LARGEST_BLOCK:
            raise ValueError(
                f"source {self.names[smallest]} has {float(share):.3g} of all weights from sample {start} on; the smallest "
                f"possible share is {2 / LARGEST_BLOCK:.3g}, one sample in {LARGEST_BLOCK // 2}: raise its weight or set it to 0"
            )
        scale = math.lcm(*(weight.denominator for weight in weights.values()))
        bounds = accumulate((int(weight * scale) for weight in weights.values()), initial=0)
        return _Phase(start, block, tuple(weights), tuple(bounds), tuple(before), self.seed)


def _start(change: tuple[int, Fraction]) -> int:
    return change[0]


def _schedule(weights: Mapping[int, float], name: str) -> list[tuple[int, Fraction]]:
    """Return (first sample, weight as an exact number) of a source, in order."""
    if min(weights, default=None) != 0:
        raise ValueError(f"weights of source {name} begin at sample {min(weights, default=None)}; the first must be for sample 0")
    for start, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"source {name} has weight {weight} from sample {start} on; it must be a number from 0")
    return [(start, Fraction(repr(float(weight)))) for start, weight in sorted(weights.items())]


def _limit(size: int, max_epochs: float | None, name: str) -> int | None:
    """Return how many samples a source gives at most."""
    if size < 1:
        raise ValueError(f"source {name} has {size} sequences; it must have at least 1")
    if max_epochs is None:
        return None
    if not (math.isfinite(max_epochs) and max_epochs > 0):
        raise ValueError(f"source {name} has max_epochs {max_epochs}; it must be a number above 0, or None")
    limit = int(Fraction(repr(float(max_epochs))) * size)
    if not limit:
        raise ValueError(f"source {name} has max_epochs {max_epochs} of {size} sequences, which is less than one")
    return limit
