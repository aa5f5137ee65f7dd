"""A loader as an IterableDataset, for torch's DataLoader and torchdata's.

Reads: a `TokenLoader`. Writes: nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch.utils.data import IterableDataset, get_worker_info

from gristmill.reader.batch import Batch
from gristmill.reader.batching import BatchMaker
from gristmill.reader.dataset import TokenDataset
from gristmill.reader.loader import TokenLoader
from gristmill.reader.tensors import to_torch


class TorchTokens(IterableDataset[Batch]):  # type: ignore[misc]  # torch is not typed here
    """A `TokenLoader` for torch's `DataLoader(TorchTokens(loader), batch_size=None, ...)`; its batches hold tensors.

    The order of batches is the loader's own, with any number of workers: worker w of W makes every W-th batch. (The loader's own
    thread is cheaper than workers: batches made by them travel between processes.) The dataset is `Stateful`:

    - Iterating begins where the loader was put: by `load_state_dict` or `seek`, else at sample 0. Iterating again begins there
      again, with any number of workers and without, whether they persist or not.
    - Without workers, `state_dict()` is the loader's, exact at every batch.
    - With workers, the main process has the state that iterating begins at, and the workers are ahead of it. To resume exactly,
      save `state_after(batch)` of the last batch trained on and load it before iterating; any number of workers, ranks, or
      rows in a batch may follow.
    - torchdata's `StatefulDataLoader` saves and loads the state by itself, of each worker where there are workers; then it wants
      the same number of workers and the same batch size again, and refuses others. `state_after` does not.
    """

    def __init__(self, loader: TokenLoader) -> None:
        self.loader = loader
        self._begin = loader.sample
        self._left = (loader.sample, loader.placed)

    def __repr__(self) -> str:
        """Say what it gives."""
        return f"TorchTokens({self.loader!r})"

    def __iter__(self) -> Iterator[Batch]:
        """Return this process's batches, in order."""
        if (self.loader.sample, self.loader.placed) != self._left:  # it was moved since iterating left it
            self._begin = self.loader.sample
            self._left = (self.loader.sample, self.loader.placed)
        info = get_worker_info()
        return self._run(self._begin) if info is None else _Strided(self.loader, self._begin, info.id, info.num_workers)

    def _run(self, sample: int) -> Iterator[Batch]:
        """Yield the loader's batches from a sample on, whatever else moves the loader meanwhile."""
        while True:
            if self.loader.sample != sample:
                self.loader.seek(sample)
            batch = next(self.loader, None)
            sample = self.loader.sample
            self._left = (sample, self.loader.placed)
            if batch is None:
                return
            yield batch if self.loader.wanted.as_torch else to_torch(batch)

    def state_dict(self) -> dict[str, int]:
        """Return the loader's state: after the last batch that was made in this process, where workers make none."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a saved state; raises ValueError as `TokenLoader.load_state_dict` does."""
        self.loader.load_state_dict(state)

    def state_after(self, batch: Batch) -> dict[str, int]:
        """Return the state after one of this dataset's batches, however far the workers are."""
        wanted = self.loader.wanted
        sample = int(batch.samples[0]) - wanted.share.start + wanted.batch_size
        return {"sample": sample, **self.loader.dataset.fingerprint(sample)}


class _Strided(Iterator[Batch]):
    """Every `workers`-th batch of a loader, from sample `begin` on, in a worker process.

    Its state is where this worker goes on; `StatefulDataLoader` asks for it in each worker.
    """

    def __init__(self, loader: TokenLoader, begin: int, worker: int, workers: int) -> None:
        wanted = replace(loader.wanted, as_torch=True, pin_memory=False)  # pinned memory does not travel
        # Opened anew: the locks of a forked dataset may be held for ever, by a thread that is not there.
        dataset: TokenDataset = pickle.loads(pickle.dumps(loader.dataset))
        self._maker = BatchMaker(dataset, wanted, one_by_one=workers > 1)
        self._sample = begin + worker * wanted.batch_size
        self._step = workers * wanted.batch_size
        self._shape = {"batch_size": wanted.batch_size, "workers": workers, "worker": worker}

    def __next__(self) -> Batch:
        """Return the worker's next batch."""
        batch = self._maker.next(self._sample)
        self._sample += self._step
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return {"sample": the first of this worker's next batch} and what makes the samples between its batches others'.

        The dataset's own state says which order that is of.
        """
        return {"sample": self._sample, **self._shape}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on in this worker.

        Raises:
            ValueError: the state is of another batch size or number of workers: it does not say how far the other workers were.
        """
        for key, here in self._shape.items():  # states of 0.1.0 have the sample alone
            if state.get(key, here) != here:
                raise ValueError(
                    f"the state was saved with {key} {state[key]}, here it is {here}: samples would be repeated or left out; go "
                    f"on with {key} {state[key]}, or save `TorchTokens.state_after(batch)`, which fits any batch size and workers"
                )
        self._sample = int(state["sample"])
