"""What a person sees while a job works: bars on a terminal, plain lines elsewhere; all on standard error.

`BuildProgress` shows the steps of a build, `TrainingProgress` those of anything that counts something up to a total, and
`TrainingLog` the steps of a model's training. A plain line comes every `PLAIN_EVERY_S` seconds at most.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gristmill.secrets import masked
from jobs.terminal import visible
from pipeline.engines.failure import Failure
from pipeline.planning.plan import Step
from pipeline.records import UnitRecord

PLAIN_EVERY_S = 5.0
BEGUN = 20  # a rate is one after a twentieth: loops may be compiled before, which takes longer than small texts


class Display:
    """A console on standard error with a bar for each task; on no terminal there are no bars, and lines stand for them.

    Args:
        state: the columns between a bar and its time.
    """

    def __init__(self, *state: ProgressColumn) -> None:
        self._console = Console(stderr=True, highlight=False)
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bars = Progress(TextColumn("{task.description}"), BarColumn(bar_width=30), *state, *times, console=self._console)
        self._live = self._console.is_terminal

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    def note(self, line: str) -> None:
        """Print a line that stays, at once."""
        self._console.print(visible(masked(line)), markup=False, soft_wrap=True)


class BuildProgress(Display):
    """A `pipeline.engines.drive.Watcher` that draws each step: units done, documents a second, time left."""

    def __init__(self) -> None:
        super().__init__(MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        self._task: TaskID | None = None
        self._begun = self._printed = time.monotonic()
        self._documents = self._units = self._todo = 0

    def step(self, step: Step, todo: int) -> None:
        """Begin the display of a step."""
        whole = len(step.units)
        self._begun = self._printed = time.monotonic()
        self._documents, self._units, self._todo = 0, 0, todo
        if self._live:
            self._task = self._bars.add_task(step.name, total=whole, completed=whole - todo, rate="")
        else:
            self.note(f"{step.name}: {todo} of {whole} to do" if todo else f"{step.name}: all {whole} done before")

    def unit(self, step: Step, manifest: UnitRecord) -> None:
        """Count one unit."""
        self._units += 1
        self._documents += manifest.ledger[0]["in"] if manifest.ledger else 0
        seconds = time.monotonic() - self._begun
        rate = f"{self._documents / max(seconds, 1e-9):,.0f} documents/s" if self._documents else ""
        if self._live:
            assert self._task is not None
            self._bars.update(self._task, advance=1, rate=rate)
        elif time.monotonic() - self._printed >= PLAIN_EVERY_S or self._units == self._todo:
            self._printed = time.monotonic()
            left = seconds / self._units * (self._todo - self._units)
            ending = f", {left:.0f} s left" if left >= 1 else ""
            self.note(f"{step.name}: {self._units}/{self._todo} {rate} {seconds:.0f} s{ending}")

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        """Tell of a failure at once."""
        self.note(f"{step.name}: {label} failed: {failure.message.splitlines()[0]}")


class TrainingProgress(Display):
    """Called with a step's name, how much of it is done, of how much (0: unknown), and the unit; shows rate and time left."""

    def __init__(self) -> None:
        super().__init__(TextColumn("{task.fields[state]}"))
        self._step: str | None = None
        self._task: TaskID | None = None
        self._begun = self._printed = time.monotonic()
        self._last = ""

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        super().__exit__(kind, value, trace)

    def __call__(self, step: str, done: int, total: int, unit: str) -> None:
        """Show how far a step is."""
        now = time.monotonic()
        if step != self._step:
            self._end()
            self._step, self._begun, self._printed = step, now, now
            if self._live:
                self._task = self._bars.add_task(step, total=total or None, state="")
        seconds = now - self._begun
        begun = done * BEGUN >= max(total, 1)
        rate = f", {short(done / seconds)} {unit}/s" if begun and seconds > 0.1 else ""
        state = f"{short(done)} of {short(total)} {unit}{rate}" if total else f"{short(done)} {unit}{rate}"
        if self._task is not None:
            self._bars.update(self._task, completed=done, state=state)
        elif now - self._printed >= PLAIN_EVERY_S:
            self._printed = now
            left = f", {seconds / done * (total - done):.0f} s left" if total and begun else ""
            self.note(f"{step}: {state}{left}")
            state = ""
        self._last = state

    def say(self, line: str) -> None:
        """Close the step under way and print a line that stays."""
        self._end()
        self.note(line)

    def _end(self) -> None:
        """Close the step under way."""
        if self._task is not None:
            self._bars.stop_task(self._task)
            self._task = None
        elif self._step is not None and self._last:
            self.note(f"{self._step}: {self._last}")
        self._step, self._last = None, ""


class TrainingLog(Display):
    """Lines about the steps of a model's training, with tokens per second and the time left.

    The rate is that of the steps since the line before, and without the first: what happened before (compiling, another run) says
    nothing about the steps to come.

    Args:
        steps: of the whole run.
        tokens: of a step.
    """

    def __init__(self, steps: int, tokens: int) -> None:
        super().__init__()
        self._steps, self._tokens = steps, tokens
        self._since, self._counted = 0.0, -1  # the first step begins the measurement

    def step(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Say how step number `step` (from 1 on) went, if it is time for a line or the run has ended."""
        if self._counted < 0:
            self.resume()
        else:
            self._counted += 1
        seconds = time.monotonic() - self._since
        if seconds < PLAIN_EVERY_S and step < self._steps:
            return
        line = f"step {step:,} of {self._steps:,}: loss {loss:.4f}, gradient {norm:.3f}, rate {rate:.2e}"
        if self._counted:
            speed = self._counted * self._tokens / max(seconds, 1e-9)
            line += f", {short(speed)} tokens/s, {_duration((self._steps - step) * self._tokens / speed)} left"
        self.note(line)
        self.resume()

    def resume(self) -> None:
        """Begin to measure anew: after a line, and after what is no step."""
        self._since, self._counted = time.monotonic(), 0


def short(number: float) -> str:
    """Return a count as people say it: 950, 12,300, 4.6 M."""
    for scale, name in ((1e9, " G"), (1e6, " M")):
        if number >= scale:
            return f"{number / scale:.1f}{name}"
    return f"{number:,.0f}"


def _duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
