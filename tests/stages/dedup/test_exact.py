"""Exact deduplication against a dictionary, under any split of documents and keys."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.dedup.exact import DedupExact
from tests.random_examples import examples
from tests.stages.dedup.in_memory import run, table

TEXTS = st.lists(st.lists(st.text("ab \n\té", max_size=4), max_size=12), min_size=1, max_size=4)


def expected(shards, normalize):
    """Verdicts by the definition: group by text, the first of a group stays."""
    groups, number = defaultdict(list), 0
    for shard, texts in enumerate(shards):
        for row, text in enumerate(texts):
            encoded = text.encode()
            groups[b" ".join(encoded.split()) if normalize == "whitespace" else encoded].append((shard, row, f"d{number}"))
            number += 1
    verdicts = []
    for members in groups.values():
        for place, (shard, row, _) in enumerate(members):
            if len(members) > 1:
                drop = ("exact_duplicate", members[0][2]) if place else (None, None)
                verdicts.append((shard, row, drop[0], len(members), drop[1]))
    return sorted(verdicts)


def rows_of(verdicts):
    return [tuple(row.values()) for row in verdicts.to_pylist()]


@examples(60)
@given(shards=TEXTS, normalize=st.sampled_from(["none", "whitespace"]), data=st.data())
def test_any_split_gives_the_verdicts_of_a_dictionary(shards, normalize, data):
    def cuts(size):
        return data.draw(st.lists(st.integers(0, size), max_size=3))

    stage = DedupExact(normalize=normalize)
    assert rows_of(run(stage, shards, batches=cuts, calls=cuts)) == expected(shards, normalize)


def test_crawl(crawl):
    shards = [crawl[:300], crawl[300:700], crawl[700:]]
    verdicts = run(DedupExact(), shards, batches=lambda rows: range(50, rows, 50), calls=lambda keys: range(100, keys, 100))
    assert rows_of(verdicts) == expected(shards, "none")
    assert verdicts["drop"].drop_null().length() == len(crawl) - len(set(crawl))


def test_equal_keys_with_other_digests_stay_apart():
    a, b = bytes(16), b"\x01" + bytes(15)
    rows = pa.table(
        {
            "key": pa.array([7] * 5 + [8], pa.uint64()),
            "shard": pa.array([0, 0, 1, 1, 2, 2], pa.int32()),
            "row": pa.array([0, 1, 0, 1, 5, 6], pa.int64()),
            "id": ["p", "q", "r", "s", "t", "u"],
            "digest": pa.array([b, a, a, b, bytes(15) + b"\x01", a], pa.binary(16)),
        }
    )
    stage = DedupExact()
    verdicts = rows_of(stage.settle()([stage.reduce()(rows)]))
    drops = {(shard, row): original for shard, row, drop, _, original in verdicts if drop}
    assert drops == {(1, 0): "q", (1, 1): "p"}
    assert [v[3] for v in verdicts] == [2, 2, 2, 2]


def test_nothing_to_do():
    stage = DedupExact()
    assert stage.open()(table([])).num_rows == 0
    assert run(stage, [[]]).num_rows == 0
    assert stage.settle()([]).num_rows == 0


def test_defaults_cover_the_added_columns():
    stage = DedupExact()
    assert set(stage.defaults()) == set(stage.adds())
    assert set(stage.measures()) <= set(stage.adds())


def test_unknown_normalize_is_refused():
    with pytest.raises(ValueError, match=r"normalize is 'case'; allowed are 'none' and 'whitespace'"):
        DedupExact(normalize="case")  # type: ignore[arg-type]
