"""One build's tokens as one stream: windows of it read from memory maps, and the way back from a token to its document.

Reads: the shards and sidecars that a manifest names. Writes: nothing. The stream is the documents of all shards in
manifest order; its tokens are numbered from 0.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import format as fmt
from gristmill import manifest as mf
from gristmill.errors import FormatError
from gristmill.format import TokenColumn
from gristmill.manifest import File, Manifest
from gristmill.packing import addresses

OPEN_COLUMNS = 16_384  # memory maps kept; Linux allows 65,530 a process

Begins = npt.NDArray[np.int64]
Window = Callable[[TokenColumn, int, int], npt.NDArray[Any]]  # a method of TokenColumn


@dataclass(frozen=True, slots=True)
class TokenAddress:
    """Where a token is stored: file of the build, row in it, position in that row's document."""

    file: str
    row: int
    position: int


class TokenStream:
    """The tokens of one build.

    Attributes:
        manifest: the build's manifest.
        root: folder of the shards.
        tokens: number of tokens.
        padding: the id after the stream's end: the one that ends documents, or 0 where there is none.
    """

    def __init__(self, manifest: Manifest, root: Path) -> None:
        assert manifest.tokenizer is not None, "check_kind comes first"
        self.manifest = manifest
        self.root = root
        self.tokens = manifest.tokens
        self.padding = manifest.tokenizer.eos_id or 0
        self._begins = np.cumsum([0, *(shard.tokens for shard in manifest.shards[:-1])], dtype=np.int64)
        self._schemes = _schemes(manifest)
        self._column = lru_cache(maxsize=OPEN_COLUMNS)(self._open_column)

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> TokenStream:
        """Open a build: its manifest.json, its folder, or an output folder (its newest build of tokens).

        Raises:
            FormatError: what is there cannot be read, is damaged, or is incomplete.
        """
        found = mf.find(path, fmt.TOKENS)
        manifest = mf.load(found)
        _check_kind(manifest, found)
        _check_files(manifest, found.parent, verify)
        return cls(manifest, found.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory maps: another process opens its own."""
        return (TokenStream, (self.manifest, self.root))

    def read_tokens(self, begins: Begins, out: npt.NDArray[Any]) -> None:
        """Fill row i of `out`, shape (rows, length), with the tokens from begins[i] on; after the stream's end with padding."""
        self._read(TokenColumn.window, fmt.INPUT_IDS, begins, out, self.padding)

    def read_starts(self, begins: Begins, out: npt.NDArray[np.bool_]) -> None:
        """Fill `out`, bool and of the shape of the tokens, with where documents begin."""
        self._read(TokenColumn.starts, fmt.INPUT_IDS, begins, out, False)

    def read_scores(self, name: str, begins: Begins, out: npt.NDArray[np.float16]) -> None:
        """Fill `out`, of the shape of the tokens, with a per-token column; NaN after the stream's end."""
        self._read(TokenColumn.window, name, begins, out, np.nan)

    def _read(self, window: Window, name: str, begins: Begins, out: npt.NDArray[Any], padding: float) -> None:
        """Copy the windows of all rows at once: one call of numpy for the batch, since a call costs as much as a row."""
        length = out.shape[1]
        shards, places = addresses(begins, self._begins)
        pieces: list[npt.NDArray[Any]] = []
        for shard, begin in zip(shards.tolist(), places.tolist(), strict=True):
            piece = window(self._column(shard, name), begin, length)
            pieces.append(piece)
            if len(piece) < length:
                rest = self._rest(window, name, shard, begin + len(piece), length - len(piece))
                missing = length - len(piece) - sum(map(len, rest))
                pieces += [*rest, np.full(missing, padding, dtype=out.dtype)]
        np.concatenate(pieces, out=out.reshape(-1), casting="same_kind")

    def _rest(self, window: Window, name: str, shard: int, begin: int, missing: int) -> list[npt.NDArray[Any]]:
        """Return the pieces of a window beyond the end of a record batch: from the next ones, while there are any."""
        pieces: list[npt.NDArray[Any]] = []
        while missing and shard < len(self._begins):
            column = self._column(shard, name)
            if begin == column.tokens:
                shard, begin = shard + 1, 0
                continue
            pieces.append(window(column, begin, missing))
            begin, missing = begin + len(pieces[-1]), missing - len(pieces[-1])
        return pieces

    def locate(self, token: int) -> TokenAddress:
        """Return where a token is stored; `format.read_row` gives its document's source.

        Raises:
            IndexError: no such token.
        """
        if not 0 <= token < self.tokens:
            raise IndexError(f"no token {token}: the stream has {self.tokens}")
        shards, places = addresses(np.array([token]), self._begins)
        shard = int(shards[0])
        row, place = self._column(shard, fmt.INPUT_IDS).locate(int(places[0]))
        return TokenAddress(self.manifest.shards[shard].file, row, place)

    def score_column(self, name: str) -> tuple[str, str]:
        """Return (scheme, column) for `column` or `scheme.column`. Raises ValueError unless exactly one is meant."""
        matches = [(scheme, column) for scheme, column in self._schemes if name in (column, f"{scheme}.{column}")]
        if len(matches) == 1:
            return matches[0]
        known = ", ".join(f"{scheme}.{column}" for scheme, column in self._schemes) or "none; the build has no scores"
        problem = "is not in every shard" if not matches else "is ambiguous"
        raise ValueError(f"per-token column {name!r} {problem}; there are: {known}")

    def _open_column(self, shard: int, name: str) -> TokenColumn:
        entry = self.manifest.shards[shard]
        if name == fmt.INPUT_IDS:
            column = fmt.open_column(self.root / entry.file, fmt.TOKENS, fmt.INPUT_IDS)
        else:
            scheme, inner = self.score_column(name)
            column = fmt.open_column(self.root / entry.sidecars[scheme].file, fmt.SCORES, inner)
        if (column.tokens, column.documents) != (entry.tokens, entry.documents):
            raise FormatError(
                f"{self.root / entry.file}: {name} has {column.tokens} tokens in {column.documents} documents, the manifest says "
                f"{entry.tokens} in {entry.documents}"
            )
        return column


def _schemes(manifest: Manifest) -> list[tuple[str, str]]:
    """Return (scheme, column) of the per-token columns that all shards have, sorted."""
    sets = [{(scheme, c) for scheme, side in s.sidecars.items() for c in side.columns} for s in manifest.shards]
    return sorted(set.intersection(*sets)) if sets else []


def _check_kind(manifest: Manifest, path: Path) -> None:
    if manifest.kind != fmt.TOKENS:
        raise FormatError(f"{path}: a build of kind {manifest.kind!r}; only 'tokens' can be read (end the build with `shards`)")
    if not manifest.tokens:
        raise FormatError(f"{path}: the build has no tokens; see its report for where the documents went")
    if manifest.dtype not in fmt.ID_TYPES or manifest.tokenizer is None:
        raise FormatError(f"{path}: dtype is {manifest.dtype!r}; allowed are {', '.join(fmt.ID_TYPES)}, with a tokenizer")


def _check_files(manifest: Manifest, root: Path, verify: bool) -> None:
    """Compare the files with the manifest: existence and size, and the sha256 where asked for. Raises FormatError."""
    files = mf.files(manifest)
    for file in files:
        path = root / file.name
        try:
            found = os.stat(path).st_size
        except FileNotFoundError as error:
            raise FormatError(f"{path}: missing; the manifest names {len(files)} files, copy them all") from error
        if found != file.bytes:
            raise FormatError(f"{path}: has {found} bytes, the manifest says {file.bytes}; copy the file again")
    if verify:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashlib releases the interpreter's lock
            _compare(files, pool.map(partial(_sha256, root), (file.name for file in files)), root)


def _sha256(root: Path, name: str) -> str:
    with (root / name).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(files: Sequence[File], digests: Iterable[str], root: Path) -> None:
    for file, found in zip(files, digests, strict=True):
        if found != file.sha256:
            raise FormatError(
                f"{root / file.name}: sha256 is {found}, the manifest says {file.sha256}; the file is damaged, copy it again"
            )
