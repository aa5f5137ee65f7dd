"""Our reader, as the benchmark drives it: the batches of one build in several forms.

Reads: the build that `_reader_data.py` made. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks._reader_data import LENGTH, ROWS, Batches, Data
from gristmill import StoredMask, TokenDataset, TokenLoader


def opened(data: Data, *columns: str) -> TokenDataset:
    """Return the build opened for a global shuffle."""
    return TokenDataset.open(data.build, sequence_length=LENGTH, columns=columns)


def ids(data: Data, folder: Path) -> Batches:
    """Tokens alone, uint16: what the peers give."""
    return (batch.input_ids for batch in TokenLoader(opened(data), ROWS, labels=False, prefetch=0))


def labels(data: Data, folder: Path) -> Batches:
    """Tokens and labels, uint16: what a loader gives by default."""
    return (batch.labels for batch in TokenLoader(opened(data), ROWS, prefetch=0))


def scored(data: Data, folder: Path) -> Batches:
    """Tokens, their reference losses and a stored mask, from two sidecars."""
    loader = TokenLoader(opened(data, "ref_loss"), ROWS, select=StoredMask(column="keep"), labels=False, prefetch=0)
    for batch in loader:
        assert batch.columns["ref_loss"].shape == batch.loss_mask.shape
        yield batch.input_ids


def int64(data: Data, folder: Path) -> Batches:
    """Tokens as torch's int64."""
    return (batch.input_ids for batch in TokenLoader(opened(data), ROWS, labels=False, as_torch=True, prefetch=0))


def prefetched(data: Data, folder: Path) -> Batches:
    """Tokens and labels as torch's int64, made ahead by the loader's thread."""
    return (batch.input_ids for batch in TokenLoader(opened(data), ROWS, as_torch=True))


OURS: dict[str, Callable[[Data, Path], Batches]] = {
    "gristmill": ids,
    "gristmill_labels": labels,
    "gristmill_scored": scored,
    "gristmill_int64": int64,
    "gristmill_prefetched": prefetched,
}
