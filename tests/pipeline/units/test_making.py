"""What a FlatMap returns becomes documents with ids, parents and addresses, or is told as an error of the stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import UnitFailed
from pipeline.schema import DOCUMENT, made_id
from pipeline.stage import FlatMap, Transform
from pipeline.units.bisection import work_through
from pipeline.units.flow import Flow, StageRun
from pipeline.units.making import made_of
from tests.random_examples import examples
from tests.toy import Short, Words, documents


def flow_of(*stages: tuple[str, FlatMap | Short]) -> Flow:
    return Flow([StageRun(name, stage, stage.open()) for name, stage in stages])  # type: ignore[arg-type]


def test_children_have_ids_of_their_own_and_all_else_of_their_parent() -> None:
    docs = documents("f", ["one two", "", "three"]).append_column("score", pa.array([1.5, 2.5, 3.5]))
    made = made_of(docs, Words().open()(docs), "words", Words())
    parents = docs["id"].to_pylist()
    assert made["text"].to_pylist() == ["one", "two", "", "three"]
    assert made["id"].to_pylist() == [made_id(parents[0], 0), made_id(parents[0], 1), parents[1], made_id(parents[2], 0)]
    assert made["parent"].to_pylist() == [parents[0], parents[0], None, parents[2]]
    assert made["drop"].to_pylist() == [None, None, "no_words", None]
    assert made["word"].to_pylist() == [0, 1, None, 0]
    assert made["score"].to_pylist() == [1.5, 1.5, 2.5, 3.5]
    for column in ("url", "file", "offset", "length", "media", "date"):
        assert made[column].to_pylist() == [docs[column].to_pylist()[row] for row in (0, 0, 1, 2)], column
    assert made.column_names == [*DOCUMENT.names, "score", "word", "parent", "drop"]


def test_ids_of_made_documents_are_none_of_read_ones_and_stay_as_they_are() -> None:
    assert made_id("ab", 0) == "0b86458c997db067b544f2773aa469a0", "printf 'ab\\n#0' | b2sum -l 128"
    assert len({made_id(parent, number) for parent in ("a", "a\n#1", "b") for number in range(20)}) == 60


def test_a_second_flat_map_names_the_nearest_parent() -> None:
    docs = documents("f", ["one two"])
    first = made_of(docs, Words().open()(docs), "words", Words()).drop_columns(["drop"])
    second = made_of(first, Words().open()(first), "words-2", Words())
    assert second["parent"].to_pylist() == first["id"].to_pylist()
    assert second["id"].to_pylist() == [made_id(each, 0) for each in first["id"].to_pylist()]
    assert second.column_names == [*first.column_names, "drop"]


@examples(40)
@given(texts=st.lists(st.text("ab !", max_size=8), max_size=12), sizes=st.lists(st.integers(1, 5), min_size=1))
def test_no_split_shows_and_every_document_is_accounted_for(texts: list[str], sizes: list[int]) -> None:
    docs = documents("f", texts)
    whole = flow_of(("words", Words(raise_on="!")), ("short", Short(least=2)))
    apart = flow_of(("words", Words(raise_on="!")), ("short", Short(least=2)))
    cuts, start = [], 0
    while start < len(texts):
        cuts.append(docs.slice(start, sizes[len(cuts) % len(sizes)]))
        start += cuts[-1].num_rows
    schema = whole.schema(DOCUMENT.empty_table()).schema
    found = pa.concat_tables([schema.empty_table(), *whole.stream(iter([(0, docs)] if texts else []))])
    pieces = pa.concat_tables([schema.empty_table(), *apart.stream(iter(enumerate(cuts)))])
    assert pieces.to_pylist() == found.to_pylist()
    for one, other in zip(whole.runs, apart.runs, strict=True):
        assert one.tally.balanced() and one.tally.made == other.tally.made and one.tally.dropped == other.tally.dropped
    words = [text.split() for text in texts if "!" not in text]
    tally = whole.runs[0].tally
    assert tally.made == sum(max(0, len(each) - 1) for each in words)
    assert tally.dropped.total() == sum(not each for each in words)
    assert tally.quarantined.total() == sum("!" in text for text in texts)
    assert tally.kept == sum(map(len, words))


def test_one_that_raises_is_found_and_the_others_make_theirs() -> None:
    docs = documents("f", ["a b", "boom c", "d"])
    done = work_through("words", Words(raise_on="boom"), Words(raise_on="boom").open(), docs, {}, None, careful=False)
    assert done.table["text"].to_pylist() == ["a", "b", "d"]
    (lost,) = done.lost
    assert lost["id"].to_pylist() == [docs["id"][1].as_py()]
    assert done.made == done.table.num_rows + lost.num_rows - docs.num_rows == 1


def test_a_row_that_is_the_parent_keeps_its_id_and_its_own_parent() -> None:
    docs = documents("f", ["a", "b"])
    given = docs.append_column("parent", pa.array(["p", None], pa.string()))
    stage = Lies(rows=rows([0, 0, 1, 1], itself=pa.array([True, None, False, True])))
    out = made_of(given, stage.rows, "s", stage)
    first, second = docs["id"].to_pylist()
    assert out["id"].to_pylist() == [first, made_id(first, 1), made_id(second, 0), second]
    assert out["parent"].to_pylist() == ["p", first, second, None]
    assert "itself" not in out.column_names


@dataclass(frozen=True, kw_only=True)
class Lies(FlatMap):
    """Returns a table that is given to it."""

    rows: pa.Table

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"n": pa.int8()}

    def open(self) -> Transform:
        return lambda docs: self.rows


def rows(parents: list[int | None], **columns: pa.Array) -> pa.Table:
    own = {
        "parent_row": pa.array(parents, pa.int64()),
        "text": pa.array(["t"] * len(parents), pa.string()),
        "n": pa.nulls(len(parents), pa.int8()),
    }
    return pa.table({**own, **columns})


LIES: dict[str, tuple[pa.Table, str]] = {
    "twice": (rows([0, 1, 2]).append_column("text", pa.array(["x", "y", "z"])), "it has column 'text' twice"),
    "outside": (rows([0, 1, 2, 3]), "parent_row is 3, there are 3 documents, numbered from 0"),
    "below": (rows([-1, 0, 1, 2]), "parent_row is -1, there are 3"),
    "backwards": (rows([0, 2, 1]), "parent_row goes back from 2; rows stand in the order of their parents"),
    "silent": (rows([0, 2]), "document 1 of 3 has no row; where nothing is made there is one with a reason in drop or error"),
    "none": (rows([]), "document 0 of 3 has no row"),
    "null": (rows([0, None, 2]), "parent_row is int64 with 1 nulls, expected int64 without"),
    "type": (rows([0, 1, 2], parent_row=pa.array([0, 1, 2], pa.int32())), "parent_row is int32 with 0 nulls"),
    "no parents": (rows([0, 1, 2]).drop_columns(["parent_row"]), "it does not give column 'parent_row'; it gives text, n"),
    "no text": (rows([0, 1, 2]).drop_columns(["text"]), "it does not give column 'text'"),
    "undeclared": (rows([0, 1, 2], id=pa.array(["a", "b", "c"])), "it gives column 'id'; it may give parent_row, text, n, media"),
    "keeps back": (rows([0, 1, 2]).drop_columns(["n"]), "it does not give column 'n'"),
    "twice itself": (rows([0, 1, 1, 2], itself=pa.array([True, True, True, False])), "document 1 of 3 has several rows that are"),
    "not told": (rows([0, 1, 2], itself=pa.array(["a", "b", "c"])), "its column 'itself' is string, expected bool"),
    "typeless": (rows([0, 1, 2], drop=pa.nulls(3)), "its column 'drop' is null, expected string"),
    "large": (rows([0, 1, 2], text=pa.array(["a"] * 3, pa.large_string())), "its column 'text' is large_string, expected string"),
    "textless": (
        rows([0, 1, 2], text=pa.array(["a", None, "c"])),
        "text of 1 documents is null; it may be in rows with a reason",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_flat_map_that_lies_is_an_error_of_the_stage(lie: str) -> None:
    stage = Lies(rows=LIES[lie][0])
    with pytest.raises(UnitFailed, match="stage 'lies' breaks its contract: ") as raised:
        work_through("lies", stage, stage.open(), documents("f", ["a", "b", "c"]), {}, None, careful=False)
    assert LIES[lie][1] in str(raised.value)


def test_a_row_with_a_reason_has_its_parents_text_where_it_has_none() -> None:
    docs = documents("f", ["a", "b", "c"])
    told = pa.array([None, "bad: it is", None], pa.string())
    stage = Lies(rows=rows([0, 1, 2], text=pa.array(["x", None, "z"]), error=told))
    flow = flow_of(("lies", stage))
    flow.runs[0].measure = lambda table: None  # type: ignore[method-assign]
    (out,) = flow.stream(iter([(0, docs)]))
    assert out["text"].to_pylist() == ["x", "z"]
    (lost,) = flow.quarantined().to_pylist()
    assert (lost["id"], lost["reason"]) == (docs["id"][1].as_py(), "bad")
    made = made_of(docs, stage.rows, "lies", stage)
    assert made["text"].to_pylist() == ["x", "b", "z"]
    assert pc.is_null(made["parent"]).to_pylist() == [False, True, False]
