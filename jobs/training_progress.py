"""What a person sees while something is trained: a bar a step on a terminal, plain lines elsewhere; all on standard error."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gristmill.secrets import masked
from jobs.terminal import visible

PLAIN_EVERY_S = 5.0
BEGUN = 20  # a rate is one after a twentieth: loops may be compiled before, which takes longer than small texts


class TrainingProgress:
    """Called with a step's name, how much of it is done, of how much (0: unknown), and the unit; shows rate and time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._step: str | None = None
        self._task: TaskID | None = None
        self._begun = self._said = time.monotonic()
        self._last = ""

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        if self._console.is_terminal:
            self._bars.stop()

    def __call__(self, step: str, done: int, total: int, unit: str) -> None:
        """Show how far a step is."""
        now = time.monotonic()
        if step != self._step:
            self._end()
            self._step, self._begun, self._said = step, now, now
            if self._console.is_terminal:
                self._task = self._bars.add_task(step, total=total or None, state="")
        seconds = now - self._begun
        begun = done * BEGUN >= max(total, 1)
        rate = f", {short(done / seconds)} {unit}/s" if begun and seconds > 0.1 else ""
        state = f"{short(done)} of {short(total)} {unit}{rate}" if total else f"{short(done)} {unit}{rate}"
        if self._task is not None:
            self._bars.update(self._task, completed=done, state=state)
        elif now - self._said >= PLAIN_EVERY_S:
            self._said = now
            left = f", {seconds / done * (total - done):.0f} s left" if total and begun else ""
            self._print(f"{step}: {state}{left}")
            state = ""
        self._last = state

    def say(self, line: str) -> None:
        """Close the step under way and print a line that stays."""
        self._end()
        self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(visible(masked(line)), markup=False, soft_wrap=True)

    def _end(self) -> None:
        """Close the step under way."""
        if self._task is not None:
            self._bars.stop_task(self._task)
            self._task = None
        elif self._step is not None and self._last:
            self._print(f"{self._step}: {self._last}")
        self._step, self._last = None, ""


def short(number: float) -> str:
    """Return a count as people say it: 950, 12,300, 4.6 M."""
    for scale, name in ((1e9, " G"), (1e6, " M")):
        if number >= scale:
            return f"{number / scale:.1f}{name}"
    return f"{number:,.0f}"
