"""Why a unit of work, or a table at a pool, is not done: what workers report to the driver in place of a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["failed", "store", "full", "stop", "user", "damaged"]


@dataclass(frozen=True)
class Failure:
    """Why a unit is not done; `message` is for people.

    `kind` is what the driver acts on: `failed` (the data's fault or ours: no retry), `store` (try again), `full` and `stop`
    (stop, to go on later), `user` (stop), `damaged` (compute the unit of `record` again, whose result is damaged).
    """

    kind: Kind
    message: str
    record: str = ""
