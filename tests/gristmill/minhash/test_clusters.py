"""Clusters against a search of the graph, and their independence of the order and number of pairs."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gristmill.minhash import clusters
from tests.random_examples import examples

ADDRESS = st.tuples(st.integers(0, 3), st.integers(0, 5))
SIMILARITY = st.sampled_from([0.75, 0.8, 0.95, 1.0])
PAIRS = st.lists(st.tuples(ADDRESS, ADDRESS, SIMILARITY), max_size=25)


def edges(pairs):
    columns = [[], [], [], [], [], [], []]
    for (shard_a, row_a), (shard_b, row_b), jaccard in pairs:
        values = (shard_a, row_a, f"{shard_a}:{row_a}", shard_b, row_b, f"{shard_b}:{row_b}", jaccard)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, clusters.EDGES, strict=True)], schema=clusters.EDGES)


def expected(pairs):
    """Verdicts by walking the graph."""
    neighbours, nearest = {}, {}
    for a, b, jaccard in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
        for end in (a, b):
            nearest[end] = max(nearest.get(end, 0), np.float32(jaccard))
    verdicts = []
    for start in sorted(neighbours):
        members, walk = {start}, [start]
        while walk:
            fresh = neighbours[walk.pop()] - members
            members |= fresh
            walk += fresh
        first = min(members)
        drop = ("near_duplicate", f"{first[0]}:{first[1]}", nearest[start]) if start != first else (None, None, None)
        verdicts.append((*start, drop[0], len(members), *drop[1:]))
    return verdicts


@examples(150)
@given(PAIRS, st.randoms(use_true_random=False), st.integers(1, 4))
def test_settle_equals_a_walk_of_the_graph(pairs, chance, parts):
    shuffled = [(b, a, j) if chance.random() < 0.5 else (a, b, j) for a, b, j in pairs + pairs[:5]]
    chance.shuffle(shuffled)
    tables = [edges(shuffled[part::parts]) for part in range(parts)]
    assert [tuple(v.values()) for v in clusters.settle(tables).to_pylist()] == expected(pairs)


def test_components_of_a_long_path():
    count = 200_000
    nodes = list(range(count))
    random.Random(0).shuffle(nodes)
    path = np.array(nodes, np.int64)
    roots = clusters.components(path[:-1].copy(), path[1:].copy(), count + 1)
    assert not roots[:-1].any()
    assert roots[-1] == count


def test_addresses_of_the_largest_shards_stay_apart():
    far = 2**31 // 256 - 1
    verdicts = clusters.settle([edges([((far, 2**39), (far, 0), 0.9), ((0, 2**39), (1, 0), 0.9)])])
    assert [(v["shard"], v["row"], v["duplicate_of"]) for v in verdicts.to_pylist()] == [
        (0, 2**39, None),
        (1, 0, f"0:{2**39}"),
        (far, 0, None),
        (far, 2**39, f"{far}:0"),
    ]
