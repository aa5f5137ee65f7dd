"""One build's tokens as one stream: windows of it gathered from memory maps, and the way back from a token to its document.

Reads: the shards and sidecars that a manifest names, where they lie. Writes: nothing. The stream is the documents of all
shards in manifest order; its tokens are numbered from 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.column import TokenColumn, counted, open_column
from gristmill.format.manifest import Manifest, Shard
from gristmill.format.repeats import Counts, Lengths, read_repeats
from gristmill.reader.gather import Int64, OpenColumns
from gristmill.storage.file import File
from gristmill.storage.location import Held, Location

OPEN_SHARDS = 16_384  # of one column
CHECKING_THREADS = 16
OPEN_MAPS = 48_000  # of all columns of all streams that are read together; Linux allows 65,530 memory maps a process


_STREAMS: WeakSet[TokenStream] = WeakSet()


def _after_fork() -> None:
    """Begin anew in a forked child, which lacks its parent's threads: one may have held the lock, in the middle of a change."""
    for stream in list(_STREAMS):
        stream._begin()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class TokenAddress:
    """Where a token is stored: file of the build, row in it, position in that row's document."""

    file: str
    row: int
    position: int


class TokenStream:
    """The tokens of one build, and what stands beside them. Safe to use from several threads.

    Args:
        manifest: a build of tokens; `check` says whether it is one.
        location: where its files lie.
        part: the share of what the location may hold at once that is this stream's: others may hold files of the same cache.
        streams: how many are read together and share the memory maps that a process may have.

    Attributes:
        tokens: number of tokens.
        documents: number of documents.
        padding: the id after a sequence's end: the one that ends documents, or 0 where there is none.
        begins: int64, (shards + 1,): number of each shard's first token, then `tokens`.
    """

    def __init__(self, manifest: Manifest, location: Location, part: float = 1.0, streams: int = 1) -> None:
        assert manifest.tokenizer is not None, "check comes first"
        self.manifest = manifest
        self.location = location
        self._part, self._together = part, streams
        self.tokens, self.documents = manifest.tokens, manifest.documents
        self.padding = manifest.tokenizer.eos_id or 0
        self.begins = np.cumsum([0, *(shard.tokens for shard in manifest.shards)], dtype=np.int64)
        self._schemes = _schemes(manifest)
        self._begin()
        _STREAMS.add(self)

    def _begin(self) -> None:
        self._open: dict[str, OpenColumns] = {}
        self._held: dict[tuple[str, int], Held] = {}
        self._lock = RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: another process opens its own."""
        return (TokenStream, (self.manifest, self.location, self._part, self._together))

    def check_counts(self, *, each: bool = False) -> None:
        """Compare the documents and tokens that local shards say they have with the manifest: their sums, or those of each.

        Those of each are compared anyway when a shard is opened, of remote builds too; and what is damaged is reported then.

        Raises:
            FormatError: the first shard that has others.
        """
        if self.location.budget is not None:
            return
        shards = self.manifest.shards
        paths = [self.location.hold(File(shard.file, shard.bytes, shard.sha256, shard.zst)).path for shard in shards]
        with ThreadPoolExecutor(CHECKING_THREADS) as pool:  # on a network's disk it is all waiting
            counts = list(pool.map(counted, paths, [fmt.INPUT_IDS] * len(paths)))
        found = [count for count in counts if count is not None]
        sums = (sum(documents for documents, _ in found), sum(tokens for _, tokens in found))
        if each or (len(found) == len(shards) and sums != (self.documents, self.tokens)):
            for path, shard, count in zip(paths, shards, counts, strict=True):
                if count is not None:
                    self._compare(path, shard, fmt.INPUT_IDS, *count)

    def _compare(self, path: Path, entry: Shard, name: str, documents: int, tokens: int) -> None:
        if (tokens, documents) != (entry.tokens, entry.documents):
            raise FormatError(
                f"{path}: {name} has {tokens} tokens in {documents} documents, the manifest says {entry.tokens} in "
                f"{entry.documents}; the file belongs to other tokens, or the manifest was changed: copy both again"
            )

    # ---- values ----

    def windows(self, name: str, begins: Int64, length: int) -> npt.NDArray[Any]:
        """Return the values of `input_ids` or of a per-token column from each of `begins` on, (n, length), in the stored type.

        A per-token column is named `column`, or `scheme.column` where several schemes have one of that name. After the stream's
        end there are padding ids, NaN or False.
        """
        with self._lock:
            column = self._open.get(name) or self._column(name)
            return column.windows(begins, length)

    def pieces(self, name: str, begins: Int64, lengths: Int64, bounds: Int64, length: int) -> npt.NDArray[Any]:
        """Return rows put together from pieces of the stream, (n, length), filled up as after the stream's end.

        Args:
            name: as in `windows`.
            begins: first token of each piece, int64, (m,).
            lengths: tokens in it, within the stream, int64, (m,).
            bounds: the pieces of row i are bounds[i] to bounds[i + 1], int64, (n + 1,).
            length: values in a row.
        """
        rows = len(bounds) - 1
        totals = np.concatenate([[0], np.cumsum(lengths)])[bounds]
        missing = (length - np.diff(totals)).tolist()
        with self._lock:
            column = self._column(name)
            parts = column.pieces(begins, lengths)
            blank = np.full(max(missing, default=0), column.padding, dtype=column.dtype)
            for row in range(rows - 1, -1, -1):  # from the end: what is put in moves nothing that is still to come
                if missing[row]:
                    parts.insert(int(bounds[row + 1]), blank[: missing[row]])
            return np.concatenate(parts).reshape(rows, length)

    # ---- documents ----

    def starts(self, begins: Int64, length: int) -> npt.NDArray[np.bool_]:
        """Return where documents begin in the windows from each of `begins` on: bool, (n, length); False after the end."""
        with self._lock:
            return self._column(fmt.INPUT_IDS).starts(begins, length)

    def lengths(self, shard: int) -> npt.NDArray[np.int32]:
        """Return the number of tokens of each document of a shard, int32, (documents,)."""
        with self._lock:
            return self._column(fmt.INPUT_IDS).column(shard).lengths()

    def repeats(self, shard: int) -> tuple[Counts, Lengths]:
        """Return (how often an epoch reads each document, its tokens) of a shard with counts: uint8 and int32, (documents,).

        Raises:
            FormatError: the file of counts is not what the manifest says.
        """
        entry = self.manifest.shards[shard].repeats
        assert entry is not None, "the build has no counts"
        held = self.location.hold(File(entry.file, entry.bytes, entry.sha256, entry.zst))
        try:  # a remote file was compared with its sha256 when it came
            return read_repeats(held.path, entry, verify=self.location.budget is None)
        finally:
            held.release()

    def first_token(self, shard: int) -> int:
        """Return the number in the stream of a shard's first token."""
        return int(self.begins[shard])

    def locate(self, token: int) -> TokenAddress:
        """Return where a token is stored; `column.read_row` gives its document's source.

        Raises:
            IndexError: no such token.
        """
        if not 0 <= token < self.tokens:
            raise IndexError(f"no token {token}: the stream has {self.tokens}")
        column, first = self._shard(token)
        row, position = column.locate(token - first)
        shard = int(np.searchsorted(self.begins, token, side="right")) - 1
        return TokenAddress(self.manifest.shards[shard].file, row, position)

    def _shard(self, token: int) -> tuple[TokenColumn, int]:
        """Return the ids of the shard that a token lies in, and the number of that shard's first token."""
        with self._lock:
            ids = self._column(fmt.INPUT_IDS)
            shard = ids.shard_of(token)
            return ids.column(shard), int(self.begins[shard])

    # ---- reading ahead ----

    def will_need(self, names: Iterable[str], begins: Int64, ends: Int64) -> None:
        """Ask the system to read tokens [begins[i], ends[i]) of some columns ahead, where their shards are open."""
        with self._lock:
            for name in names:
                self._column(name).will_need(begins, ends)

    def request(self, names: Iterable[str], tokens: Int64) -> None:
        """Begin to fetch the shards of some tokens, in the order of the tokens; for a local build there is nothing to fetch."""
        shards = np.searchsorted(self.begins, tokens, side="right") - 1
        order = list(dict.fromkeys(shards.tolist()))
        self.location.request([self._file(name, shard) for shard in order for name in names])

    # ---- opening ----

    def column_name(self, name: str) -> tuple[str, str]:
        """Return (scheme, column) for `column` or `scheme.column`. Raises ValueError unless exactly one is meant."""
        matches = [(scheme, column) for scheme, column in self._schemes if name in (column, f"{scheme}.{column}")]
        if len(matches) == 1:
            return matches[0]
        known = ", ".join(f"{scheme}.{column}" for scheme, column in self._schemes) or "none; the build has no scores"
        problem = "is not in every shard" if not matches else "is ambiguous"
        raise ValueError(f"per-token column {name!r} {problem}; there are: {known}")

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the stored type of a column's values, bool where eight share a byte."""
        if name == fmt.INPUT_IDS:
            return np.dtype(self.manifest.dtype)
        scheme, inner = self.column_name(name)
        return np.dtype(self.manifest.shards[0].sidecars[scheme].columns[inner])

    def _column(self, name: str) -> OpenColumns:
        if name not in self._open:
            dtype = self.dtype(name)
            absent: float = np.nan if dtype.kind == "f" else False
            self._open[name] = OpenColumns(
                self.begins,
                dtype,
                self.padding if name == fmt.INPUT_IDS else absent,
                lambda shard: self._open_shard(name, shard),
                lambda shard: self._release(name, shard),
                self.capacity,
            )
        return self._open[name]

    @property
    def capacity(self) -> int:
        """Return how many shards may be open, with all their columns: of remote ones as many as may be held on the disk."""
        most = min(OPEN_SHARDS, OPEN_MAPS // (self._together * (1 + len(self._schemes))))
        if self.location.budget is None:
            return max(2, most)
        sizes = [shard.bytes + sum(side.bytes for side in shard.sidecars.values()) for shard in self.manifest.shards]
        return max(2, min(most, int(self.location.budget * self._part) // max(sizes)))

    def _file(self, name: str, shard: int) -> File:
        shards = self.manifest.shards[shard]
        entry = shards if name == fmt.INPUT_IDS else shards.sidecars[self.column_name(name)[0]]
        return File(entry.file, entry.bytes, entry.sha256, entry.zst)

    def _open_shard(self, name: str, shard: int) -> TokenColumn:
        entry = self.manifest.shards[shard]
        held = self.location.hold(self._file(name, shard))
        self._held[name, shard] = held
        kind, inner = (fmt.TOKENS, name) if name == fmt.INPUT_IDS else (fmt.SCORES, self.column_name(name)[1])
        column = open_column(held.path, kind, inner)
        self._compare(held.path, entry, name, column.documents, column.tokens)
        if column.dtype != self.dtype(name):
            raise FormatError(f"{held.path}: {name} is of type {column.dtype}, the manifest says {self.dtype(name)}")
        return column

    def _release(self, name: str, shard: int) -> None:
        self._held.pop((name, shard)).release()


def _schemes(manifest: Manifest) -> list[tuple[str, str]]:
    """Return (scheme, column) of the per-token columns that all shards have, sorted."""
    sets = [{(scheme, c) for scheme, side in s.sidecars.items() for c in side.columns} for s in manifest.shards]
    return sorted(set.intersection(*sets)) if sets else []


def check(manifest: Manifest, where: str) -> None:
    """Raise FormatError unless the manifest is of a build of tokens that can be read."""
    if manifest.kind != fmt.TOKENS:
        raise FormatError(f"{where}: a build of kind {manifest.kind!r}; only 'tokens' can be read (end the build with `shards`)")
    if not manifest.tokens:
        raise FormatError(f"{where}: the build has no tokens; see its report for where the documents went")
    if manifest.dtype not in fmt.ID_TYPES or manifest.tokenizer is None:
        raise FormatError(f"{where}: dtype is {manifest.dtype!r}; allowed are {', '.join(fmt.ID_TYPES)}, with a tokenizer")
