"""How one batch is made: from a sample number to this rank's rows, with labels, mask and document boundaries.

Reads: a `TokenDataset`. Writes: nothing.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.format import schema as fmt
from gristmill.reader import boundaries as bd
from gristmill.reader.batch import IGNORED, Batch
from gristmill.reader.dataset import Draw, TokenDataset
from gristmill.reader.rows import Rows
from gristmill.reader.selection import Selection

Boundary = Literal["cu_seqlens", "position_ids", "document_ids"]

AHEAD = 256  # samples that are asked of a disk before they are needed: enough to keep an SSD's queue full
COLD = 8 * AHEAD  # samples for which a disk that was once waited for is asked ahead
FETCHED = 4096  # samples whose shards are asked of a remote store before they are needed
# Of small batches several are made at once, which divides what each costs beside the copying; with larger arrays the
# allocator gives memory back to the system each time, and fetching it again costs more than is saved.
BYTES_AT_ONCE = 1 << 19
BATCHES_AT_ONCE = 8

_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
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
    """Makes batches of a dataset, in any order; in order it makes several at once and reads ahead.

    `one_by_one`: `next` will not be called for successive batches.
    """

    def __init__(self, dataset: TokenDataset, wanted: BatchSpec, *, one_by_one: bool = False) -> None:
        self.dataset, self.wanted = dataset, wanted
        chosen = () if wanted.select is None else wanted.select.columns
        self._names = tuple(dict.fromkeys((*dataset.columns, *chosen)))
        self._rows = wanted.share.stop - wanted.share.start
        width = 8 if wanted.as_torch else dataset.dtype.itemsize
        fitting = BYTES_AT_ONCE // (self._rows * dataset.sequence_length * width)
        self._at_once = 1 if one_by_one else min(max(fitting, 1), BATCHES_AT_ONCE)
        self._remote, self._stretches = dataset.remote, dataset.layout.shuffle != "global"
        self._made: dict[int, Batch] = {}
        self._asked = 0  # the sample up to which shards were requested, or pages
        self._cold = 0  # the sample up to which pages are asked of the disk ahead
        self._faults: int | None = None  # pages that were waited for so far

    def next(self, first: int) -> Batch:
        """Return the batch at `first` after asking for what comes after it. Raises StopIteration when fewer samples are left."""
        if first not in self._made:
            count = self._at_once
            if self.dataset.total is not None:
                count = min(count, (self.dataset.total - first) // self.wanted.batch_size)
                if count < 1:
                    raise StopIteration
            self._look_ahead(first, count * self.wanted.batch_size)
            starts = range(first, first + count * self.wanted.batch_size, self.wanted.batch_size)
            self._made = dict(zip(starts, self.run(first, count), strict=True))
            self._watch(first, count)
        return self._made.pop(first)

    def run(self, first: int, count: int) -> list[Batch]:
        """Return `count` batches, the first of which begins at sample `first`; their arrays are parts of the same.

        Raises:
            IndexError: there are no such samples.
        """
        size, n = self.wanted.batch_size, self._rows
        draw = self.dataset.draw(first, size * count)
        mine = draw
        if n < size:
            share = np.arange(self.wanted.share.start, self.wanted.share.stop)
            mine = draw.take((np.arange(count)[:, None] * size + share).reshape(-1))
        rows = self.dataset.rows(mine)
        ids = self._ids(rows.values(fmt.INPUT_IDS))
        mask = self._mask(rows, draw, count)
        labels = self._ids(rows.next_values(fmt.INPUT_IDS)) if self.wanted.labels else None
        if mask is None:
            mask = np.empty(ids.shape, dtype=np.bool_)
            mask.fill(True)
        elif labels is not None and labels.dtype.kind == "i":
            np.putmask(labels, mask == 0, IGNORED)
        columns = {name: rows.next_values(name) for name in self.dataset.columns}
        starts = rows.starts() if self.wanted.boundaries else None
        samples, sources, sequences = mine
        batches = []
        for part in [slice(i * n, (i + 1) * n) for i in range(count)]:
            batch = Batch(
                samples[part],
                sources[part],
                sequences[part],
                ids[part],
                None if labels is None else labels[part],
                mask[part],
                {name: values[part] for name, values in columns.items()},
            )
            if starts is not None:
                self._add_borders(batch, starts[part])
            batches.append(batch)
        if not self.wanted.as_torch:
            return batches
        from gristmill.reader.tensors import to_torch  # torch is loaded by those who ask for it

        return [to_torch(batch, pin_memory=self.wanted.pin_memory) for batch in batches]

    def _ids(self, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return ids.astype(np.int64 if self.wanted.as_torch else self.dataset.dtype, copy=False)

    def _mask(self, rows: Rows, draw: Draw, count: int) -> npt.NDArray[Any] | None:
        """Return which labels of this rank's rows to train on, or their weights; None: all."""
        select, n = self.wanted.select, self._rows
        if select is None:
            return rows.labelled(within_documents=self.wanted.within_documents)
        share = slice(None)
        if select.scope == "batch" and n < self.wanted.batch_size:  # what is chosen depends on all ranks' rows
            rows, n, share = self.dataset.rows(draw), self.wanted.batch_size, self.wanted.share
        scores = [rows.next_values(name) for name in select.columns]
        valid = rows.labelled(within_documents=self.wanted.within_documents)
        valid = np.ones(scores[0].shape, dtype=np.bool_) if valid is None else valid
        starts = rows.next_starts() if select.scope == "document" else None
        found = []
        for part in [slice(i * n, (i + 1) * n) for i in range(count)]:
            here = None if starts is None else starts[part]
            found.append(select.weigh([values[part] for values in scores], valid[part], here)[share])
        return np.concatenate(found) if count > 1 else found[0]

    def _add_borders(self, batch: Batch, starts: npt.NDArray[np.bool_]) -> None:
        batch.cu_seqlens = bd.cu_seqlens(starts)
        if "position_ids" in self.wanted.boundaries:
            batch.position_ids = bd.position_ids(batch.cu_seqlens, starts.shape[1])
        if "document_ids" in self.wanted.boundaries:
            batch.document_ids = bd.document_ids(batch.cu_seqlens, starts.shape[1])

    def _look_ahead(self, first: int, size: int) -> None:
        """Ask for what the coming samples need: shards of a remote build always, pages of files while the disk has to be read."""
        if self._remote:
            if first + size > self._asked - FETCHED // 2:
                for source, begin, count in self.dataset.runs(first, FETCHED):
                    source.request(self._names, begin, count)
                self._asked = first + FETCHED
        elif first < self._cold or self._stretches:  # whole stretches are asked for rarely: always do
            begin = max(self._asked, first)
            everyone = self.wanted.select is not None and self.wanted.select.scope == "batch"  # all ranks' scores are read
            if self._rows < self.wanted.batch_size and not (self._stretches or everyone):
                end = first + size + AHEAD * (self.wanted.batch_size // self._rows)
                self._read_share_ahead(first, begin, end)
            else:
                end = first + size + AHEAD
                for source, number, count in self.dataset.runs(begin, end - begin):
                    source.read_ahead(self._names, number, count, afresh=self._asked <= first)
            self._asked = end

    def _read_share_ahead(self, first: int, begin: int, end: int) -> None:
        """Ask for the pages of this rank's rows only among samples [begin, end): other ranks may read from other disks."""
        end = end if self.dataset.total is None else min(end, self.dataset.total)
        if begin < end:
            draw = self.dataset.draw(begin, end - begin)
            place = (draw.samples - first) % self.wanted.batch_size
            mine = np.flatnonzero((place >= self.wanted.share.start) & (place < self.wanted.share.stop))
            self.dataset.will_need(self._names, draw.take(mine))

    def _watch(self, first: int, count: int) -> None:
        """Note whether the disk was waited for; files in memory pay nothing but this look."""
        faults = resource.getrusage(_WHO).ru_majflt
        if self._faults is not None and faults - self._faults > count * self._rows // 4 and first >= self._cold:
            self._cold = first + COLD
        self._faults = faults
