"""TokenDataset: builds opened for training, mixed by weight; every sample is a function of its number.

Reads: manifests and the shards they name, where they lie. Writes: nothing.

A *sample number* counts the endless order of training from 0. The way from it to tokens has four steps, each a pure
function: which source, and which of its samples (`mixture.py`); which of the source's sequences (`shuffle.py`); which
tokens of the stream (`packing.py`); and their values (`stream.py`). So the number of ranks or workers, the
batch size and where a run was interrupted leave no trace.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.arguments import whole
from gristmill.format import schema as fmt
from gristmill.format.manifest import Manifest
from gristmill.reader import packing as packings
from gristmill.reader import shuffle as shuffling
from gristmill.reader.batch import IGNORED
from gristmill.reader.bestfit.fit import ALGORITHM
from gristmill.reader.gather import Int64
from gristmill.reader.mixture import Mixture
from gristmill.reader.opening import check_stream, ids_type, open_streams, sources_of
from gristmill.reader.packing import BestFit
from gristmill.reader.rows import MixedRows, Rows
from gristmill.reader.shuffle import Shuffle
from gristmill.reader.source import OpenSource, Source
from gristmill.reader.stream import TokenAddress, TokenStream
from gristmill.secrets import masked
from gristmill.storage.cache import Cache
from gristmill.storage.remote.folder import Options

Packing = Literal["concat"] | BestFit


class Draw(NamedTuple):
    """Which sequences some samples are: three int64 arrays of the same length."""

    samples: Int64
    sources: Int64
    sequences: Int64

    def take(self, places: Int64) -> Draw:
        """Return some of them."""
        return Draw(self.samples[places], self.sources[places], self.sequences[places])


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How samples are made of streams; see `TokenDataset.open`."""

    sequence_length: int
    seed: int
    shuffle: Shuffle
    packing: Packing
    columns: tuple[str, ...]
    dtype: np.dtype[Any]


class TokenDataset:
    """Builds of token shards opened for training; make it with `open`.

    Attributes:
        sources: names of the sources, in the order of `Batch.sources`.
        layout: how samples are made.
        sequence_length: tokens in a row.
        columns: the per-token columns that batches carry.
        dtype: numpy type of `input_ids` and labels.
        total: samples until all sources are used up; None: endless.
    """

    def __init__(self, streams: Mapping[str, TokenStream], sources: Mapping[str, Source], layout: Layout) -> None:
        self.sources = tuple(sources)
        self.layout = layout
        self.sequence_length, self.columns, self.dtype = layout.sequence_length, layout.columns, layout.dtype
        self._streams, self._given = dict(streams), dict(sources)
        self._types: dict[str, np.dtype[Any]] = {}
        self._opened = [
            OpenSource(stream, layout.sequence_length, layout.packing, layout.shuffle, (layout.seed, number))
            for number, stream in enumerate(streams.values())
        ]
        plain = len(sources) == 1 and all(source.max_epochs is None for source in sources.values())
        self._mixture = None if plain else _mixture(sources, [source.packing.count for source in self._opened], layout.seed)
        self.total = None if self._mixture is None else self._mixture.total

    @classmethod
    def open(
        cls,
        path: str | Path | Mapping[str, Source],
        *,
        sequence_length: int = 2048,
        seed: int = 0,
        shuffle: Shuffle = "global",
        packing: Packing = "concat",
        columns: Sequence[str] = (),
        dtype: npt.DTypeLike | None = None,
        verify: bool = False,
        cache: Cache | None = None,
        storage_options: Options | None = None,
    ) -> TokenDataset:
        """Open a build, or several to mix.

        Args:
            path: manifest.json, the folder of a build, or an output folder (its newest build of tokens), local or any fsspec URL
                such as s3://; or names and `Source`s to mix.
            sequence_length: tokens in a row of a batch.
            seed: chooses the order; the same seed gives the same order everywhere.
            shuffle: `global`, the whole epoch; `Blocks(...)`, stretches of the stream, some open at a time (for slow disks,
                and for remote builds larger than the cache); or `none`.
            packing: `concat`: the documents one after the other, cut; or `BestFit()`: no document that fits is cut.
            columns: per-token columns that batches carry, by name, such as `excess`, or `rho1.excess` where two schemes have one.
            dtype: integer type of `input_ids`; the stored one (uint16 or uint32) by default. int64 suits torch.
            verify: compare the sha256 of every local file with the manifest, which reads all of the build (about 1.5 GB/s a
                core). False by default: then sizes are compared, and what the shards say of their documents and tokens.
                Remote files are compared with their sha256 whenever they are fetched, whatever `verify` is.
            cache: where remote shards are kept on this machine.
            storage_options: what fsspec needs beyond the environment to open remote paths, such as `endpoint_url` and keys.

        Raises:
            FormatError: what is there cannot be read, is damaged, incomplete, or of another tokenizer than the others.
            ValueError: an argument out of range, or a sequence longer than all the data.
        """
        sequence_length, seed = whole("sequence_length", sequence_length, 1), whole("seed", seed)
        if abs(seed) >> 63:
            raise ValueError(f"seed is {seed}; it must fit into 64 bits with a sign")
        shuffling.check(shuffle)
        packings.check(packing)
        if isinstance(columns, str):
            raise ValueError(f"columns is {columns!r}; it must be a list of names, such as [{columns!r}]")
        if not isinstance(cache, Cache | None):
            raise ValueError(f"cache is {cache!r}; it must be a Cache(folder=..., limit_bytes=...), or None")
        sources = sources_of(path)
        streams = open_streams(sources, verify=verify, cache=cache, storage_options=storage_options)
        for name, stream in streams.items():
            stream.check_counts(each=verify)
            check_stream(stream, sequence_length, shuffle, masked(str(sources[name].path)))
        kind = ids_type({name: stream.manifest for name, stream in streams.items()}, dtype)
        layout = Layout(
            sequence_length=sequence_length, seed=seed, shuffle=shuffle, packing=packing, columns=tuple(columns), dtype=kind
        )
        dataset = cls(streams, sources, layout)
        dataset.check_columns(columns)
        return dataset

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: a worker process opens its own."""
        return (TokenDataset, (self._streams, self._given, self.layout))

    def __repr__(self) -> str:
        """Say what it is made of: sources, sequences, order."""
        layout, sequences = self.layout, sum(source.packing.count for source in self._opened)
        tokens = sum(stream.tokens for stream in self._streams.values())
        read = sum(stream.manifest.epoch_tokens for stream in self._streams.values())
        again = "" if read == tokens else f" ({read:,} an epoch, with repeats)"
        end = "endless" if self.total is None else f"{self.total:,} samples"
        made = f"shuffle={layout.shuffle!r}, packing={layout.packing!r}, seed={layout.seed}, dtype={layout.dtype}"
        size = f"{tokens:,} tokens{again}, {sequences:,} sequences of {layout.sequence_length}, {end}"
        return f"TokenDataset({', '.join(self.sources)}: {size}; {made})"

    def __len__(self) -> int:
        """Return `total`; of an order without end the sequences of all sources, as far as `max_epochs` lets them be seen.

        So with one source and no `max_epochs` it is an epoch.
        """
        if self.total is not None:
            return self.total
        counts = [source.packing.count for source in self._opened]
        limits = [None] * len(counts) if self._mixture is None else self._mixture.limits
        return sum(count if limit is None else min(count, limit) for count, limit in zip(counts, limits, strict=True))

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield the samples from 0 to `len` - 1: an epoch, or all of them where there is an end."""
        return (self[sample] for sample in range(len(self)))

    def __getitem__(self, sample: int) -> dict[str, npt.NDArray[Any]]:
        """Return one sample as a dict of arrays of shape (length,): `input_ids`, `labels`, `loss_mask`, and the columns.

        The values are those of a loader's batch without selection and boundaries: labels of a signed type are -100 wherever
        `loss_mask` is False. For what wants a map-style dataset; a `TokenLoader` makes batches at a fraction of the cost.

        Raises:
            IndexError: `sample` is negative, or not below `total`.
        """
        rows = self.rows(self.draw(sample, 1))
        labelled = rows.labelled(within_documents=False)
        mask = np.ones(self.sequence_length, dtype=np.bool_) if labelled is None else labelled[0]
        ids, labels = (values(fmt.INPUT_IDS).astype(self.dtype)[0] for values in (rows.values, rows.next_values))
        if labels.dtype.kind == "i":
            labels[~mask] = IGNORED
        found = {"input_ids": ids, "labels": labels, "loss_mask": mask}
        return found | {name: rows.next_values(name)[0] for name in self.columns}

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise ValueError unless every source has each of these per-token columns; they are named as in `open`."""
        for name in names:
            found = {}
            for source, stream in self._streams.items():
                try:
                    found[source] = stream.dtype(name)
                except ValueError as error:
                    raise ValueError(f"{masked(stream.location.uri)}: {error}") from None
            if len({kind == np.bool_ for kind in found.values()}) > 1:
                listed = ", ".join(f"{kind} in {source}" for source, kind in found.items())
                raise ValueError(f"per-token column {name!r} is {listed}; sources that are mixed need scores in all, or masks")

    def stored_type(self, name: str) -> np.dtype[Any]:
        """Return the type of a column in batches: the stored one, of several sources the widest."""
        if name not in self._types:
            self._types[name] = np.result_type(*(stream.dtype(name) for stream in self._streams.values()))
        return self._types[name]

    # ---- samples to sequences to rows ----

    def draw(self, first: int, size: int) -> Draw:
        """Return which sequences the samples from `first` on are.

        Raises:
            IndexError: `first` is negative, or a sample is not below `total`.
        """
        if first < 0 or (self.total is not None and first + size > self.total):
            end = "without end" if self.total is None else f"to {self.total - 1}"
            raise IndexError(f"no samples {first} to {first + size - 1}: they are numbered from 0 {end}")
        samples = np.arange(first, first + size)
        if self._mixture is None:
            return Draw(samples, np.zeros(size, dtype=np.int64), self._opened[0].order.run(first, size))
        sources, numbers = self._mixture.draw(first, size)
        sequences = np.empty(size, dtype=np.int64)
        for number in np.unique(sources).tolist():
            here = np.flatnonzero(sources == number)
            sequences[here] = self._opened[number].order.run(int(numbers[here[0]]), len(here))  # consecutive numbers
        return Draw(samples, sources, sequences)

    def rows(self, draw: Draw) -> Rows:
        """Return the rows of some samples."""
        if len(self._opened) == 1:
            return self._opened[0].rows(draw.sequences)
        parts = []
        for number in np.unique(draw.sources).tolist():
            places = np.flatnonzero(draw.sources == number)
            parts.append((places, self._opened[number].rows(draw.sequences[places])))
        return MixedRows(parts, len(draw.samples), self.stored_type)

    def runs(self, first: int, size: int) -> list[tuple[OpenSource, int, int]]:
        """Return (source, number of its first sample, samples) of all sources that samples [first, first + size) come from."""
        if self.total is not None:
            size = min(size, self.total - first)
        if size <= 0:  # the end is near, or all of it was asked for before
            return []
        if self._mixture is None:
            return [(self._opened[0], first, size)]
        before, after = self._mixture.counts(first), self._mixture.counts(first + size)
        return [
            (source, int(begin), int(end - begin))
            for source, begin, end in zip(self._opened, before, after, strict=True)
            if end > begin
        ]

    def will_need(self, names: Sequence[str], draw: Draw) -> None:
        """Ask the system to read the tokens of some samples, and these columns, from its disk before they are needed."""
        for number in np.unique(draw.sources).tolist():
            self._opened[number].will_need(names, draw.sequences[draw.sources == number])

    @property
    def remote(self) -> bool:
        """Whether a source is fetched from elsewhere."""
        return any(source.stream.location.budget is not None for source in self._opened)

    # ---- identity ----

    def fingerprint(self, sample: int, *, idle: bool = False) -> dict[str, int]:
        """Return what decides the order up to a sample, as small integers: a saved state is good where these are equal.

        `data` stands for the tokens of the sources, `order` for shuffle and packing, `mixture` for the weights and limits that
        matter before `sample`. Sources that have no weight before it leave no trace, so that they may be added while a run goes
        on; with `idle` they do, as in states that were saved before that was so.
        """
        used = list(range(len(self._given))) if idle else self._used(sample)
        orders = [stream.manifest.order for stream in self._streams.values()]
        packing = repr(self.layout.packing)
        if self.layout.packing != "concat":
            packing += f" {ALGORITHM}"  # another algorithm makes other rows
        return {
            "seed": self.layout.seed,
            "sequence_length": self.sequence_length,
            "data": _hash([orders[number] for number in used]),
            "order": _hash([repr(self.layout.shuffle), packing]),
            "mixture": _hash(self._past(sample, used)),
        }

    def _last(self, sample: int) -> int:
        """Return the number of the last sample before `sample`, or 0."""
        return max(sample if self.total is None else min(sample, self.total), 1) - 1

    def _used(self, sample: int) -> list[int]:
        """Return the numbers of the sources that shaped the order before `sample`: with a weight, or a change of it, by then."""
        last = self._last(sample)
        changes = [source.weights().items() for source in self._given.values()]
        return [n for n, each in enumerate(changes) if any(at <= last and (at or weight) for at, weight in each)]

    def _past(self, sample: int, used: Sequence[int]) -> list[Any]:
        """Return the weights that the samples before `sample` were drawn with, and the limits reached before the last of them."""
        # The number of a source is part of its shuffle's key: those of the used ones are in the state unless they are the first.
        numbers: list[Any] = [] if list(used) == list(range(len(used))) else [list(used)]
        if len(used) == 1 or self._mixture is None:
            return numbers
        last, given = self._last(sample), list(self._given.values())
        counts = self._mixture.counts(last).tolist()
        past = []
        for number in used:
            limit = self._mixture.limits[number]
            weights = sorted((at, weight) for at, weight in given[number].weights().items() if at <= last)
            past.append([weights, limit if counts[number] == limit else None])
        return past + numbers

    def manifest(self, source: str | int = 0) -> Manifest:
        """Return the manifest of a source, by name or number."""
        return self._source(source).stream.manifest

    def locate(self, sequence: int, position: int, source: str | int = 0) -> TokenAddress:
        """Return where the token at `position` of a sequence is stored; `column.read_row` gives its document's source.

        Raises:
            IndexError: no such token, or padding.
        """
        opened = self._source(source)
        if not 0 <= sequence < opened.packing.count or not 0 <= position < self.sequence_length:
            raise IndexError(f"no position {position} of sequence {sequence}: {opened.packing.count} of {self.sequence_length}")
        begins, lengths, _ = opened.packing.pieces(np.array([sequence], dtype=np.int64))
        ends = np.cumsum(lengths)
        piece = int(np.searchsorted(ends, position, side="right"))
        if piece == len(ends):
            raise IndexError(f"position {position} of sequence {sequence} is padding; it has {int(ends[-1])} tokens")
        return opened.stream.locate(int(begins[piece]) + position - int(ends[piece] - lengths[piece]))

    def _source(self, source: str | int) -> OpenSource:
        if isinstance(source, str) and source in self.sources:
            return self._opened[self.sources.index(source)]
        if isinstance(source, str) or not 0 <= source < len(self.sources):
            raise ValueError(f"no source {source!r}; there are: {', '.join(self.sources)}, numbered from 0")
        return self._opened[source]


def _mixture(sources: Mapping[str, Source], sizes: Sequence[int], seed: int) -> Mixture:
    weights = [source.weights() for source in sources.values()]
    return Mixture(sizes, weights, [source.max_epochs for source in sources.values()], seed, list(sources))


def _hash(value: object) -> int:
    return zlib.crc32(json.dumps(value).encode())
