"""Where files and record batches end, against a slow transcription of the rule, for any split of the tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from stages.sink.cut import cut
from tests.random_examples import examples


def weights(table: pa.Table) -> np.ndarray:
    return table.column("weight").to_numpy()


def slow_cut(rows: list[int], file: int, batch: int, most: int) -> list[tuple[int, list[int]]]:
    out: list[tuple[int, list[int]]] = []
    number, in_file = 0, []
    for row in rows:
        if in_file and sum(in_file) + row > file:
            number, in_file = number + 1, []
            out.append((number, []))
        elif not out or sum(out[-1][1]) + row > batch or len(out[-1][1]) == most:
            out.append((number, []))
        in_file.append(row)
        out[-1][1].append(row)
    return out


@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 30)), max_size=40),
    st.lists(st.integers(0, 6), max_size=30),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 9),
)
@examples(400)
def test_equals_the_rule_for_any_split(rows, splits, file, batch, most):
    table = pa.table({"weight": pa.array(rows, pa.int64()), "place": pa.array(range(len(rows)), pa.int64())})
    tables, start = [], 0
    for size in splits:
        tables.append(table.slice(start, size))
        start += size
    tables.append(table.slice(start))
    found = list(cut(tables, weights, file=file, batch=batch, rows=most))
    assert [(number, part["weight"].to_pylist()) for number, part in found] == slow_cut(rows, file, batch, most)
    assert [place for _, part in found for place in part["place"].to_pylist()] == list(range(len(rows)))


def test_a_heavy_row_is_alone_in_its_file():
    table = pa.table({"weight": [3, 99, 0, 3, 7, 1]})
    found = [(number, part["weight"].to_pylist()) for number, part in cut([table], weights, file=10, batch=10, rows=10)]
    assert found == [(0, [3]), (1, [99]), (2, [0, 3, 7]), (3, [1])]


def test_reads_no_further_than_it_must():
    """A record batch is given out before the next table is asked for more than one beyond it."""
    asked = []

    def tables():
        for number in range(100):
            asked.append(number)
            yield pa.table({"weight": [5]})

    stream = cut(tables(), weights, file=1000, batch=20, rows=10)
    next(stream)
    assert len(asked) == 5
