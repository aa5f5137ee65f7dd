"""What tests let other processes do, in a module that imports no more than the reader: each process that is spawned imports it.

Reads what it is given; writes into the pipe or the folder that it is given.
"""

from __future__ import annotations

import hashlib
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from gristmill import TokenDataset, TokenLoader
from gristmill.format.manifest import Manifest, Shard
from gristmill.reader.packing import BestFitPacking


def send_next(loader: TokenLoader, connection: Connection) -> None:
    connection.send(next(loader).input_ids)


def send_batch(dataset: TokenDataset, connection: Connection) -> None:
    connection.send(TokenLoader(dataset, 8, prefetch=0).batch(80).input_ids)


class Lengths:
    """A stream that knows its documents' lengths, shard by shard, and how often it was asked for them."""

    def __init__(self, shards: list[list[int]]) -> None:
        self.shards = shards
        self.asked = 0
        entries = []
        for number, documents in enumerate(shards):
            sha256 = hashlib.sha256(repr((number, documents)).encode()).hexdigest()
            entries.append(Shard(f"tokens-{number:05d}.arrow", len(documents), sum(documents), 0, 0, sha256, ""))
        self.manifest = Manifest("tokens", "", "test", None, None, tuple(entries), {})

    def lengths(self, shard: int) -> np.ndarray:
        """See `Documents`."""
        self.asked += 1
        return np.array(self.shards[shard], dtype=np.int32)

    def first_token(self, shard: int) -> int:
        """See `Documents`."""
        return sum(map(sum, self.shards[:shard]))


def packed(stream: Lengths, folder: Path) -> list[list[int]]:
    """Return the pieces of all rows: begins, lengths, and where each row's begin."""
    packing = BestFitPacking(stream, 64, 100, folder)
    return [part.tolist() for part in packing.pieces(np.arange(packing.count))]
