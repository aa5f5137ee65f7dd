"""Our readers, as the benchmark drives them: the batches of one build in several forms.

Reads: the build that `_reader_data.py` made. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._reader_data import LENGTH, ROWS, Data
from gristmill import TokenDataset

Batches = Iterator[Any]


def ids(data: Data, folder: Path) -> Batches:
    """Tokens alone, uint16."""
    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, verify=False)
    return (batch.input_ids for batch in dataset.batches(ROWS))


def scored(data: Data, folder: Path) -> Batches:
    """Tokens, their reference losses and their mask."""
    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, verify=False, columns=["ref_loss"])
    return (batch.input_ids for batch in dataset.batches(ROWS))


def int64(data: Data, folder: Path) -> Batches:
    """Tokens as torch's int64."""
    import torch

    dataset = TokenDataset.open(data.build, sequence_length=LENGTH, verify=False, dtype="int64")
    return (torch.from_numpy(batch.input_ids) for batch in dataset.batches(ROWS))


OURS: dict[str, Callable[[Data, Path], Batches]] = {
    "gristmill": ids,
    "gristmill_scored": scored,
    "gristmill_int64": int64,
}
