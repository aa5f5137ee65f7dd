"""Sequences out of documents: which pieces of the stream of tokens make up each row that is trained on.

`Concatenated`: all documents one after another, cut every `length` tokens. `BestFitPacking`: documents put together so that
none that fits into a row is cut, the rest of a row is padding. `RepeatedConcatenated`: the first where documents are repeated.
All say for any sequence numbers where their tokens are.

Reads: the lengths and counts of documents, and plans (`planned.py`). Writes: the plans that are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.arguments import one_of, whole
from gristmill.reader.bestfit import plan
from gristmill.reader.planned import Pieces, PlanFile, PlannedRows, Section, check_sequences
from gristmill.reader.repeated import Documents, best_fit, concatenated, later_passes

Int64 = npt.NDArray[np.int64]


class Packing(Protocol):
    """What makes rows of a stream: `count` of them, of `length` tokens."""

    length: int
    count: int

    def pieces(self, sequences: Int64) -> Pieces:
        """Return the pieces of some rows, int64, (n,), each from 0 to `count` - 1, in any order.

        Raises:
            IndexError: there is no such sequence.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BestFit:
    """Ask for rows in which no document that fits is cut.

    Args:
        window: documents of a shard that are packed together. A row's documents come from one window; a larger window needs less
            padding (each leaves a row part empty at the end), reads farther apart, and takes longer to pack for the first time.
    """

    window: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole("BestFit: window", self.window, 1))


def check(packing: Literal["concat"] | BestFit) -> None:
    """Raise ValueError unless this is a way to pack."""
    if not isinstance(packing, BestFit):
        one_of("packing", packing, ("concat",), " or BestFit(window=…)")


def open_packing(stream: Documents, length: int, packing: Literal["concat"] | BestFit) -> Opened:
    """Return the rows of `length` tokens of a build."""
    if isinstance(packing, BestFit):
        return BestFitPacking(stream, length, packing.window)
    repeated = len(stream.manifest.passes) > 1
    return RepeatedConcatenated(stream, length) if repeated else Concatenated(stream.manifest.tokens, length)


class Concatenated:
    """Sequence s is the tokens [s · length, (s + 1) · length) of the stream; the last may be shorter. See `Packing`.

    Attributes:
        length: tokens of a row.
        count: sequences in the stream.
        padding: tokens of padding in all of them.
    """

    def __init__(self, tokens: int, length: int) -> None:
        self.length = length
        self.count = -(-tokens // length)
        self.padding = self.count * length - tokens
        self._tokens = tokens

    def pieces(self, sequences: Int64) -> Pieces:
        """See `Packing`: one piece a row."""
        check_sequences(sequences, self.count)
        begins = sequences * self.length
        return Pieces(begins, np.minimum(self._tokens - begins, self.length), np.arange(len(begins) + 1))


class BestFitPacking(PlannedRows):
    """Rows packed by best-fit-decreasing, shard by shard and in windows of documents (`bestfit/fit.py`). See `Packing`.

    No document of at most `length` tokens is cut; a longer one is cut into full rows and one remainder; empty ones vanish.
    Rows follow one another as their first tokens do in the stream, and so do the pieces of a row. They depend on the documents'
    lengths and counts, on `length` and `window`, on nothing else. Where documents are repeated, the rows of the later passes
    follow (`repeated.py`): pass k has the documents with a count of k or more.

    Attributes:
        length: tokens of a row.
        count: sequences in the stream.
        window: documents packed together.
        padding: tokens of padding in all sequences.
        padding_share: the share of padding in all tokens of all sequences.
        shard_bounds: int64, (shards + 1,): the sequences of shard i are shard_bounds[i] to shard_bounds[i + 1], of the first pass
            where documents are repeated.

    Raises:
        ValueError: a length or a window that is out of range.
    """

    def __init__(self, stream: Documents, length: int, window: int, folder: str | Path | None = None) -> None:
        if not 1 <= length <= plan.MASK:
            raise ValueError(f"best-fit packing makes rows of 1 to {plan.MASK} tokens, not {length}")
        self.length = length
        self.window = BestFit(window=window).window
        self._stream = stream
        kept = plan.default_folder() if folder is None else Path(folder)
        shards = stream.manifest.shards
        runs = _runs(stream)
        files = [
            PlanFile(
                plan.file_name([shards[shard].sha256 for shard in run], length, self.window),
                stream.first_token(run.start),
                partial(_pack, stream, run, length, self.window),
            )
            for run in runs
        ]
        first = [Section(number, 0, len(run)) for number, run in enumerate(runs)]
        later = later_passes(stream, runs, best_fit(length, self.window), len(files))
        super().__init__([*files, *later.files], [*first, *later.sections], kept)
        rows = [self._entries(number) for number in range(len(runs))]
        self.shard_bounds = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *rows]))
        self.padding = self.count * length - stream.manifest.epoch_tokens
        self.padding_share = self.padding / (self.count * length) if self.count else 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: another process opens its own."""
        return (BestFitPacking, (self._stream, self.length, self.window, self._folder))


class RepeatedConcatenated:
    """`Concatenated` rows of the first pass over a build whose documents are repeated, then those of the later passes.

    Pass k after the first has the documents with a count of k or more, cut every `length` tokens: `repeated.py`. See `Packing`.

    Attributes:
        length: tokens of a row.
        count: sequences in an epoch, all passes of it.
        first: the rows of the first pass.
        later: those of the others; the numbers of the first ones come before theirs.
        padding: tokens of padding in all sequences.

    Raises:
        ValueError: a length that is out of range.
    """

    def __init__(self, stream: Documents, length: int, folder: str | Path | None = None) -> None:
        if not 1 <= length <= plan.MASK:
            raise ValueError(f"rows of repeated documents have 1 to {plan.MASK} tokens, not {length}")
        self.length = length
        self.first = Concatenated(stream.manifest.tokens, length)
        kept = plan.default_folder() if folder is None else Path(folder)
        found = later_passes(stream, _runs(stream), concatenated(length), 0)
        self.later = PlannedRows(found.files, found.sections, kept)
        self.count = self.first.count + self.later.count
        self.padding = self.count * length - stream.manifest.epoch_tokens
        self._stream, self._folder = stream, kept

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: another process opens its own."""
        return (RepeatedConcatenated, (self._stream, self.length, self._folder))

    def pieces(self, sequences: Int64) -> Pieces:
        """See `Packing`."""
        check_sequences(sequences, self.count)
        again = sequences >= self.first.count
        once = self.first.pieces(sequences[~again])
        more = self.later.pieces(sequences[again] - self.first.count)
        counts = np.ones(len(sequences), dtype=np.int64)
        counts[again] = np.diff(more.bounds)
        bounds = np.zeros(len(sequences) + 1, dtype=np.int64)
        counts.cumsum(out=bounds[1:])
        late = np.repeat(again, counts)
        begins, lengths = np.empty(len(late), dtype=np.int64), np.empty(len(late), dtype=np.int64)
        begins[~late], lengths[~late] = once.begins, once.lengths
        begins[late], lengths[late] = more.begins, more.lengths
        return Pieces(begins, lengths, bounds)


Opened = Concatenated | BestFitPacking | RepeatedConcatenated


def _runs(stream: Documents) -> list[range]:
    shards = stream.manifest.shards
    return plan.runs([shard.documents for shard in shards], [shard.tokens for shard in shards])


def _pack(stream: Documents, run: range, length: int, window: int) -> Int64:
    return plan.make(map(stream.lengths, run), length, window)
