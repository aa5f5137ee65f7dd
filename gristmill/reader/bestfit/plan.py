"""Best-fit packings kept on a local disk: packed once, then mapped into memory by every process that reads the build.

Reads and writes: a folder of plan files, by default `$GRISTMILL_CACHE/plans`, else `gristmill/plans` in the user's cache folder.
All of it can be deleted at any time; what is missing or damaged is packed again. Where nothing can be written, plans stay in
memory (`packing.py`). A file holds the rows of a *run* of shards and
is named by their hashes, the row length, the window and the version of the algorithm. So of a build that has grown by some
shards only the last run is packed again. Runs and not shards, for every open map costs a file descriptor.

A file is 64-bit little-endian words: the header (what it is, shards, rows, pieces, checksum of the head, checksum of the rest),
the number of rows of each shard (in a plan of the later passes over repeated documents, `repeated.py`, of each level); and then,
each as (number << 24 | count): for each row its first piece and how many it has, for each piece its first token, counted from the
run's first, and how many it has.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.home import cache_folder
from gristmill.reader.bestfit.fit import ALGORITHM, Rows, pack

Int64 = npt.NDArray[np.int64]

BITS = 24
MASK = (1 << BITS) - 1  # the longest row, too
MAGIC = int.from_bytes(b"gmplan1\0", "little")
HEADER = 6

RUN_DOCUMENTS = 1 << 21  # documents a file: about 20 MB; 1e9 documents are 500 files, and as many open ones
RUN_TOKENS = 1 << (62 - BITS)


@dataclass(frozen=True)
class Plan:
    """One mapped plan file: int64 `words`, laid out as this file's head says."""

    words: Int64

    @property
    def shard_rows(self) -> Int64:
        """Rows of each entry, int64, (entries,): a shard, or a level of `repeated.py`."""
        return self.words[HEADER : HEADER + int(self.words[1])]

    @property
    def rows_at(self) -> int:
        """The address of the first row's word, in words."""
        return self.words.ctypes.data // 8 + HEADER + int(self.words[1])

    @property
    def pieces_at(self) -> int:
        """The address of the first piece's word, in words."""
        return self.rows_at + int(self.words[2])

    def is_whole(self) -> bool:
        """Return whether the rows and pieces are those that were written: reads all of the file."""
        return int(self.words[5]) == zlib.crc32(self.words[HEADER + int(self.words[1]) :].data)


def default_folder() -> Path | None:
    """Return where plans are kept by default; None where there is no such folder."""
    cache = cache_folder()
    return None if cache is None else cache / "plans"


def runs(documents: Sequence[int], tokens: Sequence[int]) -> list[range]:
    """Divide shards with these numbers of documents and tokens into the runs that share a file: as many as fit."""
    found, begin, taken, size = [], 0, 0, 0
    for shard, (count, total) in enumerate(zip(documents, tokens, strict=True)):
        if shard > begin and (taken + count > RUN_DOCUMENTS or size + total > RUN_TOKENS):
            found.append(range(begin, shard))
            begin, taken, size = shard, 0, 0
        taken, size = taken + count, size + total
    return [*found, range(begin, len(documents))] if documents else []


def file_name(hashes: Iterable[str], length: int, window: int) -> str:
    """Return the name of the plan of a run of shards whose files have these sha256."""
    lines = [f"best-fit {ALGORITHM} {length} {window}", *hashes]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32] + ".plan"


def make(shards: Iterable[npt.NDArray[np.int32]], length: int, window: int) -> Int64:
    """Return the words of the plan of a run of shards, given the tokens of each document of each shard: an entry a shard."""
    return words(_packed(shards, length, window))


def _packed(shards: Iterable[npt.NDArray[np.int32]], length: int, window: int) -> Iterator[Rows]:
    first_token = 0
    for documents in shards:
        rows = pack(documents, length, window)
        yield Rows(rows.begins + first_token, rows.lengths, rows.bounds)
        first_token += int(documents.sum(dtype=np.int64))


def words(entries: Iterable[Rows]) -> Int64:
    """Return the words of a plan with these rows; their tokens are counted from the run's first."""
    first_piece = 0
    rows: list[Int64] = []
    pieces: list[Int64] = []
    for packed in entries:
        rows.append((packed.bounds[:-1] + first_piece) << BITS | np.diff(packed.bounds))
        pieces.append(packed.begins << BITS | packed.lengths)
        first_piece += len(packed.begins)
    shard_rows = np.array([len(part) for part in rows], dtype=np.int64)
    body = np.concatenate([*rows, *pieces])
    sizes = np.array([MAGIC, len(rows), shard_rows.sum(), first_piece], dtype=np.int64)
    sums = np.array([_head_sum(sizes, shard_rows), zlib.crc32(body.data)], dtype=np.int64)
    return np.concatenate([sizes, sums, shard_rows, body])


def read(path: Path) -> Plan | None:
    """Map a plan file; None where it is missing or damaged. Only its head is read and checked."""
    try:
        words = np.asarray(np.memmap(path, dtype=np.int64, mode="r"))
    except (OSError, ValueError):  # not there, or not ours to read; numpy's for an empty file, or one that ends within a word
        return None
    if len(words) < HEADER or words[0] != MAGIC:
        return None
    shards, rows, pieces = words[1:4].tolist()
    if min(shards, rows, pieces) < 0 or len(words) != HEADER + shards + rows + pieces:
        return None
    return Plan(words) if words[4] == _head_sum(words[:4], words[HEADER : HEADER + shards]) else None


def write(path: Path, words: Int64) -> None:
    """Write a plan file, whole or not at all; one that is there is replaced, and stays with those who have mapped it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    try:
        words.tofile(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _head_sum(sizes: Int64, shard_rows: Int64) -> int:
    return zlib.crc32(np.concatenate([sizes, shard_rows]).data)
