"""TokenDataset: a build opened for training; shuffled batches with loss masks, resumable by one integer.

Reads: a manifest and the shards it names, by memory map. Writes: nothing.

The documents of a build, in manifest order, are one stream of tokens, cut into sequences (`packing.py`). A *sequence
number* is a place in that stream. A *sample number* is a place in the endless shuffled order: sample i is sequence
permute(i mod n, n, (seed, i div n)), so each run of n samples, an epoch, has every sequence once. Everything the dataset
returns is a pure function of sample numbers; the number of ranks and where a run was interrupted leave no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.order import permute
from gristmill.packing import sequence_count
from gristmill.selection import Selection
from gristmill.stream import TokenAddress, TokenStream

STARTS = "starts"
BLOCK = 4096  # sample numbers permuted at once: numpy's cost a call is spread over them


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of tokens, a row a sample.

    Attributes:
        samples: int64, shape (rows,): the numbers in the endless shuffled order.
        sequences: int64, shape (rows,): the numbers in the stream, for `TokenDataset.locate`.
        input_ids: shape (rows, length); the stored type, or the one asked for. After the stream's last token:
            the id that ends documents (0 without one).
        loss_mask: bool, shape (rows, length): the tokens to train on *as targets*, selected and not padding. A token at position
            0 of a row has nothing before it in the row: shift as usual, `logits[:, :-1]` against `input_ids[:, 1:]` and
            `loss_mask[:, 1:]`.
        columns: what else was asked for, shape (rows, length): per-token scores in float16, NaN where there is none; and
            `starts`, bool, where documents begin: `packing.cu_seqlens`, `positions` and `document_ids` make attention boundaries
            from it.
    """

    samples: npt.NDArray[np.int64]
    sequences: npt.NDArray[np.int64]
    input_ids: npt.NDArray[Any]
    loss_mask: npt.NDArray[np.bool_]
    columns: Mapping[str, npt.NDArray[Any]]


class TokenDataset:
    """A build of token shards; make it with `open`.

    Attributes:
        stream: the build's tokens.
        manifest: the build's manifest.
        sequence_length: tokens in a row of a batch.
        seed: chooses the order.
    """

    def __init__(
        self, stream: TokenStream, *, sequence_length: int, seed: int, columns: tuple[str, ...], dtype: np.dtype[Any]
    ) -> None:
        self.stream = stream
        self.manifest = stream.manifest
        self.sequence_length = sequence_length
        self.seed = seed
        self._columns = columns
        self._dtype = dtype
        self._count = sequence_count(stream.tokens, sequence_length)
        self._block = lru_cache(maxsize=16)(self._permuted)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        sequence_length: int = 2048,
        seed: int = 0,
        verify: bool = True,
        columns: Sequence[str] = (),
        dtype: npt.DTypeLike | None = None,
    ) -> TokenDataset:
        """Open a build.

        Args:
            path: manifest.json, the folder of a build, or an output folder (its newest build of tokens).
            sequence_length: tokens in a row of a batch.
            seed: chooses the order; the same seed gives the same order everywhere.
            verify: compare the sha256 of every file with the manifest (about 1.5 GB/s a core); sizes are always compared.
            columns: what else batches should carry: `starts` (where documents begin), and per-token scores by name, such as
                `excess`, or `rho1.excess` where two schemes have one.
            dtype: integer type of `input_ids`; the stored one (uint16 or uint32) by default. int64 suits torch and costs twice.

        Raises:
            FormatError: what is there cannot be read, is damaged, or is incomplete.
            ValueError: an argument out of range, or a sequence longer than all the data.
        """
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}; it must be at least 1")
        stream = TokenStream.open(path, verify=verify)
        if sequence_length > stream.tokens:
            raise ValueError(
                f"{path}: sequence_length is {sequence_length}, but all shards together have {stream.tokens} tokens; "
                "ask for shorter sequences or build from more documents"
            )
        kind = np.dtype(stream.manifest.dtype if dtype is None else dtype)
        if kind.kind not in "iu" or not np.can_cast(np.dtype(stream.manifest.dtype), kind):
            raise ValueError(f"dtype {kind} cannot hold the ids stored as {stream.manifest.dtype}; int64 and uint32 can")
        for name in columns:
            if name != STARTS:
                stream.score_column(name)
        return cls(stream, sequence_length=sequence_length, seed=seed, columns=tuple(columns), dtype=kind)

    def __len__(self) -> int:
        """Return the sequences in an epoch; the last of the stream may be padded."""
        return self._count

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: a worker process opens its own."""
        make = partial(
            TokenDataset, sequence_length=self.sequence_length, seed=self.seed, columns=self._columns, dtype=self._dtype
        )
        return (make, (self.stream,))

    def sample(self, number: int, *, select: Selection | None = None) -> Batch:
        """Return the batch of the one sample `number` (from 0, without end)."""
        return self._batch(number, 1, select, slice(None))

    def batch(self, step: int, batch_size: int, *, select: Selection | None = None, rank: int = 0, world_size: int = 1) -> Batch:
        """Return the rank's rows of global batch number `step`: samples step · batch_size and the batch_size - 1 after it."""
        return self._batch(step * batch_size, batch_size, select, rank_rows(batch_size, rank, world_size))

    def batches(
        self, batch_size: int, *, select: Selection | None = None, state: int = 0, rank: int = 0, world_size: int = 1
    ) -> Batches:
        """Return an endless iterator of batches, epoch after epoch.

        Args:
            batch_size: rows in the global batch; each rank gets an equal run of them.
            select: what to train on, by stored scores; all tokens without it.
            state: sample number to begin with, from `Batches.state_dict`.
            rank: this process's number among those that share the global batch.
            world_size: how many processes share it; may differ from the run that saved the state.

        Raises:
            ValueError: a batch that the ranks cannot share equally, or a negative state.
        """
        return Batches(self, batch_size, select, state, rank, world_size)

    def sequence_numbers(self, samples: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the place in the stream of each sample number, int64."""
        numbers = np.asarray(samples, dtype=np.int64)
        if numbers.size and int(numbers.min()) < 0:
            raise ValueError(f"sample number {numbers.min()} is negative; samples are numbered from 0")
        epochs, places = np.divmod(numbers, self._count)
        keys = epochs * sequence_count(self._count, BLOCK) + places // BLOCK
        out = np.empty_like(numbers)
        for key in np.unique(keys).tolist():
            here = keys == key
            out[here] = self._block(key)[places[here] % BLOCK]
        return out

    def _run(self, first: int, size: int) -> npt.NDArray[np.int64]:
        """Return `sequence_numbers` of the samples from `first` on; a slice, where they lie in one block."""
        epoch, place = divmod(first, self._count)
        block, start = divmod(place, BLOCK)
        if first >= 0 and start + size <= BLOCK and place + size <= self._count:
            return self._block(epoch * sequence_count(self._count, BLOCK) + block)[start : start + size]
        return self.sequence_numbers(np.arange(first, first + size, dtype=np.int64))

    def _permuted(self, key: int) -> npt.NDArray[np.int64]:
        epoch, block = divmod(key, sequence_count(self._count, BLOCK))
        indices = np.arange(block * BLOCK, min((block + 1) * BLOCK, self._count), dtype=np.int64)
        return permute(indices, self._count, (self.seed, epoch))

    def _batch(self, first: int, size: int, select: Selection | None, rows: slice) -> Batch:
        sequences = self._run(first, size)
        mine = sequences[rows]
        ids = np.empty((len(mine), self.sequence_length), dtype=self._dtype)
        self.stream.read_tokens(mine * self.sequence_length, ids)
        columns = {name: self._starts(mine) if name == STARTS else self._scores(name, mine) for name in self._columns}
        mask = self._valid(mine) if select is None else self._select(select, sequences, rows)
        return Batch(np.arange(first, first + size, dtype=np.int64)[rows], mine, ids, mask, columns)

    def _starts(self, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        out = np.empty((len(sequences), self.sequence_length), dtype=np.bool_)
        self.stream.read_starts(sequences * self.sequence_length, out)
        return out

    def _scores(self, name: str, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        out = np.empty((len(sequences), self.sequence_length), dtype=np.float16)
        self.stream.read_scores(name, sequences * self.sequence_length, out)
        return out

    def _valid(self, sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        valid = np.ones((len(sequences), self.sequence_length), dtype=np.bool_)
        last = sequences == self._count - 1
        if last.any():
            valid[last, self.stream.tokens - (self._count - 1) * self.sequence_length :] = False
        return valid

    def _select(self, select: Selection, sequences: npt.NDArray[np.int64], rows: slice) -> npt.NDArray[np.bool_]:
        """Apply a selection; over the scores of the whole global batch where its scope asks for it."""
        if select.scope == "sequence":
            sequences, rows = sequences[rows], slice(None)
        return select.mask(self._scores(select.column, sequences), self._valid(sequences))[rows]

    def locate(self, sequence: int, position: int) -> TokenAddress:
        """Return where the token at `position` of a sequence is stored; `format.read_row` gives its document's source.

        Raises:
            IndexError: no such token, or padding.
        """
        if not 0 <= position < self.sequence_length:
            raise IndexError(f"no position {position} in a sequence of {self.sequence_length}")
        return self.stream.locate(sequence * self.sequence_length + position)


class Batches(Iterator[Batch]):
    """An endless iterator of batches whose whole state is the number of the next sample."""

    def __init__(
        self, dataset: TokenDataset, batch_size: int, select: Selection | None, state: int, rank: int, world_size: int
    ) -> None:
        self.dataset = dataset
        self._size = batch_size
        self._rows = rank_rows(batch_size, rank, world_size)
        self._select = select
        self.load_state_dict({"sample": state})

    def __next__(self) -> Batch:
        """Return this rank's rows of the next global batch."""
        batch = self.dataset._batch(self._sample, self._size, self._select, self._rows)
        self._sample += self._size
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return {"sample": number of the next sample}: equal on all ranks, good for any number of ranks and batch size."""
        return {"sample": self._sample}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a saved state."""
        sample = int(state["sample"])
        if sample < 0:
            raise ValueError(f"state is sample {sample}; samples are numbered from 0")
        self._sample = sample


def rank_rows(batch_size: int, rank: int, world_size: int) -> slice:
    """Return which rows of a global batch a rank gets: equal runs, in rank order.

    Raises:
        ValueError: `batch_size` cannot be shared equally, or `rank` is not one of `world_size`.
    """
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of world_size {world_size}; rank must be from 0 to world_size - 1")
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"batch_size is {batch_size} (rows of all ranks together); it must be a multiple of world_size, {world_size}"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)
