"""An n-gram model that lies in a file, as a reference model: its parameters, and what opens it.

Reads a file that `store.py` wrote; writes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gristmill.json_values import Plain
from gristmill.models.protocols import Integers, Signals, Singles


@dataclass(frozen=True, kw_only=True)
class NgramFile:
    """A Kneser-Ney model over the ids of the build's own tokenizer, counted elsewhere.

    `ngram_file`: its path on a local disk, of each machine.
    """

    entropy: ClassVar[bool] = False  # each takes a sum over the whole vocabulary

    ngram_file: str

    def __post_init__(self) -> None:
        """Check what needs no file."""
        if not self.ngram_file:
            raise ValueError("ngram_file is empty: give the path of a model that was saved")

    def files(self) -> tuple[str, ...]:
        """Return the file."""
        return (self.ngram_file,)

    def libraries(self) -> tuple[str, ...]:
        """Return none: the losses lie in the file."""
        return ()

    def open(self) -> OpenedNgram:
        """Load the model. Raises InputError when the file is not an n-gram model."""
        from gristmill.models.ngram import store

        path = Path(self.ngram_file)
        model = store.load(path)
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        facts: dict[str, Plain] = {"path": self.ngram_file, "sha256": sha256, "order": model.order, "discounts": model.discounts}
        return OpenedNgram(model.open(), facts, model.vocab_size)


@dataclass(frozen=True)
class OpenedNgram:
    """A loaded model: a `TokenScorer`; `losses` gives those of ids, uint32 [tokens], and bounds, int64 [documents + 1]."""

    kind: ClassVar[str] = "ngram_file"
    of_build: ClassVar[bool] = True
    tokenizer: ClassVar[None] = None

    losses: Callable[[Any, Any], Singles]
    facts: dict[str, Plain]
    vocab_size: int

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        """Return the signals of these documents; see `Scorer.score`. There are no entropies."""
        return Signals(self.losses(np.asarray(ids, np.uint32), np.asarray(bounds, np.int64)))
