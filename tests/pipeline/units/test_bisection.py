"""One stage on one table: which documents are lost where it raises, in what order the others come, and what stops a unit."""

from __future__ import annotations

import errno
import weakref
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from gristmill.errors import StoreFull, UnitFailed
from pipeline.stage import Stage
from pipeline.units.bisection import StageResult, Watch, work_through
from tests.toy import Short, Upper, documents


def through(
    stage: Stage,
    texts: list[str],
    *,
    work: Callable[[pa.Table], Any] | None = None,
    poison: dict[str, tuple[str, str]] | None = None,
    watch: Watch | None = None,
    careful: bool = False,
) -> StageResult:
    return work_through("it", stage, work or stage.open(), documents("a.txt", texts), poison or {}, watch, careful)


def lost(result: StageResult) -> list[tuple[int, str, str, str]]:
    rows = pa.concat_tables(result.lost).to_pylist()
    return [(row["offset"], row["stage"], row["reason"], row["detail"]) for row in rows]


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("bad", [[0], [4], [1, 2], [0, 2, 4], [0, 1, 2, 3, 4]])
def test_documents_that_raise_are_lost_and_the_others_keep_their_order(bad: list[int], careful: bool) -> None:
    texts = [f"boom {row}" if row in bad else f"good {row}" for row in range(5)]
    result = through(Upper(), texts, careful=careful)
    assert result.table.column("text").to_pylist() == [text.upper() for text in texts if "boom" not in text]
    assert lost(result) == [(row, "it", "RuntimeError", f"RuntimeError: cannot take 'boom {row}'") for row in bad]
    assert result.error == f"RuntimeError: cannot take 'boom {bad[0]}'", "the first"


def test_what_it_works_on_is_told_before_and_a_document_alone_by_its_name() -> None:
    told: list[tuple[str, str | None]] = []
    ids = documents("a.txt", ["aa", "boom", "cc"]).column("id").to_pylist()
    through(Upper(), ["aa", "boom", "cc"], watch=lambda name, document: told.append((name, document)))
    assert told == [("it", None), ("it", ids[0]), ("it", None), ("it", ids[1]), ("it", ids[2])], "halves of what raised"
    told.clear()
    through(Upper(), ["aa", "bb", "cc"], watch=lambda name, document: told.append((name, document)), careful=True)
    assert told == [("it", each) for each in ids]


def test_one_bad_document_among_many_is_found_by_halves() -> None:
    sizes: list[int] = []

    def work(docs: pa.Table) -> pa.Table:
        sizes.append(docs.num_rows)
        return Upper().open()(docs)

    result = through(Upper(), [*["good"] * 63, "boom"], work=work)
    assert result.table.num_rows == 63 and sizes == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_a_document_that_killed_a_process_here_is_lost_before_the_stage_sees_it() -> None:
    ids = documents("a.txt", ["aa", "bb", "cc"]).column("id").to_pylist()
    seen: list[str] = []

    def work(docs: pa.Table) -> pa.Table:
        seen.extend(docs.column("id").to_pylist())
        return docs

    result = through(Upper(), ["aa", "bb", "cc"], work=work, poison={ids[1]: ("it", "killed"), ids[2]: ("another", "killed")})
    assert seen == [ids[0], ids[2]]
    assert lost(result) == [(1, "it", "killed", "killed: the process ended on it")]


def test_an_empty_table_goes_through_for_its_schema() -> None:
    assert through(Upper(), []).table.schema.field("size").type == pa.int32()


def test_a_filter_decides_on_the_rows_that_did_not_raise() -> None:
    def judge(docs: pa.Table) -> pa.Array:
        texts = docs.column("text").to_pylist()
        if "boom" in texts:
            raise RuntimeError
        return pa.array([None if len(text) > 3 else "too_short" for text in texts], pa.string())

    result = through(Short(), ["long", "boom", "s"], work=judge)
    assert result.table.column("drop").to_pylist() == [None, "too_short"]
    assert lost(result) == [(1, "it", "RuntimeError", "RuntimeError")]


def test_pieces_with_and_without_decisions_come_together() -> None:
    def work(docs: pa.Table) -> pa.Table:
        if docs.num_rows > 1:
            raise RuntimeError("one at a time")
        return docs.append_column("drop", pa.array(["odd"])) if docs.column("text")[0].as_py() == "b" else docs

    assert through(Upper(), ["a", "b", "c"], work=work).table.column("drop").to_pylist() == [None, "odd", None]


@pytest.mark.parametrize(
    ("stage", "work", "said"),
    [
        (Short(), lambda docs: pa.array(["x"]), "it returned 1 values of type string for 2 documents"),
        (Short(), lambda docs: pa.array([1, 2]), "it returned 2 values of type int64 for 2 documents"),
        (Upper(), lambda docs: [docs], "it returned builtins.list, expected a pyarrow.Table"),
        (Upper(), lambda docs: docs.slice(1), "it returned 1 rows for 2 documents"),
        (Upper(), lambda docs: docs.append_column("drop", pa.array([1, 2])), "its column 'drop' is int64, expected string"),
    ],
    ids=["too few", "numbers", "a list", "a row less", "a number as decision"],
)
def test_a_stage_that_breaks_its_word_fails_the_unit(stage: Stage, work: Callable[[pa.Table], Any], said: str) -> None:
    with pytest.raises(UnitFailed) as raised:
        through(stage, ["aaaa", "bbbb"], work=work)
    assert "stage 'it' breaks its contract" in str(raised.value) and said in str(raised.value)


def test_a_full_disk_and_an_interruption_are_no_documents_fault() -> None:
    def full(docs: pa.Table) -> pa.Table:
        raise OSError(errno.ENOSPC, "no space")

    def interrupted(docs: pa.Table) -> pa.Table:
        raise KeyboardInterrupt

    with pytest.raises(StoreFull, match="no space left while it ran"):
        through(Upper(), ["aa", "bb"], work=full)
    with pytest.raises(KeyboardInterrupt):
        through(Upper(), ["aa", "bb"], work=interrupted)


def test_what_a_document_filled_is_free_before_the_next_piece_of_work() -> None:
    """Where memory ran out, the exception holds what filled it: others would die for want of memory."""

    class Filling:
        pass

    held: list[weakref.ref[Filling]] = []

    def work(docs: pa.Table) -> pa.Table:
        assert all(filling() is None for filling in held), "the piece before still holds its memory"
        if "fill" in docs.column("text").to_pylist():
            filling = Filling()
            held.append(weakref.ref(filling))
            raise MemoryError
        return Upper().open()(docs)

    result = through(Upper(), ["aa", "fill", "cc", "dd"], work=work)
    assert result.table.column("text").to_pylist() == ["AA", "CC", "DD"] and len(held) == 3
    assert lost(result) == [(1, "it", "MemoryError", "MemoryError")]
