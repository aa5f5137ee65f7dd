"""The trainer: the merges of byte-pair encoding over a stream of ids (Sennrich et al. 2016), with rules and quotas.

Reads a `Stream` (words with counts, or running text in ids), changes it, gives the merges. Counts are exact in 64 bits; the
order is that of the stock trainer: highest count first, then the smallest left id, then the smallest right id. Overlapping
occurrences all count ("aaa" holds the pair "aa" twice), merging goes from left to right.

Memory is bounded by following only pairs that are frequent enough. What is frequent enough is set by the room there is: the
thresholds rise when it is full, and when no followed pair is left, the pairs are counted anew with lower ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.training.capacity import Capacity, room_for
from gristmill.tokenizer.training.rules import NO_QUOTA, NO_RULES, Quota, Rules

if TYPE_CHECKING:
    from gristmill.tokenizer.training.stream import Stream

MOST_SLOTS = 2**32 - 1  # places are kept in 32 bits
MOST_IDS = 2**30 - 1  # a bit of an id is needed

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Learned:
    """What was learned, in the order of merging.

    `merges`: int32 [n, 3], left id, right id, id of the joined token: a new one, or that of the first token that has the
    same bytes. `counts`: int64 [n], how often the pair stood in the stream. `tokens`: the initial tokens and the new ones.
    `group_tokens`: int64 [n + 1, groups], tokens of each group (times the weights) before the first merge and after each.
    `scaffold`: bool [n], the joined token is a scaffold token in the end; all False if that was not asked for.
    """

    merges: npt.NDArray[np.int32]
    counts: Ints
    tokens: tuple[bytes, ...]
    group_tokens: Ints
    scaffold: npt.NDArray[np.bool_]


def silent(done: int, total: int) -> None:
    """Report nothing."""


def learn(
    stream: Stream,
    tokens: Sequence[bytes],
    merges: int,
    *,
    min_frequency: int = 2,
    rules: Rules = NO_RULES,
    quota: Quota = NO_QUOTA,
    scaffold: bool = False,
    progress: Callable[[int, int], None] = silent,
    room: Capacity | None = None,
) -> Learned:
    """Learn merges until there are `merges` new tokens, or no allowed pair occurs `min_frequency` times.

    Args:
        stream: its ids are indices into `tokens`; it is used up.
        tokens: bytes of each id; b"" for an id that no merge may take or make (a special token's).
        merges: new tokens to make, scaffold tokens not counted; a merge that makes a token which is there already does not
            count either.
        min_frequency: at least 1; a group that chooses by its quota asks for it within the group.
        rules: what a joined token must obey.
        quota: tokens that each group should come down to.
        scaffold: mark scaffold tokens, see `choosing.py`.
        progress: called with (new tokens, `merges`) several times a second.
        room: for tests.

    Raises:
        ValueError: the stream is longer than 2^32 - 1 slots, or holds ids that are no tokens, or its pieces do not cover it;
            a number is out of range.
    """
    from gristmill.tokenizer.training.trainer import Trainer  # numba

    _check(stream, tokens, merges, min_frequency, quota)
    trainer = Trainer(
        stream, tokens, merges, min_frequency, rules, quota, scaffold, room or room_for(stream, len(tokens), merges)
    )
    progress(0, merges)
    parts = []
    for done, part in trainer.run():
        parts.append(part)
        progress(done, merges)
    joined, counts, left = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    marks = np.isin(joined[:, 2], np.flatnonzero(trainer.policy.marks))
    return Learned(joined, counts, trainer.spelled(), np.concatenate([trainer.before[None], left]), marks)


def _check(stream: Stream, tokens: Sequence[bytes], merges: int, min_frequency: int, quota: Quota) -> None:
    """Raise ValueError as `learn` says."""
    slots, groups = stream.ids.size, stream.groups.size - 1
    if slots > MOST_SLOTS:
        raise ValueError(f"the stream has {slots:_} slots, more than {MOST_SLOTS:_}; sample less text")
    if len(tokens) + merges > MOST_IDS:
        raise ValueError(f"there would be {len(tokens) + merges:_} tokens, more than {MOST_IDS:_}")
    if merges < 0 or min_frequency < 1:
        raise ValueError(f"merges must be at least 0, min_frequency at least 1; found {merges}, {min_frequency}")
    if slots and not 0 <= int(stream.ids.min()) <= int(stream.ids.max()) < len(tokens):
        raise ValueError(
            f"the stream's ids are from {stream.ids.min()} to {stream.ids.max()}, but there are {len(tokens)} tokens"
        )
    if (int(stream.ends[-1]) if stream.ends.size else 0) != slots:
        raise ValueError(f"the pieces end at slot {stream.ends[-1:]}, but the stream has {slots} slots")
    if quota.targets.size not in (0, groups):
        raise ValueError(f"a quota needs one target for each of the {groups} groups, found {quota.targets.size}")
