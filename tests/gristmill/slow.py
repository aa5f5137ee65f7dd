"""What the reader promises, in plain Python, and builds to hold it against."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from gristmill import Batch, TokenDataset
from gristmill.reader.shuffle import Order
from stages.sink.shards import Shards
from tests.gristmill.builds import EOS, documents, folder_of, publish

Shard = list[list[int]]  # the ids of each document


def corpus(sizes: list[list[int]], first: int = 2) -> list[Shard]:
    """Return shards of documents whose tokens are all distinct, counted from `first`; none ends with eos."""
    numbers = itertools.count(first)
    return [[[next(numbers) for _ in range(size)] for size in shard] for shard in sizes]


def some_sizes(seed: int) -> list[list[int]]:
    """Return sizes of documents, empty ones and one longer than files and many sequences among them."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 40, 30).tolist(), [130], random.integers(0, 40, 20).tolist(), random.integers(0, 40, 7).tolist()]


def scores_of(ids: Shard) -> list[list[float]]:
    """Return a score a token, NaN for the first of a document: a few values that float16 holds exactly, with many ties."""
    return [[math.nan if place == 0 else token * 7 % 11 / 4 for place, token in enumerate(row)] for row in ids]


def build(
    output: Path,
    shards: list[Shard],
    *,
    tokens_per_shard: int = 50,
    batch_tokens: int = 20,
    repeats: list[list[int]] | None = None,
    **options: Any,
) -> Path:
    """Publish documents with scores `excess` and `ref_loss` in shards of several files of several record batches.

    `repeats`: how often an epoch reads each document of each shard.
    """
    tables = []
    for number, ids in enumerate(shards):
        scores = {"excess": scores_of(ids), "ref_loss": [[1.5] * len(row) for row in ids]}
        counts = None if repeats is None else repeats[number]
        tables.append([documents(ids, file=f"crawl-{number}", scores=scores, vocab_size=60_000, repeats=counts, **options)])
    sink = Shards(tokens_per_shard=tokens_per_shard)
    return folder_of(publish(tables, output, sink=sink, batch_tokens=batch_tokens), output)


class Slow:
    """One source: which tokens each sample has, looked up one by one."""

    def __init__(self, shards: list[Shard], dataset: TokenDataset, source: int = 0) -> None:
        rows = [row for ids in shards for row in ids]
        self.tokens = [token for row in rows for token in row]
        self.document = [number for number, row in enumerate(rows) for _ in row]
        self.scores = [score for row in scores_of(rows) for score in row]
        self.layout = dataset.layout
        self.packing = dataset._opened[source].packing
        self.order = Order(self.packing.count, (self.layout.seed, source), self.layout.shuffle)

    def sequence(self, number: int) -> int:
        """Return the sequence that the source's sample `number` is."""
        return int(self.order.at([number])[0])

    def addresses(self, sequence: int) -> list[int | None]:
        """Return the number in the stream of each token of a sequence, None for padding."""
        if self.layout.packing == "concat":
            begin = sequence * self.layout.sequence_length
            found = list(range(begin, min(begin + self.layout.sequence_length, len(self.tokens))))
        else:
            pieces = self.packing.pieces(np.array([sequence]))
            found = [at for begin, count in zip(pieces.begins, pieces.lengths, strict=True) for at in range(begin, begin + count)]
        return found + [None] * (self.layout.sequence_length - len(found))

    def label(self, at: int | None, within: bool) -> int | None:
        """Return the address of a token's label, None where it has none."""
        if at is None or at + 1 == len(self.tokens):
            return None
        within = within or self.layout.packing != "concat"
        return at + 1 if not within or self.document[at + 1] == self.document[at] else None

    def check_row(self, batch: Batch, row: int, number: int, within: bool = False) -> None:
        """Compare a row of a batch with the source's sample `number`."""
        sequence = self.sequence(number)
        assert batch.sequences[row] == sequence
        here = self.addresses(sequence)
        labels = [self.label(at, within) for at in here]
        assert batch.input_ids[row].tolist() == [EOS if at is None else self.tokens[at] for at in here]
        assert batch.loss_mask[row].tolist() == [at is not None for at in labels]
        found = batch.labels[row].tolist()
        for place, at in enumerate(labels):
            if at is not None:
                assert found[place] == self.tokens[at]
                if "excess" in batch.columns:
                    value, expected = batch.columns["excess"][row, place], self.scores[at]
                    assert value == expected or (math.isnan(value) and math.isnan(expected))
        if batch.document_ids is not None:
            borders = [place == 0 or self.border(here, place) for place in range(len(here))]
            assert batch.document_ids[row].tolist() == [sum(borders[: place + 1]) - 1 for place in range(len(here))]

    def border(self, here: list[int | None], place: int) -> bool:
        """Return whether attention stops before a place."""
        before, at = here[place - 1], here[place]
        if at is None or before is None:
            return (at is None) != (before is None) and self.layout.packing != "concat"
        return self.document[at] != self.document[before]
