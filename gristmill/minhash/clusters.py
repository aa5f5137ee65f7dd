"""Clusters of near duplicates: verified pairs in, verdicts out.

Reads tables of `EDGES` (two documents by shard and row, with their ids, and their similarity; a pair may come more than
once and in any order). Makes the connected components with a union-find whose roots are the smallest members, so that
the result depends on the set of pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NEAR_DUPLICATE = "near_duplicate"

EDGES = pa.schema(
    [
        ("shard_a", pa.int32()),
        ("row_a", pa.int64()),
        ("id_a", pa.string()),
        ("shard_b", pa.int32()),
        ("row_b", pa.int64()),
        ("id_b", pa.string()),
        ("jaccard", pa.float32()),
    ]
)

COLUMNS = {"minhash_cluster_size": pa.int32(), "duplicate_of": pa.string(), "duplicate_jaccard": pa.float32()}

VERDICTS = pa.schema([("shard", pa.int32()), ("row", pa.int64()), ("drop", pa.string()), *COLUMNS.items()])

ROW_BITS = 40  # a document's address in one integer: shard, then row; 10^12 rows a shard, 8 million shards


def _addresses(shards: pa.ChunkedArray, rows: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    addresses: npt.NDArray[np.int64] = (shards.to_numpy().astype(np.int64) << ROW_BITS) | rows.to_numpy()
    return addresses


def components(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], nodes: int) -> npt.NDArray[np.int64]:
    """Return for each of the nodes 0..nodes-1 the smallest member of its connected component (int64)."""
    from gristmill.minhash import kernels

    roots = np.arange(nodes, dtype=np.int64)
    kernels.components(left, right, roots)
    return roots


def settle(edges: Sequence[pa.Table]) -> pa.Table:
    """Return one verdict for each document that has an edge (`VERDICTS`), sorted by (shard, row).

    The first document of a component is kept. The others are dropped with its id, and with the similarity to the nearest
    of the documents they were compared with (which may be another than the kept one, joined to it through others).
    """
    pairs = pa.concat_tables([EDGES.empty_table(), *edges])
    ends = [_addresses(pairs["shard_a"], pairs["row_a"]), _addresses(pairs["shard_b"], pairs["row_b"])]
    nodes, first, places = np.unique(np.concatenate(ends), return_index=True, return_inverse=True)
    left, right = places[: len(pairs)].astype(np.int64), places[len(pairs) :].astype(np.int64)
    roots = components(left, right, len(nodes))
    sizes = np.bincount(roots, minlength=len(nodes))[roots]
    nearest = np.zeros(len(nodes), np.float32)
    for end in (left, right):
        np.maximum.at(nearest, end, pairs["jaccard"].to_numpy())
    kept = roots == np.arange(len(nodes))
    ids = pa.chunked_array([*pairs["id_a"].chunks, *pairs["id_b"].chunks], pa.string())
    originals = pa.array(np.where(kept, 0, first[roots]), mask=kept)  # a null index takes a null
    reasons = pa.array([NEAR_DUPLICATE]).take(pa.array(np.zeros(len(nodes), np.int64), mask=kept))
    return pa.table(
        [
            pa.array((nodes >> ROW_BITS).astype(np.int32)),
            pa.array(nodes & ((1 << ROW_BITS) - 1)),
            reasons,
            pa.array(sizes.astype(np.int32)),
            ids.take(originals).cast(pa.string()),
            pa.array(nearest, mask=kept),
        ],
        schema=VERDICTS,
    )
