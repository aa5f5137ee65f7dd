"""`dedup_exact`: keep the first of the documents that have the same text, over all shards of the build.

Reads `id` and `text`. Each document makes one row: `key` (64 bits of a hash of the text), `row`, `id` and `digest`
(another 128 bits): documents meet by key and are the same only if the digests are equal too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import as_bytes, flat_bytes, flat_texts
from gristmill.json_values import Json
from pipeline.finding import Finding, Limit
from pipeline.stage import Exchange, Transform

EXACT_DUPLICATE = "exact_duplicate"

COLUMNS = {"exact_copies": pa.int32(), "duplicate_of": pa.string()}

VERDICTS = pa.schema([("shard", pa.int32()), ("row", pa.int64()), ("drop", pa.string()), *COLUMNS.items()])

KEY_BYTES, DIGEST_BYTES = 8, 16


def values(text: pa.ChunkedArray) -> Iterator[memoryview]:
    """Yield the UTF-8 bytes of each text without copying them."""
    for chunk in text.chunks:
        data, bounds = flat_texts(chunk)
        view = data.data
        for begin, end in pairwise(bounds.tolist()):
            yield view[begin:end]


def digests(text: pa.ChunkedArray, *, squeeze: bool) -> npt.NDArray[np.uint64]:
    """Return uint64[documents, 3]: blake2b-192 of each text, with runs of ASCII whitespace made one space if `squeeze`."""
    size = KEY_BYTES + DIGEST_BYTES
    texts = (b" ".join(bytes(value).split()) for value in values(text)) if squeeze else values(text)
    found = b"".join(hashlib.blake2b(value, digest_size=size).digest() for value in texts)
    return np.frombuffer(found, "<u8").reshape(-1, 3)


def groups(keys: npt.NDArray[np.uint64], digest: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the rows that share key and digest with another.

    `keys` (uint64[n]) is sorted, `digest` is uint64[n, 2]. Returns their numbers, group by group and in their order in a
    group, and for each the place in that list where its group starts (int64, int64).
    """
    same = keys[1:] == keys[:-1]
    rows = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    rows = rows[np.lexsort((digest[rows, 1], digest[rows, 0], keys[rows]))]  # stable: equal ones stay in order
    parts = (keys[rows], digest[rows, 0], digest[rows, 1])
    begins = np.flatnonzero(np.insert(np.any([part[1:] != part[:-1] for part in parts], axis=0), 0, True)[: len(rows)])
    sizes = np.diff(np.append(begins, len(rows)))
    starts, many = np.repeat(begins, sizes), np.repeat(sizes > 1, sizes)
    places = np.cumsum(many) - 1
    return rows[many], places[starts[many]]


@dataclass(frozen=True, kw_only=True)
class DedupExact(Exchange):
    """Drop documents whose text an earlier one has (`exact_duplicate`).

    With `normalize: whitespace` texts that differ only in ASCII whitespace are the same. The first in (shard, row) order is
    kept and counts its copies, itself included.
    """

    normalize: Literal["none", "whitespace"] = "none"

    def __post_init__(self) -> None:
        if self.normalize not in ("none", "whitespace"):
            raise ValueError(f"normalize is {self.normalize!r}; allowed are 'none' and 'whitespace'")

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`: how many documents have this text, and for dropped ones which of them is kept."""
        return COLUMNS

    def replaces(self) -> tuple[str, ...]:
        """Return all of them: of two stages that remove duplicates the later tells."""
        return tuple(self.adds())

    def defaults(self) -> Mapping[str, Json]:
        """See `Exchange.defaults`."""
        return {"exact_copies": 1, "duplicate_of": None}

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return which document has the same text, and how many have it; see `Stage.explain`."""
        kept, copies = after["duplicate_of"][0].as_py(), after["exact_copies"][0].as_py()
        same = Limit("normalize", self.normalize, "the same text with", broken=True)
        first = [] if kept is None else [Finding("duplicate_of", kept, (same,), decisive=True)]
        return [*first, Finding("exact_copies", copies)]

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("exact_copies",)

    def open(self) -> Transform:
        """Return f(docs) → rows (key: uint64, row: int64, id: string, digest: fixed_size_binary(16)), one a document."""
        squeeze = self.normalize == "whitespace"

        def emit(docs: pa.Table) -> pa.Table:
            found = digests(docs["text"], squeeze=squeeze)
            digest = as_bytes(np.ascontiguousarray(found[:, 1:]), DIGEST_BYTES)
            row = np.arange(len(found), dtype=np.int64)
            return pa.table({"key": found[:, 0].copy(), "row": row, "id": docs["id"], "digest": digest})

        return emit

    def reduce(self) -> Transform:
        """Return f(rows sorted by key) → the verdicts on documents with copies (`VERDICTS`)."""

        def judge(rows: pa.Table) -> pa.Table:
            members, starts = groups(rows["key"].to_numpy(), flat_bytes(rows["digest"]).view("<u8"))
            kept = starts == np.arange(len(members))
            copies = np.bincount(starts, minlength=len(members))[starts].astype(np.int32)
            found = rows.take(pa.array(members))
            originals = rows["id"].take(pa.array(members[starts], mask=kept))  # a null index takes a null
            reasons = pa.array([EXACT_DUPLICATE]).take(pa.array(np.zeros(len(members), np.int64), mask=kept))
            return pa.table([found["shard"], found["row"], reasons, pa.array(copies), originals], schema=VERDICTS)

        return judge

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(verdicts) → all of them in (shard, row) order."""

        def gather(verdicts: Sequence[pa.Table]) -> pa.Table:
            return pa.concat_tables([VERDICTS.empty_table(), *verdicts]).sort_by([("shard", "ascending"), ("row", "ascending")])

        return gather
