"""The reader of gristmill's token shards: what training code imports.

>>> from gristmill import TokenDataset, TokenLoader, TopShare
>>> dataset = TokenDataset.open("build/demo", sequence_length=2048, seed=1)  # doctest: +SKIP
>>> for batch in TokenLoader(dataset, 16, select=TopShare(keep=0.6)):  # doctest: +SKIP
...     batch.input_ids, batch.labels, batch.loss_mask
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# Where each public name is. It is imported when it is first asked for: all of the reader takes longer to import than a
# process that wants one module of ours, such as a worker of a build, takes for the rest.
_HOMES = {
    "Batch": "gristmill.reader.batch",
    "BestFit": "gristmill.reader.packing",
    "Blocks": "gristmill.reader.shuffle",
    "Both": "gristmill.reader.selection",
    "Cache": "gristmill.storage.cache",
    "FormatError": "gristmill.errors",
    "Manifest": "gristmill.format.manifest",
    "Quantile": "gristmill.reader.selection",
    "Selection": "gristmill.reader.selection",
    "SoftWeights": "gristmill.reader.selection",
    "Source": "gristmill.reader.source",
    "StoredMask": "gristmill.reader.selection",
    "StoredWeights": "gristmill.reader.selection",
    "Threshold": "gristmill.reader.selection",
    "TokenAddress": "gristmill.reader.stream",
    "TokenDataset": "gristmill.reader.dataset",
    "TokenLoader": "gristmill.reader.loader",
    "TopShare": "gristmill.reader.selection",
}

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


def __getattr__(name: str) -> object:
    """Import a public name. Raises AttributeError."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
