"""A sign of life a minute: what is under way, how far inside each unit, and what does not move any more.

Engines tell a `Heartbeat` what they hear of their workers; it says lines, on standard error in the end. It never changes data:
with `replace` an engine ends the worker of a unit that does not move, which is a death like any other
(`pipeline/engines/child.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

PATIENCE = 1.5  # times the seconds after which a unit is reported, its worker is replaced
SHOWN = 3  # units named in a line


@dataclass(frozen=True)
class Rhythm:
    """When a heartbeat speaks.

    `every`: seconds between two lines; None: none. `stalled`: seconds without progress after which a unit is reported; None:
    never. `replace`: whether the worker of such a unit is replaced, half as long again later.
    """

    every: float | None = 60.0
    stalled: float | None = 600.0
    replace: bool = False

    @property
    def limit(self) -> float | None:
        """Return the seconds without progress after which a worker is replaced, once that was reported; None: never."""
        return self.stalled * PATIENCE if self.replace and self.stalled is not None else None


SILENT = Rhythm(None, None)


@dataclass(frozen=True)
class Pulse:
    """How far a unit is: documents that entered it, the stage that it is at, and when that last changed, by the clock.

    Of a unit of a barrier `documents` counts what `stage` says: `120` at `dedup_exact (of 400 run files)`.
    """

    documents: int
    stage: str
    moved: float
    reported: bool = False  # that it does not move


class Heartbeat:
    """The units under way in one step.

    Its methods may be called from any thread. `say` is given lines; `clock` tells seconds.
    """

    def __init__(self, rhythm: Rhythm, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.rhythm = rhythm
        self.say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._pulses: dict[str, Pulse] = {}
        self._step, self._todo, self._done, self._documents = "", 0, 0, 0
        self._next = 0.0
        self._replaceable = True
        self._stop: threading.Event | None = None

    def begin(self, step: str, todo: int, replaceable: bool = True) -> None:
        """Begin a step of so many units; from now on lines are said, until `end`.

        Those of a barrier are not `replaceable`: they count what they say with the stage, not documents.
        """
        self.end()
        self._replaceable = replaceable
        with self._lock:
            self._pulses, self._step, self._todo, self._done, self._documents = {}, step, todo, 0, 0
            self._next = self._clock() + (self.rhythm.every or 0)
        waits = [seconds for seconds in (self.rhythm.every, self.rhythm.stalled) if seconds is not None]
        if waits:
            self._stop = threading.Event()
            threading.Thread(target=self._beat, args=(self._stop, min(waits) / 4), daemon=True).start()

    def end(self) -> None:
        """Say no more."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def moved(self, unit: str, documents: int, stage: str) -> None:
        """Take note that a unit is at work: `documents` of it so far, now in `stage`."""
        with self._lock:
            self._pulses[unit] = Pulse(documents, stage, self._clock())

    def finished(self, unit: str) -> None:
        """Take note that a unit is no longer under way."""
        with self._lock:
            pulse = self._pulses.pop(unit, None)
            self._done += 1
            self._documents += pulse.documents if pulse is not None else 0

    def interrupted(self, unit: str) -> None:
        """Take note that a unit has lost its worker and waits for its next."""
        with self._lock:
            self._pulses.pop(unit, None)

    def stuck(self, seconds: float | None, elsewhere: Collection[str] = ()) -> list[str]:
        """Return the units that have not moved for so many seconds, but those at a stage that works elsewhere."""
        if seconds is None:
            return []
        last = self._clock() - seconds
        with self._lock:
            return [unit for unit, pulse in self._pulses.items() if pulse.moved <= last and pulse.stage not in elsewhere]

    def tick(self) -> None:
        """Say what is due now."""
        now = self._clock()
        for unit in self.stuck(self.rhythm.stalled):
            self._tell_stuck(unit, now)
        with self._lock:
            due = self.rhythm.every is not None and now >= self._next
            if due:
                self._next = now + (self.rhythm.every or 0)
            line = self._line() if due else ""
        if line:
            self.say(line)

    def _beat(self, stop: threading.Event, seconds: float) -> None:
        while not stop.wait(seconds):
            self.tick()

    def _tell_stuck(self, unit: str, now: float) -> None:
        with self._lock:
            pulse = self._pulses.get(unit)
            if pulse is None or pulse.reported:
                return
            self._pulses[unit] = replace(pulse, reported=True)
        what = "; its worker is replaced soon" if self.rhythm.replace else "; run.replace_stalled: true replaces such a worker"
        self.say(
            f"{self._step}: {unit} has not moved for {now - pulse.moved:.0f} s, at {pulse.stage or 'its begin'} after "
            f"{pulse.documents:,}{f' documents{what}' if self._replaceable else ''}"
        )

    def _line(self) -> str:
        under_way = sorted(self._pulses.items(), key=lambda item: item[1].moved)
        documents = self._documents + sum(pulse.documents for _, pulse in under_way)
        units = [f"{unit} {pulse.documents:,} at {pulse.stage or 'its begin'}" for unit, pulse in under_way[:SHOWN]]
        units += [f"and {len(under_way) - SHOWN} more"] if len(under_way) > SHOWN else []
        entered = f", {documents:,} documents so far" if self._replaceable else ""
        return f"{self._step}: {self._done} of {self._todo} done{entered}; under way: {', '.join(units) or 'none'}"
