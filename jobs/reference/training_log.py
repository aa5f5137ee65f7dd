"""What a person sees while a model is trained: a line every few seconds, on standard error."""

from __future__ import annotations

import time

from jobs.terminal import tell
from jobs.training_progress import short

EVERY_S = 5.0


class TrainingLog:
    """Lines about the steps of a run, with tokens per second and the time left.

    The rate is that of the steps since the line before, and without the first: what happened before (compiling, another run) says
    nothing about the steps to come.

    Args:
        steps: of the whole run.
        tokens: of a step.
    """

    def __init__(self, steps: int, tokens: int) -> None:
        self._steps, self._tokens = steps, tokens
        self._since, self._counted = 0.0, -1  # the first step begins the measurement

    def step(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Say how step number `step` (from 1 on) went, if it is time for a line or the run has ended."""
        if self._counted < 0:
            self.resume()
        else:
            self._counted += 1
        seconds = time.monotonic() - self._since
        if seconds < EVERY_S and step < self._steps:
            return
        line = f"step {step:,} of {self._steps:,}: loss {loss:.4f}, gradient {norm:.3f}, rate {rate:.2e}"
        if self._counted:
            speed = self._counted * self._tokens / max(seconds, 1e-9)
            line += f", {short(speed)} tokens/s, {_duration((self._steps - step) * self._tokens / speed)} left"
        tell(line)
        self.resume()

    def resume(self) -> None:
        """Begin to measure anew: after a line, and after what is no step."""
        self._since, self._counted = time.monotonic(), 0


def _duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
