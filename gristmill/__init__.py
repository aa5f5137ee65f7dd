"""The reader of gristmill's token shards: what training code imports.

>>> from gristmill import TokenDataset, TopShare
>>> dataset = TokenDataset.open("build/demo", sequence_length=2048, seed=1)  # doctest: +SKIP
>>> for batch in dataset.batches(16, select=TopShare(keep=0.6)):  # doctest: +SKIP
...     batch.input_ids, batch.loss_mask
"""

from gristmill.dataset import Batch, Batches, TokenDataset
from gristmill.errors import FormatError
from gristmill.manifest import Manifest
from gristmill.selection import Selection, Threshold, TopShare
from gristmill.stream import TokenAddress

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Batches",
    "FormatError",
    "Manifest",
    "Selection",
    "Threshold",
    "TokenAddress",
    "TokenDataset",
    "TopShare",
]
