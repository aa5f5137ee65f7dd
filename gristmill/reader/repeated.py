"""The later passes of an epoch over a build whose documents are repeated: which pieces make up their rows.

An epoch reads the whole stream once, the first *pass*. Pass k after it has the documents with a count of k or more, in the order
of the stream. A row is of one pass, so no row has two copies of a document. The shards are taken in runs (`bestfit/plan.py`), and
each pass of a run is cut, or packed, by itself; its last row may be shorter. Passes that have the same documents have the same
rows: a plan has an entry for each *level*, a pass whose documents are fewer than those of the pass before.

Reads: the counts of a build's shards. Writes: nothing; `planned.py` keeps the plans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.format.manifest import Manifest
from gristmill.format.repeats import Counts, Lengths
from gristmill.reader.bestfit import plan
from gristmill.reader.bestfit.fit import Rows, pack
from gristmill.reader.planned import PlanFile, Section

Int64 = npt.NDArray[np.int64]

ALGORITHM = 1  # raised when the same counts and lengths come to lie in other rows

Cut = Callable[[Sequence[Int64]], Rows]  # lengths of the documents of each shard of a run → rows


class Documents(Protocol):
    """What planning needs to know of a stream; `TokenStream` is one."""

    @property
    def manifest(self) -> Manifest:
        """The build's manifest."""
        ...

    def lengths(self, shard: int) -> Lengths:
        """Return the tokens of each document of a shard, int32, (documents,)."""
        ...

    def repeats(self, shard: int) -> tuple[Counts, Lengths]:
        """Return (how often an epoch reads each document, its tokens) of a shard with counts: uint8 and int32, (documents,)."""
        ...

    def first_token(self, shard: int) -> int:
        """Return the number in the stream of a shard's first token."""
        ...


class Later(NamedTuple):
    """The plans of the passes after the first, and their rows in order: pass by pass, and in a pass run by run."""

    files: list[PlanFile]
    sections: list[Section]


def concatenated(length: int) -> tuple[str, Cut]:
    """Return (name, cut) of documents one after another, cut every `length` tokens."""
    return f"concat {length}", lambda shards: cut(np.concatenate(shards), length)


def best_fit(length: int, window: int) -> tuple[str, Cut]:
    """Return (name, cut) of documents packed shard by shard; see `bestfit/fit.py`."""
    return f"best-fit {length} {window}", lambda shards: _joined([pack(each, length, window) for each in shards], shards)


def later_passes(stream: Documents, runs: Sequence[range], cutting: tuple[str, Cut], first_file: int) -> Later:
    """Return the plans and sections of the passes from the second on.

    Args:
        stream: the build's.
        runs: the shards that share a plan.
        cutting: how the documents of a pass become rows: `concatenated` or `best_fit`.
        first_file: number of the first of these plans among all.
    """
    shards = stream.manifest.shards
    found: list[tuple[int, Section]] = []
    files: list[PlanFile] = []
    for run in runs:
        documents = _documents(stream.manifest, run)
        levels = [k for k in range(2, len(documents) + 1) if k == 2 or documents[k - 1] < documents[k - 2]]
        if levels:
            hashes = [repeats.sha256 for repeats in (shards[shard].repeats for shard in run) if repeats is not None]
            lines = [f"repeats {ALGORITHM} {cutting[0]}", *hashes]
            name = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32] + ".plan"
            entry = {k: sum(level <= k for level in levels) - 1 for k in range(2, len(documents) + 1)}
            found += [(k, Section(first_file + len(files), at, at + 1)) for k, at in entry.items()]
            files.append(PlanFile(name, stream.first_token(run.start), _maker(stream, run, levels, cutting[1])))
    return Later(files, [section for _, section in sorted(found)])


def _documents(manifest: Manifest, run: range) -> list[int]:
    """Return how many documents of a run each pass has."""
    passes = [manifest.shards[shard].passes for shard in run]
    most = max(map(len, passes))
    return [sum(each[k][0] for each in passes if k < len(each)) for k in range(most)]


def _maker(stream: Documents, run: range, levels: Sequence[int], cutting: Cut) -> Callable[[], Int64]:
    def make() -> Int64:
        shards = [stream.repeats(shard) for shard in run]
        every = [lengths.astype(np.int64) for _, lengths in shards]
        return plan.words(_level([counts for counts, _ in shards], every, level, cutting) for level in levels)

    return make


def _level(counts: Sequence[Counts], lengths: Sequence[Int64], level: int, cutting: Cut) -> Rows:
    """Return the rows of the documents with a count of `level` or more; tokens are counted from the run's first."""
    chosen = [np.flatnonzero(each >= level) for each in counts]
    own = [each[rows] for each, rows in zip(lengths, chosen, strict=True)]
    packed = cutting(own)
    # From the numbers among the chosen documents' tokens to those among all of the run's.
    sizes, everything = np.concatenate(own), np.concatenate(lengths)
    first = np.cumsum([0, *map(len, lengths)])
    numbers = np.concatenate([rows + begin for rows, begin in zip(chosen, first.tolist(), strict=False)])
    ends = np.cumsum(sizes)
    shift = (np.cumsum(everything) - everything)[numbers] - (ends - sizes)
    begins = packed.begins + shift[np.searchsorted(ends, packed.begins, side="right")]
    return Rows(begins, packed.lengths, packed.bounds)


def _joined(parts: Sequence[Rows], shards: Sequence[Int64]) -> Rows:
    """Return the rows of shards one after another."""
    tokens = np.cumsum([0, *(int(each.sum()) for each in shards)])
    pieces = np.cumsum([0, *(len(part.begins) for part in parts)])
    bounds = [part.bounds[:-1] + before for part, before in zip(parts, pieces.tolist(), strict=False)]
    begins = [part.begins + before for part, before in zip(parts, tokens.tolist(), strict=False)]
    return Rows(np.concatenate(begins), np.concatenate([part.lengths for part in parts]), np.concatenate([*bounds, pieces[-1:]]))


def cut(documents: Int64, length: int) -> Rows:
    """Cut documents, laid one after another, every `length` tokens; a piece is of one document.

    Args:
        documents: tokens of each, int64, (n,); those of 0 tokens vanish.
        length: tokens of a row.
    """
    total = int(documents.sum())
    rows = np.arange(0, total, length)
    begins = np.unique(np.concatenate([rows, (np.cumsum(documents) - documents)[documents > 0]]))
    return Rows(begins, np.diff(begins, append=total), np.append(np.searchsorted(begins, rows), len(begins)))
