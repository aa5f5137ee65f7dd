"""Counts of n-grams as rows of the exchange: of several models, in folds, with one key a model, fold and n-gram.

Reads ids and which group (a model's fold) each document belongs to; gives rows `key: uint64`, further words `key_1`, ..., and
`count: int64`; adds them up; and gives the `Counts` of each group back.

A key is that of `kneser_ney_kernels` (tokens from the highest bits down, newest first), the number of the group in the lowest
bits of its last word, the first word times an odd number: which can be undone, and spreads keys evenly over 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.ngram.kneser_ney import Counts, Integers, count, width_of

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

MIX = 0x9E3779B97F4A7C15
MIX_BACK = pow(MIX, -1, 2**64)


@dataclass(frozen=True)
class Layout:
    """How keys are written. `orders`: tokens of the longest n-gram of each group. One more group counts all documents."""

    vocab_size: int
    orders: tuple[int, ...]

    @property
    def group_bits(self) -> int:
        """Return the bits of a group's number."""
        return len(self.orders).bit_length()

    @property
    def words(self) -> int:
        """Return the words of a key."""
        bits = width_of(self.vocab_size)
        words, last = divmod(max(self.orders), 64 // bits)
        free = 64 - bits * last if last else 64 - bits * (64 // bits)
        return words + (last > 0) + (free < self.group_bits)

    def schema(self) -> pa.Schema:
        """Return the schema of the rows."""
        keys = [pa.field("key" if i == 0 else f"key_{i}", pa.uint64()) for i in range(self.words)]
        return pa.schema([*keys, pa.field("count", pa.int64())], metadata={"vocab_size": str(self.vocab_size)})

    def rows(self, ids: Integers, bounds: Ints, members: Sequence[npt.NDArray[np.bool_]]) -> pa.Table:
        """Return the counts of these documents.

        Args:
            ids: unsigned [tokens].
            bounds: int64 [documents + 1].
            members: for each group which documents it has, bool [documents].
        """
        tables, lengths = [self.schema().empty_table()], np.diff(bounds)
        for group, (order, chosen) in enumerate(zip(self.orders, members, strict=True)):
            here = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
            counted = count(ids[np.repeat(chosen, lengths)], here, order=order, vocab_size=self.vocab_size)
            tables.append(self._table(group, counted.keys, counted.counts))
        if len(lengths):
            tables.append(self._table(len(self.orders), np.zeros((1, 0), np.uint64), np.array([len(lengths)], np.int64)))
        return pa.concat_tables(tables).combine_chunks()

    def _table(self, group: int, keys: Words, counts: Ints) -> pa.Table:
        words = np.zeros((self.words, len(keys)), np.uint64)
        words[: keys.shape[1]] = keys.T
        words[-1] |= np.uint64(group)
        words[0] *= np.uint64(MIX)
        return pa.table([*words, counts], schema=self.schema())

    def counts(self, tables: Sequence[pa.Table]) -> tuple[int, list[Counts]]:
        """Return how many documents there were, and the counts of each group, of rows that were added up."""
        columns = [np.concatenate([table[name].to_numpy() for table in tables]) for name in self.schema().names]
        words, counts = columns[:-1], columns[-1]
        words[0] = words[0] * np.uint64(MIX_BACK)
        mask = np.uint64(2**self.group_bits - 1)
        groups = words[-1] & mask
        words[-1] = words[-1] & ~mask
        bits, found = width_of(self.vocab_size), []
        for group, order in enumerate(self.orders):
            chosen = groups == np.uint64(group)
            keys = [word[chosen] for word in words[: -(-order // (64 // bits))]]
            ranks = np.lexsort(keys[::-1])
            found.append(Counts(order, self.vocab_size, np.stack(keys, axis=1)[ranks], counts[chosen][ranks]))
        return int(counts[groups == np.uint64(len(self.orders))].sum()), found


def vocab_size_of(tables: Sequence[pa.Table]) -> int:
    """Return the size of the vocabulary that the rows were counted with."""
    return int(tables[0].schema.metadata[b"vocab_size"])


def add_up(rows: pa.Table) -> pa.Table:
    """Return one row a key, with the sum of its counts, in order of keys."""
    names = [name for name in rows.column_names if name.startswith("key")]
    schema = rows.select([*names, "count"]).schema
    words, counts = [rows[name].to_numpy() for name in names], rows["count"].to_numpy()
    if not len(counts):
        return schema.empty_table()
    ranks = np.lexsort(words[::-1])
    words = [word[ranks] for word in words]
    fresh = np.zeros(len(counts), np.bool_)
    fresh[0] = True
    for word in words:
        fresh[1:] |= word[1:] != word[:-1]
    starts = np.flatnonzero(fresh)
    return pa.table([*(word[starts] for word in words), np.add.reduceat(counts[ranks], starts)], schema=schema)
