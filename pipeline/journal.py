"""The journal of a stage that asks: what the machine keeps of answers that cannot be computed again, and how a stage gets them.

Pure types; nothing is read or written here. `pipeline/units/answers.py` keeps answers in the store of the build.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Answer:
    """What somebody answered.

    `content` is the stage's own text, such as JSON. `counts`: what the answer took, to be added up for the account of the build,
    such as tokens; names are snake_case, values not negative.
    """

    content: str
    counts: Mapping[str, int] = field(default_factory=dict)


Ask = Callable[[Sequence[str]], Generator[Mapping[str, Answer], None, None]]
"""Asks the questions with these keys; yields answers by key as they come, in any order and any number at a time.

What it has yielded is kept, even where it raises in the end. Between two answers it may yield an empty mapping, a sign of life.
"""


class Journal(Protocol):
    """What a stage is given with each table, to ask by."""

    def answers(self, keys: Sequence[str], ask: Ask) -> Mapping[str, Answer]:
        """Return the answer to each question: the one that is kept, or the one that `ask` gives now, which is kept first.

        Args:
            keys: name the questions. All that the answer depends on must be in a key, as by a hash.
            ask: is called once at most, for what is not kept.

        Raises:
            Exception: what `ask` raises.
        """
        ...

    def spent(self) -> Mapping[str, int]:
        """Return the sums of the counts of all answers kept in the build's output on the stage's subject."""
        ...
