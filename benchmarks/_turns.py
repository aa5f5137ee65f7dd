"""The harness of all comparisons: sides take turns at the same work, and a ratio is the median of the ratios of single turns.

Reads clocks; writes nothing. A machine that others use is slow for one second and fast for the next: a ratio of two sums, or of
two least times, then compares two moments. Within a turn both sides meet about the same moment, so the ratio of a turn is
steadier, and the quartiles of the ratios say how steady. Every side is repeated until its turn has taken its part of `LEAST_S`,
ours too, with `--quick` too: what takes a millisecond is repeated a thousand times, and a peer that takes a minute runs once.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

LEAST_S = 1.0  # CPU seconds of each side, over all turns

Work = Callable[[], object]
Piece = Callable[[], float]
"""Does one piece of work and returns the seconds that it took, those of getting ready left out."""


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(ready: Callable[[], Work], clock: Callable[[], float] = time.process_time) -> Piece:
    """Return a piece of work: `ready()` makes it, which is not measured, and what that returns is called and measured.

    Args:
        ready: called before each piece.
        clock: seconds; `cpu_seconds` where the work starts processes (their clock ticks in milliseconds).
    """

    def piece() -> float:
        work = ready()
        begin = clock()
        work()
        return clock() - begin

    return piece


def calls(works: Mapping[str, Work]) -> dict[str, Piece]:
    """Return pieces of work that need no getting ready, by their sides' names; CPU seconds of this process."""
    return {name: timed(partial(_ready_already, work)) for name, work in works.items()}


def _ready_already(work: Work) -> Work:
    return work


@dataclass(frozen=True)
class Ratio:
    """How many times another side's seconds a side takes: the median over the turns, and the quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return `12.3 (11.8-12.9)`."""
        plain = [f"{value:.3g}" for value in (self.median, self.low, self.high)]
        return f"{plain[0]} ({plain[1]}-{plain[2]})"


def ratio(values: Sequence[float]) -> Ratio:
    """Return the median and the quartiles of the ratios of single turns (or of whole runs)."""
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(middle, low, high)


@dataclass(frozen=True)
class Turns:
    """What the sides took: seconds a piece of work, an entry a turn."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Return a side's seconds a piece, the median of its turns."""
        return statistics.median(self.seconds[side])

    def over(self, side: str, other: str) -> Ratio | None:
        """Return how many times the seconds of `other` `side` takes; None where one took no turns."""
        if not (self.seconds.get(side) and self.seconds.get(other)):
            return None
        return ratio([a / b for a, b in zip(self.seconds[side], self.seconds[other], strict=True)])


def take_turns(sides: Mapping[str, Piece], turns: int, least_s: float = LEAST_S) -> Turns:
    """Let the sides take turns; in every second turn they come in the reverse order.

    Args:
        sides: by name; each has run before, so that nothing is loaded or compiled here.
        turns: of each side.
        least_s: seconds that each side runs, all turns together; 0 where a piece takes care of that itself.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(_repeated(sides[name], least_s / turns))
    return Turns(found)


def _repeated(piece: Piece, least_s: float) -> float:
    total, times = piece(), 1
    while total < least_s:
        total += piece()
        times += 1
    return total / times


def machine() -> list[str]:
    """Return how fast this machine is now, as cells under `MACHINE`: figures of two runs compare only where these do."""
    size = 1 << 26
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    copied = min(timed(lambda: partial(np.copyto, target, source))() for _ in range(3))
    fresh = min(timed(lambda: partial(np.full, size, 1, np.uint8))() for _ in range(3))
    looped = min(timed(lambda: partial(sum, range(1_000_000)))() for _ in range(3))
    return [f"{size / copied / 1e9:.1f}", f"{size / fresh / 1e9:.1f}", f"{1 / looped:.0f}"]


MACHINE = ("the machine", "GB/CPU-s copied into place", "GB/CPU-s of fresh pages", "M steps/CPU-s of a loop")
