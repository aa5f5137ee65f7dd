"""Columns of documents: ids by address, what a stage must keep and add, and what is said of one that does not."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest

from pipeline.schema import check, document_id, made_id, undecided, undeclared

GIVEN = pa.schema([("text", pa.string()), ("score", pa.float32())])


def test_ids_are_of_the_address_and_those_of_made_documents_of_the_parent() -> None:
    assert document_id("a.warc.gz", 7) == hashlib.blake2b(b"a.warc.gz\n7", digest_size=16).hexdigest()
    parent = document_id("a", 1)
    ids = [
        parent,
        document_id("a", 11),
        document_id("a1", 1),
        made_id(parent, 0),
        made_id(parent, 1),
        made_id(made_id(parent, 0), 0),
    ]
    assert len(set(ids)) == len(ids) and all(len(each) == 32 for each in ids)


def test_decisions_are_taken_off() -> None:
    table = pa.table({"text": ["a"], "drop": ["short"], "error": [None]})
    assert undecided(table).column_names == ["text"]


@pytest.mark.parametrize(
    ("after", "odd"),
    [
        ([*GIVEN, pa.field("language", pa.string()), pa.field("drop", pa.string())], []),
        ([*GIVEN], ["it did not add column 'language', which it declares"]),
        ([GIVEN.field(0), pa.field("language", pa.string())], ["it lost column 'score'"]),
        ([*GIVEN, pa.field("language", pa.int8())], ["its column 'language' is int8, expected string"]),
        (
            [*GIVEN, pa.field("language", pa.string()), pa.field("more", pa.int8())],
            ["it added column 'more', which it does not declare"],
        ),
        ([*GIVEN, GIVEN.field(0), pa.field("language", pa.string())], ["it has column 'text' twice"]),
    ],
)
def test_what_a_stage_does_with_columns_is_what_it_declares(after: list[pa.Field], odd: list[str]) -> None:
    assert undeclared(GIVEN, pa.schema(after), {"language": pa.string()}) == odd


def test_a_table_without_what_is_required_is_a_bug_of_the_stage_that_is_named() -> None:
    required = pa.schema([pa.field("text", pa.string(), nullable=False), ("score", pa.float32())])
    check(pa.table({"text": ["a"], "score": pa.array([None], pa.float32())}), required, "language")
    with pytest.raises(AssertionError, match=r"language: no column 'score'; found \['text'\]"):
        check(pa.table({"text": ["a"]}), required, "language")
    with pytest.raises(AssertionError, match="language: column 'score' is double, expected float"):
        check(pa.table({"text": ["a"], "score": [1.0]}), required, "language")
    with pytest.raises(AssertionError, match="language: column 'text' has 1 nulls"):
        check(pa.table({"text": ["a", None], "score": pa.array([1, 2], pa.float32())}), required, "language")
