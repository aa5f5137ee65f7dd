"""Rows that are lost: their addresses are kept, and what stages said of them."""

from __future__ import annotations

import json

import pyarrow as pa

from pipeline.schema import PARENT
from pipeline.units.lost import LOST, details_of, lost_rows, lost_table
from tests.toy import documents


def test_a_lost_row_keeps_its_address_with_stage_and_reason() -> None:
    docs = documents("a.txt", ["one", "two"])
    rows = lost_rows(docs, "short", ["too_short", "odd"], ["{}", "x"])
    assert rows.schema == LOST
    for name in ("id", "url", "file", "offset", "length"):
        assert rows.column(name).to_pylist() == docs.column(name).to_pylist()
    assert [rows.column(name).to_pylist() for name in ("stage", "reason", "detail")] == [
        ["short", "short"],
        ["too_short", "odd"],
        ["{}", "x"],
    ]
    assert rows.column(PARENT).to_pylist() == [None, None]


def test_a_document_that_was_made_keeps_its_parent() -> None:
    docs = documents("a.txt", ["one"]).append_column(PARENT, pa.array(["p"]))
    assert lost_rows(docs, "short", ["x"], ["{}"]).column(PARENT).to_pylist() == ["p"]


def test_details_are_the_small_columns_that_stages_added() -> None:
    docs = documents("a.txt", ["one", "two"])
    assert details_of(docs) == ["{}", "{}"]
    docs = docs.append_column("score", pa.array([0.5, None])).append_column("word", pa.array(["é", "b"]))
    docs = docs.append_column("ids", pa.array([[1], [2]])).append_column("drop", pa.array(["x", "x"]))
    assert [json.loads(each) for each in details_of(docs)] == [{"score": 0.5, "word": "é"}, {"score": None, "word": "b"}]
    assert "é" in details_of(docs)[0], "as it is, not escaped"


def test_tables_of_lost_rows_are_one_and_none_have_the_schema() -> None:
    rows = lost_rows(documents("a.txt", ["one"]), "s", ["r"], ["d"])
    assert lost_table([rows, rows]).num_rows == 2
    assert lost_table([]).schema == LOST
