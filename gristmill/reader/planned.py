"""Rows whose pieces stand in plans: files that are made once, kept in the cache folder, and mapped into memory.

Reads and writes: plan files (`bestfit/plan.py`). What is to be in them `packing.py` and `repeated.py` say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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


class PlanFile(NamedTuple):
    """A plan: the name of its file, the number in the stream of the token that it counts from, and what makes its words."""

    name: str
    first_token: int
    make: Callable[[], Int64]


class Section(NamedTuple):
    """Rows that follow one another: those of a plan's entries from `begin` on, up to `end`."""

    file: int
    begin: int
    end: int


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


def check_sequences(sequences: Int64, count: int) -> None:
    """Raise IndexError unless each number is from 0 to `count` - 1."""
    if len(sequences) and sequences.view(np.uint64).max() >= count:  # negative numbers are large ones there
        raise IndexError(f"sequences from {sequences.min()} to {sequences.max()}: each must be in [0, {count})")


class PlannedRows:
    """The rows of plans, section by section; see `packing.Packing`.

    Args:
        files: the plans; those that are missing are made.
        sections: which rows there are, in order; several may be the same.
        folder: where plans are kept; None: in the memory of this process alone.

    Attributes:
        count: rows in all sections.

    Where the plans cannot be written they stay in memory, 8 bytes a row and a piece, and each process makes its own.
    """

    def __init__(self, files: Sequence[PlanFile], sections: Sequence[Section], folder: Path | None) -> None:
        self._files, self._sections, self._folder = files, sections, folder
        self._told = False
        self._plans: list[plan.Plan | None] = [None] * len(files)
        for number in _spread(len(files)):  # processes that begin together make different ones first
            path = self._path(number)
            self._plans[number] = (None if path is None else plan.read(path)) or self._make(number)
        rows = [int(self._entries(section.file)[section.begin : section.end].sum()) for section in sections]
        bounds = np.cumsum([0, *rows], dtype=np.int64)
        self.count = int(bounds[-1])
        self._first_row, self._end_row = bounds[:-1], bounds[1:]
        self._file_of = np.array([section.file for section in sections], dtype=np.int64)
        self._first_token = np.array([files[section.file].first_token for section in sections], dtype=np.int64)
        self._shifted = bool(self._first_token.any())
        self._unchecked = set(range(len(files)))
        self._memory = np.asarray(_Memory())
        self._locate()

    def pieces(self, sequences: Int64) -> Pieces:
        """See `packing.Packing`."""
        check_sequences(sequences, self.count)
        sections, rows = self._rows(sequences)
        counts = rows & plan.MASK
        bounds = np.zeros(len(rows) + 1, dtype=np.int64)
        counts.cumsum(out=bounds[1:])
        at = ((rows >> plan.BITS) + self._pieces_at[sections] - bounds[:-1]).repeat(counts)
        at += np.arange(len(at))
        pieces = self._memory[at]
        begins = pieces >> plan.BITS
        if self._shifted:
            begins += self._first_token[sections].repeat(counts)
        pieces &= plan.MASK
        return Pieces(begins, pieces, bounds)

    def following(self, sequences: Int64) -> Int64:
        """Return the number in the stream of the first token of the row after each, int64; -1 after the last of a section."""
        sections = self._first_row.searchsorted(sequences, side="right") - 1
        there = sequences + 1 < self._end_row[sections]
        sections, rows = self._rows(np.where(there, sequences + 1, sequences))
        begins = self._memory[(rows >> plan.BITS) + self._pieces_at[sections]] >> plan.BITS
        return np.where(there, begins + self._first_token[sections], -1)

    def _rows(self, sequences: Int64) -> tuple[Int64, Int64]:
        """Return (section, word of the row) of each sequence."""
        sections = self._first_row.searchsorted(sequences, side="right") - 1
        if self._unchecked:
            files = self._file_of[sections].tolist()
            if not self._unchecked.isdisjoint(files):
                self._check_plans(set(files))
        return sections, self._memory[self._rows_at[sections] + sequences]

    def _entries(self, file: int) -> Int64:
        """Return the rows of each entry of a plan."""
        found = self._plans[file]
        assert found is not None, "all plans are opened first"
        return found.shard_rows

    def _locate(self) -> None:
        """Note where in memory the plans are: where in `_memory` sequence 0 would lie, and where the first piece lies."""
        places = []
        for section, first in zip(self._sections, self._first_row.tolist(), strict=True):
            found = self._plans[section.file]
            assert found is not None, "all plans are opened first"
            before = int(found.shard_rows[: section.begin].sum())
            places.append((found.rows_at - 1 + before - first, found.pieces_at - 1))
        table = np.array(places, dtype=np.int64).reshape(-1, 2)
        self._rows_at, self._pieces_at = table[:, 0].copy(), table[:, 1].copy()

    def _path(self, number: int) -> Path | None:
        return None if self._folder is None else self._folder / self._files[number].name

    def _make(self, number: int) -> plan.Plan:
        words = self._files[number].make()
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
                "plans of rows cannot be kept (%s): every process makes its own and holds them in memory; "
                "set GRISTMILL_CACHE to a folder that can be written",
                why,
            )
        return plan.Plan(words)

    def _check_plans(self, numbers: Iterable[int]) -> None:
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
