"""The reader of gristmill's token shards: what training code imports.

>>> from gristmill import TokenDataset, TokenLoader, TopShare
>>> dataset = TokenDataset.open("build/demo", sequence_length=2048, seed=1)  # doctest: +SKIP
>>> for batch in TokenLoader(dataset, 16, select=TopShare(keep=0.6)):  # doctest: +SKIP
...     batch.input_ids, batch.labels, batch.loss_mask
"""

from gristmill.errors import FormatError
from gristmill.format.manifest import Manifest
from gristmill.reader.batch import Batch
from gristmill.reader.dataset import TokenDataset
from gristmill.reader.loader import TokenLoader
from gristmill.reader.packing import BestFit
from gristmill.reader.selection import Both, Quantile, Selection, SoftWeights, StoredMask, StoredWeights, Threshold, TopShare
from gristmill.reader.shuffle import Blocks
from gristmill.reader.source import Source
from gristmill.reader.stream import TokenAddress
from gristmill.storage.cache import Cache

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "BestFit",
    "Blocks",
    "Both",
    "Cache",
    "FormatError",
    "Manifest",
    "Quantile",
    "Selection",
    "SoftWeights",
    "Source",
    "StoredMask",
    "StoredWeights",
    "Threshold",
    "TokenAddress",
    "TokenDataset",
    "TokenLoader",
    "TopShare",
]
