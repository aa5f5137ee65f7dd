"""How one batch is made: from a sample number to this rank's rows, with labels, mask and document boundaries.

Reads: a `TokenDataset`. Writes: nothing.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill import boundaries as bd
from gristmill import format as fmt
from gristmill.batch import Batch
from gristmill.dataset import Draw, TokenDataset
from gristmill.rows import Rows
from gristmill.selection import Selection

Boundary = Literal["cu_seqlens", "position_ids", "document_ids"]

IGNORED = -100  # what torch's cross-entropy leaves out
AHEAD = 256  # samples that are asked of a disk before they are needed: enough to keep an SSD's queue full
COLD = 8 * AHEAD  # samples for which a disk that was once waited for is asked ahead
FETCHED = 4096  # samples whose shards are asked of a remote store before they are needed

_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a batch carries and which rows are this rank's; see `TokenLoader`."""

    batch_size: int
    share: slice
    select: Selection | None
    labels: bool
    boundaries: tuple[Boundary, ...]
    within_documents: bool
    as_torch: bool
    pin_memory: bool


class BatchMaker:
    """Makes batches of a dataset, in any order; in order it also reads ahead."""

    def __init__(self, dataset: TokenDataset, wanted: Wanted) -> None:
        self.dataset, self.wanted = dataset, wanted
        chosen = () if wanted.select is None else wanted.select.columns
        self._names = tuple(dict.fromkeys((*dataset.columns, *chosen)))
        self._asked = 0  # the sample up to which shards were requested, or pages
        self._cold = 0  # the sample up to which pages are asked of the disk ahead

    def next(self, first: int) -> Batch:
        """Return the batch at `first` after asking for what comes after it. Raises StopIteration when fewer samples are left."""
        if self.dataset.total is not None and first + self.wanted.batch_size > self.dataset.total:
            raise StopIteration
        self._look_ahead(first)
        before = resource.getrusage(_WHO).ru_majflt  # files in memory pay nothing but these two looks
        batch = self.batch(first)
        waited = resource.getrusage(_WHO).ru_majflt - before
        if waited > len(batch.samples) // 4 and first >= self._cold:
            self._cold = first + COLD
        return batch

    def batch(self, first: int) -> Batch:
        """Return this rank's rows of the global batch whose first sample is `first`: a pure function, in any order.

        Raises:
            IndexError: there are no such samples.
        """
        draw = self.dataset.draw(first, self.wanted.batch_size)
        mine = draw if self.wanted.share == slice(0, self.wanted.batch_size) else draw.part(self.wanted.share)
        rows = self.dataset.rows(mine)
        ids = self._ids(rows.values(fmt.INPUT_IDS))
        mask = self._mask(rows, draw)
        labels = self._ids(rows.next_values(fmt.INPUT_IDS)) if self.wanted.labels else None
        every = mask is None
        if mask is None:
            mask = np.empty(ids.shape, dtype=np.bool_)
            mask.fill(True)
        if labels is not None and not every and labels.dtype.kind == "i":
            np.putmask(labels, mask == 0, IGNORED)
        columns = {name: rows.next_values(name) for name in self.dataset.columns}
        found = Batch(*mine, ids, labels, mask, columns, **self._borders(rows))
        if not self.wanted.as_torch:
            return found
        from gristmill.torch import to_torch  # torch is loaded by those who ask for it

        return to_torch(found, pin_memory=self.wanted.pin_memory)

    def _ids(self, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return ids.astype(np.int64 if self.wanted.as_torch else self.dataset.dtype, copy=False)

    def _mask(self, rows: Rows, draw: Draw) -> npt.NDArray[Any] | None:
        """Return which labels to train on, or their weights; None: all."""
        select = self.wanted.select
        if select is None:
            return rows.labelled(within_documents=self.wanted.within_documents)
        share = slice(None)
        if select.scope == "batch" and len(draw.samples) != self.wanted.share.stop - self.wanted.share.start:
            rows, share = self.dataset.rows(draw), self.wanted.share
        scores = [rows.next_values(name) for name in select.columns]
        valid = rows.labelled(within_documents=self.wanted.within_documents)
        valid = np.ones(scores[0].shape, dtype=np.bool_) if valid is None else valid
        return select.weigh(scores, valid, rows.next_starts() if select.scope == "document" else None)[share]

    def _borders(self, rows: Rows) -> dict[str, Any]:
        if not self.wanted.boundaries:
            return {}
        found: dict[str, Any] = {"cu_seqlens": bd.cu_seqlens(rows.starts())}
        for name, make in (("position_ids", bd.position_ids), ("document_ids", bd.document_ids)):
            if name in self.wanted.boundaries:
                found[name] = make(found["cu_seqlens"], self.dataset.sequence_length)
        return found

    def _look_ahead(self, first: int) -> None:
        """Ask for what the coming samples need: shards of a remote build always, pages of files while the disk has to be read."""
        size = self.wanted.batch_size
        if self.dataset.remote and first + size > self._asked - FETCHED // 2:
            for source, begin, count in self.dataset.runs(first, FETCHED):
                source.request(self._names, begin, count)
            self._asked = first + FETCHED
        elif first < self._cold or self.dataset.layout.shuffle != "global":  # whole stretches are asked for rarely: always do
            begin = max(self._asked, first)
            for source, number, count in self.dataset.runs(begin, first + size + AHEAD - begin):
                source.read_ahead(self._names, number, count, afresh=self._asked <= first)
            self._asked = first + size + AHEAD
