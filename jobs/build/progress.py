"""What a person sees while a build runs: bars on a terminal, plain lines elsewhere; all on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gristmill.secrets import masked
from jobs.terminal import visible
from pipeline.failure import Failure
from pipeline.plan import Step
from pipeline.records import UnitRecord

PLAIN_EVERY_S = 5.0


class BuildProgress:
    """A `pipeline.drive.Watcher` that draws each step: shards done, documents a second, time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._live = sys.stderr.isatty()
        self._task: TaskID | None = None
        self._begun = self._said = time.monotonic()
        self._documents = self._units = self._todo = 0

    def __enter__(self) -> BuildProgress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    def step(self, step: Step, todo: int) -> None:
        """Begin the display of a step."""
        whole = len(step.units)
        self._begun = self._said = time.monotonic()
        self._documents, self._units, self._todo = 0, 0, todo
        if self._live:
            self._task = self._bars.add_task(step.name, total=whole, completed=whole - todo, rate="")
        else:
            self._say(f"{step.name}: {todo} of {whole} to do" if todo else f"{step.name}: all {whole} done before")

    def unit(self, step: Step, manifest: UnitRecord) -> None:
        """Count one unit."""
        self._units += 1
        self._documents += manifest.ledger[0]["in"] if manifest.ledger else 0
        seconds = time.monotonic() - self._begun
        rate = f"{self._documents / max(seconds, 1e-9):,.0f} documents/s" if self._documents else ""
        if self._live:
            assert self._task is not None
            self._bars.update(self._task, advance=1, rate=rate)
        elif time.monotonic() - self._said >= PLAIN_EVERY_S or self._units == self._todo:
            self._said = time.monotonic()
            left = seconds / self._units * (self._todo - self._units)
            self._say(
                f"{step.name}: {self._units}/{self._todo} {rate} {seconds:.0f} s" + (f", {left:.0f} s left" if left >= 1 else "")
            )

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        """Tell of a failure at once."""
        self._say(f"{step.name}: {label} failed: {failure.message.splitlines()[0]}")

    def note(self, line: str) -> None:
        """Tell of something at once."""
        self._say(line)

    def _say(self, line: str) -> None:
        self._console.print(visible(masked(line)), markup=False, soft_wrap=True)
