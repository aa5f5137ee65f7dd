"""Sequences out of documents: which pieces of the stream of tokens make up each row that is trained on.

`Concatenated`: all documents one after another, cut every `length` tokens. `BestFitPacking`: documents put together so that
none that fits into a row is cut, the rest of a row is padding. Both say for any sequence numbers where their tokens are.

Reads: the lengths of documents, and plans of best-fit packing (`bestfit/plan.py`). Writes: the plans that are missing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.arguments import one_of, whole
from gristmill.format.manifest import Manifest
from gristmill.reader.bestfit import plan

Int64 = npt.NDArray[np.int64]

_LOG = logging.getLogger(__name__)


class Pieces(NamedTuple):
    """The pieces of the stream of tokens that make up n rows, row by row.

    Attributes:
        begins: int64, (pieces,): number in the stream of each piece's first token.
        lengths: int64, (pieces,): tokens in it, 1 or more.
        bounds: int64, (n + 1,): the pieces of row i are bounds[i] to bounds[i + 1]. They have at most the tokens of a row; what
            is left of the row is padding.
    """

    begins: Int64
    lengths: Int64
    bounds: Int64


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


class Documents(Protocol):
    """What best-fit packing needs to know of a stream; `TokenStream` is one."""

    @property
    def manifest(self) -> Manifest:
        """The build's manifest."""
        ...

    def lengths(self, shard: int) -> npt.NDArray[np.int32]:
        """Return the tokens of each document of a shard, int32, (documents,)."""
        ...

    def first_token(self, shard: int) -> int:
        """Return the number in the stream of a shard's first token."""
        ...


def _check(sequences: Int64, count: int) -> None:
    if len(sequences) and sequences.view(np.uint64).max() >= count:  # negative numbers are large ones there
        raise IndexError(f"sequences from {sequences.min()} to {sequences.max()}: each must be in [0, {count})")


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
        _check(sequences, self.count)
        begins = sequences * self.length
        return Pieces(begins, np.minimum(self._tokens - begins, self.length), np.arange(len(begins) + 1))


class _Memory:
    """All memory of this process as one array of 64-bit words; nothing of it is read but what is indexed.

    With it one gather reads from all plans, wherever they are mapped, instead of one gather a plan. Word i is at address
    8 · (i + 1): numpy takes no array that begins at address 0.
    """

    __array_interface__: dict[str, Any] = {  # noqa: RUF012  numpy asks for a plain dict
        "version": 3,
        "data": (8, True),
        "shape": ((1 << 60) - 1,),
        "typestr": "<i8",
    }


class BestFitPacking:
    """Rows packed by best-fit-decreasing, shard by shard and in windows of documents (`bestfit/fit.py`). See `Packing`.

    No document of at most `length` tokens is cut; a longer one is cut into full rows and one remainder; empty ones vanish.
    Rows follow one another as their first tokens do in the stream, and so do the pieces of a row. They depend on the documents'
    lengths and on `length` and `window`, on nothing else.

    Attributes:
        length: tokens of a row.
        count: sequences in the stream.
        window: documents packed together.
        padding: tokens of padding in all sequences.
        padding_share: the share of padding in all tokens of all sequences.
        shard_bounds: int64, (shards + 1,): the sequences of shard i are shard_bounds[i] to shard_bounds[i + 1].

    Where the plans cannot be written they stay in memory, 8 bytes a row and a piece, and each process packs by itself.

    Raises:
        ValueError: a length or a window that is out of range.
    """

    def __init__(self, stream: Documents, length: int, window: int, folder: str | Path | None = None) -> None:
        if not 1 <= length <= plan.MASK:
            raise ValueError(f"best-fit packing makes rows of 1 to {plan.MASK} tokens, not {length}")
        self.length = length
        self.window = BestFit(window=window).window
        self._stream = stream
        self._folder = plan.default_folder() if folder is None else Path(folder)
        self._told = False
        shards = stream.manifest.shards
        self._runs = plan.runs([shard.documents for shard in shards], [shard.tokens for shard in shards])
        self._open()
        tokens = sum(shard.tokens for shard in shards)
        self.padding = self.count * length - tokens
        self.padding_share = self.padding / (self.count * length) if self.count else 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: another process opens its own."""
        return (BestFitPacking, (self._stream, self.length, self.window, self._folder))

    def pieces(self, sequences: Int64) -> Pieces:
        """See `Packing`."""
        _check(sequences, self.count)
        runs = self._first_row.searchsorted(sequences, side="right") - 1
        if self._unchecked and not self._unchecked.isdisjoint(runs.tolist()):
            self._check_plans(np.unique(runs).tolist())
        rows = self._memory[self._rows_at[runs] + sequences]
        counts = rows & plan.MASK
        bounds = np.zeros(len(rows) + 1, dtype=np.int64)
        counts.cumsum(out=bounds[1:])
        at = ((rows >> plan.BITS) + self._pieces_at[runs] - bounds[:-1]).repeat(counts)
        at += np.arange(len(at))
        pieces = self._memory[at]
        begins = pieces >> plan.BITS
        if len(self._runs) > 1:
            begins += self._first_token[runs].repeat(counts)
        pieces &= plan.MASK
        return Pieces(begins, pieces, bounds)

    def _open(self) -> None:
        """Map the plans of all runs, made where they are missing."""
        self._plans: list[plan.Plan | None] = [None] * len(self._runs)
        for number in _spread(len(self._runs)):  # processes that begin together make different ones first
            path = self._path(number)
            self._plans[number] = (None if path is None else plan.read(path)) or self._make(number)
        rows = [found.shard_rows for found in self._plans if found is not None]
        self.shard_bounds = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *rows]))
        self.count = int(self.shard_bounds[-1])
        self._first_row = self.shard_bounds[[run.start for run in self._runs]]
        self._first_token = np.array([self._stream.first_token(run.start) for run in self._runs], dtype=np.int64)
        self._unchecked = set(range(len(self._runs)))
        self._memory = np.asarray(_Memory())
        self._locate()

    def _locate(self) -> None:
        """Note where in memory the plans are: where in `_memory` sequence 0 would lie, and where the first piece lies."""
        found = [(one.rows_at - 1, one.pieces_at - 1) for one in self._plans if one is not None]
        places = np.array(found, dtype=np.int64).reshape(-1, 2)
        self._rows_at = places[:, 0] - self._first_row
        self._pieces_at = places[:, 1].copy()

    def _path(self, number: int) -> Path | None:
        if self._folder is None:
            return None
        shards = self._stream.manifest.shards
        hashes = [shards[shard].sha256 for shard in self._runs[number]]
        return self._folder / plan.file_name(hashes, self.length, self.window)

    def _make(self, number: int) -> plan.Plan:
        words = plan.make(map(self._stream.lengths, self._runs[number]), self.length, self.window)
        path = self._path(number)
        if path is None:
            return self._kept(words, "the user has no home folder")
        try:
            plan.write(path, words)
        except OSError as error:
            return self._kept(words, f"{path.parent}: {error.strerror or error}")  # numpy's has no number
        made = plan.read(path)
        assert made is not None, f"{path} was just written"
        return made

    def _kept(self, words: Int64, why: str) -> plan.Plan:
        """Return a plan in memory, and say so once."""
        if not self._told:
            self._told = True
            _LOG.warning(
                "best-fit plans cannot be kept (%s): every process packs by itself and holds them in memory; "
                "set GRISTMILL_CACHE to a folder that can be written",
                why,
            )
        return plan.Plan(words)

    def _check_plans(self, numbers: Sequence[int]) -> None:
        """Before plans are used for the first time, make those again whose content is damaged."""
        for number in sorted(self._unchecked.intersection(numbers)):
            found = self._plans[number]
            if found is None or not found.is_whole():
                self._plans[number] = self._make(number)
                self._locate()
            self._unchecked.discard(number)


def _spread(count: int) -> list[int]:
    """Return 0 to count - 1, rotated by this process's id: it says who makes what first, never what is made."""
    start = (os.getpid() * 0x9E3779B1 % (1 << 32)) * count >> 32
    return [*range(start, count), *range(start)]
