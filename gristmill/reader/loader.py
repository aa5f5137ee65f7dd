"""TokenLoader: batches of a dataset for one rank, resumable by a few integers.

Reads: a `TokenDataset`. Writes: nothing. The state is the number of the next sample and what tells one order from another;
a thread of this process makes batches ahead, which is all the parallelism that copying from memory needs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from gristmill.arguments import whole
from gristmill.reader.batch import Batch
from gristmill.reader.batching import BatchMaker, BatchSpec, Boundary
from gristmill.reader.dataset import TokenDataset
from gristmill.reader.prefetch import Prefetched
from gristmill.reader.selection import Selection


class TokenLoader(Iterator[Batch]):
    """An iterator of batches; make as many as you like over one dataset.

    Args:
        dataset: what to read.
        batch_size: rows in the global batch; each rank gets an equal run of them.
        select: what to train on, by stored per-token columns; all labels without it. With scope `batch` every rank looks at the
            scores of the whole global batch, so the mask does not depend on the number of ranks.
        labels: whether batches carry labels.
        boundaries: which forms of document boundaries batches carry; with any of them there is `cu_seqlens`.
        within_documents: whether a document's last token has no label; by default it has none where batches carry boundaries,
            since attention does not cross them either. Rows packed by best fit never have labels across documents.
        rank: this process's number among those that share the global batch.
        world_size: how many processes share it; may differ from the run that saved the state, and so may `batch_size`.
        as_torch: give torch tensors instead of numpy arrays; ids and labels are int64 then.
        pin_memory: of these tensors, for copies to a GPU that do not wait.
        prefetch: batches made ahead by a thread; 0: each is made when it is asked for.

    Attributes:
        placed: how often it was put at a sample, by `seek` or a state.

    Raises:
        ValueError: a batch that the ranks cannot share equally, an unknown kind of boundary or column, or a dataset that ends
            before its first batch is full.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        batch_size: int,
        *,
        select: Selection | None = None,
        labels: bool = True,
        boundaries: Sequence[Boundary] = (),
        within_documents: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
        as_torch: bool = False,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        self.dataset, self.batch_size = dataset, whole("batch_size", batch_size, 1)
        if select is not None and not hasattr(select, "weigh"):
            raise ValueError(f"select is {select!r}; it must be a selection such as TopShare(keep=0.6), or None")
        wanted = BatchSpec(
            batch_size=self.batch_size,
            share=rank_rows(self.batch_size, rank, world_size),
            select=select,
            labels=labels,
            boundaries=_check_boundaries(boundaries),
            within_documents=bool(boundaries) if within_documents is None else within_documents,
            as_torch=as_torch or pin_memory,
            pin_memory=pin_memory,
        )
        dataset.check_columns(() if select is None else select.columns)
        if dataset.total is not None and dataset.total < self.batch_size:
            raise ValueError(
                f"batch_size is {self.batch_size} (rows of all {world_size} ranks together), but the dataset ends after "
                f"{dataset.total} samples: there would be no batch; take fewer rows, shorter sequences, or raise max_epochs"
            )
        self.rank, self.world_size = rank, world_size
        self.wanted, self._maker, self._depth = wanted, BatchMaker(dataset, wanted), whole("prefetch", prefetch, 0)
        self._sample = 0
        self.placed = 0
        self._ahead: Prefetched[Batch] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the thread, and what it is making: another process starts its own."""
        return {**self.__dict__, "_ahead": None, "_maker": BatchMaker(self.dataset, self.wanted)}

    def __repr__(self) -> str:
        """Say what it gives, and where it is."""
        rank = f"rank={self.rank}, world_size={self.world_size}"
        return f"TokenLoader(batch_size={self.batch_size}, {rank}, at sample {self._sample:,} of {self.dataset!r})"

    # ---- iteration and state ----

    @property
    def sample(self) -> int:
        """The number of the first sample of the next batch, of all ranks together."""
        return self._sample

    def __next__(self) -> Batch:
        """Return this rank's rows of the next global batch. Raises StopIteration when fewer samples than that are left."""
        if self._depth == 0:
            batch = self._maker.next(self._sample)
        else:
            if self._ahead is not None and self._ahead.process != os.getpid():
                self._renew()  # a forked child lacks the thread, which may have been in the middle of something
            if self._ahead is None:
                maker, first, size = self._maker, self._sample, self.batch_size  # not self: the thread would keep it alive
                self._ahead = Prefetched(lambda number: maker.next(first + number * size), self._depth)
            batch = next(self._ahead)
        self._sample += self.batch_size
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the state after the last batch that was given out: equal on all ranks, under 200 bytes as JSON."""
        return {"sample": self._sample, **self.dataset.fingerprint(self._sample)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a saved state, with any number of ranks, batch size, or weights of the samples still to come.

        Sources may follow those of the run that saved it, if all their weights before the state's sample are 0.

        Raises:
            ValueError: the state was saved with other data, seed, sequence length, shuffle, packing, or past weights, so that the
                samples before and after would not be of one order; the message names which.
        """
        if not isinstance(state, Mapping) or "sample" not in state:
            raise ValueError(f"the state is {state!r}; it must be what `state_dict` returned")
        sample = whole("the state's sample", state["sample"], 0)
        here = self.dataset.fingerprint(sample)
        if any(state.get(key) != value for key, value in here.items()):
            all_sources = self.dataset.fingerprint(sample, idle=True)
            here = all_sources if all(state.get(key) == value for key, value in all_sources.items()) else here
        differing = [f"{key} ({state.get(key)}, here {value})" for key, value in here.items() if state.get(key) != value]
        if differing:
            raise ValueError(
                f"the state was saved by a run with other {', '.join(differing)}: samples would be repeated or left out; open "
                f"the same builds in the same way, or begin anew with `seek({sample})`"
            )
        self.seek(sample)

    def seek(self, sample: int) -> None:
        """Go on with the global batch that begins at a sample number, from 0 on. Raises ValueError for other numbers."""
        sample = whole("sample", sample, 0)
        self._sample = sample
        self.placed += 1
        self._renew()

    def _renew(self) -> None:
        """Begin to make batches anew, where it is."""
        self.close()
        self._maker = BatchMaker(self.dataset, self.wanted)

    def close(self) -> None:
        """Stop making batches ahead; going on is possible."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def batch(self, first: int) -> Batch:
        """Return this rank's rows of the global batch whose first sample is `first`: a pure function, in any order.

        Raises:
            IndexError: there are no such samples.
        """
        return self._maker.run(first, 1)[0]


def rank_rows(batch_size: int, rank: int, world_size: int) -> slice:
    """Return which rows of a global batch a rank gets: equal runs, in rank order.

    Raises:
        ValueError: `batch_size` cannot be shared equally, or `rank` is not one of `world_size`.
    """
    batch_size, world_size = whole("batch_size", batch_size, 1), whole("world_size", world_size, 1)
    rank = whole("rank", rank)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of world_size {world_size}; rank must be from 0 to world_size - 1")
    if batch_size % world_size:
        raise ValueError(
            f"batch_size is {batch_size} (rows of all ranks together); it must be a multiple of world_size, {world_size}"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def _check_boundaries(names: Sequence[Boundary]) -> tuple[Boundary, ...]:
    known = get_args(Boundary)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"boundaries is {names!r}; it must be a list of some of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ValueError(f"boundaries: {name!r} is not known; there are {', '.join(known)}")
    return tuple(names)
