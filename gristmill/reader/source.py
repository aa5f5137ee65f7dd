"""One build opened for training: its stream of tokens, cut or packed into sequences, in an endless order.

Reads: the build through `tokens/stream.py`. Writes: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np

from gristmill.arguments import whole
from gristmill.format import schema as fmt
from gristmill.reader.gather import Int64
from gristmill.reader.packing import BestFit, Concatenated, RepeatedConcatenated, open_packing
from gristmill.reader.rows import CutRows, MixedRows, PackedRows, Rows, SplicedRows
from gristmill.reader.shuffle import Order, Shuffle
from gristmill.reader.stream import TokenStream
from gristmill.secrets import masked


@dataclass(frozen=True, kw_only=True)
class Source:
    """A build to mix with others.

    Args:
        path: a manifest.json, the folder of a build, or an output folder (its newest build of tokens); local or any fsspec URL.
        weight: share of the samples, relative to the other sources'; or a share from each of some sample numbers on, the first
            of them 0: `{0: 0.9, 1_000_000: 0.5}`. A sample number is a step times the global batch size.
        max_epochs: how often its sequences may be seen at most; then the others share its weight. None: without end.

    Raises:
        ValueError: what an argument must not be.
    """

    path: str | Path
    weight: float | Mapping[int, float] = 1.0
    max_epochs: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | Path):
            raise ValueError(f"Source: path is {self.path!r}; it must be a path or a URL")
        given = self.weight if isinstance(self.weight, Mapping) else {0: self.weight}
        if not given:
            raise ValueError("Source: weight is empty; give a number, or one for sample 0 and others from later samples on")
        for sample, weight in given.items():
            like_whole = _is_number(sample) and int(sample) == sample  # 1e6 is one
            whole("Source: the first sample of a weight", int(sample) if like_whole else sample, 0)
            if not _is_number(weight) or weight < 0:
                raise ValueError(f"Source: weight is {weight!r} from sample {sample} on; it must be a finite number, 0 or more")
        if self.max_epochs is not None and not (_is_number(self.max_epochs) and self.max_epochs > 0):
            raise ValueError(f"Source: max_epochs is {self.max_epochs!r}; it must be a number above 0, or None")

    def __repr__(self) -> str:
        """Say what it is, with the secrets of a URL hidden."""
        return f"Source(path={masked(str(self.path))!r}, weight={self.weight!r}, max_epochs={self.max_epochs!r})"

    def weights(self) -> Mapping[int, float]:
        """Return the weight from each sample number on."""
        given = self.weight if isinstance(self.weight, Mapping) else {0: self.weight}
        return {int(sample): float(weight) for sample, weight in given.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


class OpenSource:
    """The sequences of one build.

    Attributes:
        stream: the build's tokens.
        packing: which tokens make a sequence.
        order: which sequence a sample is.
    """

    def __init__(
        self, stream: TokenStream, length: int, packing: Literal["concat"] | BestFit, shuffle: Shuffle, key: tuple[int, ...]
    ) -> None:
        self.stream = stream
        self.packing = open_packing(stream, length, packing)
        self.order = Order(self.packing.count, key, shuffle)

    def rows(self, sequences: Int64) -> Rows:
        """Return some sequences as rows."""
        length = self.packing.length
        if isinstance(self.packing, Concatenated):
            return CutRows(self.stream, sequences * length, length)
        if isinstance(self.packing, RepeatedConcatenated):
            return self._of_passes(self.packing, sequences)
        return PackedRows(self.stream, self.packing.pieces(sequences), length)

    def _of_passes(self, packing: RepeatedConcatenated, sequences: Int64) -> Rows:
        """Return rows of the first pass and of later ones."""
        parts: list[tuple[Int64, Rows]] = []
        again = sequences >= packing.first.count
        places = np.flatnonzero(~again)
        if len(places):
            parts.append((places, CutRows(self.stream, sequences[places] * packing.length, packing.length)))
        places = np.flatnonzero(again)
        if len(places):
            numbers = sequences[places] - packing.first.count
            pieces, after = packing.later.pieces(numbers), packing.later.following(numbers)
            parts.append((places, SplicedRows(self.stream, pieces, after, packing.length)))
        return parts[0][1] if len(parts) == 1 else MixedRows(parts, len(sequences), self.stream.dtype)

    def read_ahead(self, names: Iterable[str], first: int, size: int, *, afresh: bool) -> None:
        """Ask the system to read from its disk what the samples from `first` on need.

        `afresh`: nothing was asked for before, so the blocks that `first` lies in the middle of are not yet on their way.
        """
        asked = self.order.start(first) if afresh else first
        spans = self.order.spans(asked, first + size - asked)
        if not spans:
            return
        if isinstance(self.packing, Concatenated):
            begins, ends = np.array(spans, dtype=np.int64).T * self.packing.length
            self.stream.will_need([fmt.INPUT_IDS, *names], begins, ends)
        else:
            self.will_need(names, np.concatenate([np.arange(begin, end) for begin, end in spans]))

    def will_need(self, names: Iterable[str], sequences: Int64) -> None:
        """Ask the system to read some sequences from its disk."""
        begins, lengths, _ = self.packing.pieces(sequences)
        self.stream.will_need([fmt.INPUT_IDS, *names], begins, begins + lengths)

    def request(self, names: Iterable[str], first: int, size: int) -> None:
        """Begin to fetch the shards that the samples from `first` on need, in that order, where they are remote."""
        sequences = self.order.run(first, size)
        if isinstance(self.packing, Concatenated):
            begins = sequences * self.packing.length
        else:
            begins = self.packing.pieces(sequences).begins
        self.stream.request([fmt.INPUT_IDS, *names], begins)
