"""Tables through the stages of a segment: decisions taken out and counted, documents that raise found, tables in order."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gristmill.errors import StoreError, StoreFull, UnitFailed
from pipeline.schema import DOCUMENT
from pipeline.stage import Filter, Map, Stage, Transform
from pipeline.units.bisection import StageResult, work_through
from pipeline.units.flow import SYSTEMATIC, Flow, StageRun
from tests.toy import Short, Upper, Words, documents


@dataclass(frozen=True, kw_only=True)
class Decides(Map):
    """Decides by the text: `drop x`, `error x`, and raises what `raises` holds for it."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"n": pa.int64()}

    def measures(self) -> tuple[str, ...]:
        return ("n",)

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            texts = docs["text"].to_pylist()
            for text in texts:
                if text in RAISES:
                    raise RAISES[text]
            docs = docs.append_column("n", pc.utf8_length(docs["text"]).cast(pa.int64()))
            for name in ("drop", "error"):
                said = [text.removeprefix(f"{name} ") if text.startswith(f"{name} ") else None for text in texts]
                docs = docs.append_column(name, pa.array(said, pa.string()))
            return docs

        return work


RAISES: dict[str, BaseException] = {
    "value": ValueError("bad_value: too bad"),
    "full": OSError(errno.ENOSPC, "no space"),
    "store": StoreError("the store is away"),
    "end": KeyboardInterrupt(),
}


def run_of(name: str, stage: Stage, work: Transform | None = None) -> StageRun:
    return StageRun(name, stage, work or stage.open())  # type: ignore[attr-defined]


def through(flow: Flow, *texts: list[str]) -> list[list[str]]:
    """Return the texts of the tables that come out."""
    start, tables = 0, []
    for number, each in enumerate(texts):
        tables.append((number, documents("f", each, start)))
        start += len(each)
    return [table["text"].to_pylist() for table in flow.stream(iter(tables))]


def test_decisions_are_taken_out_counted_and_kept_with_what_is_known() -> None:
    flow = Flow([run_of("decides", Decides()), run_of("short", Short(least=3))])
    assert through(flow, ["drop why", "fine", "error bad: 7 of 9"], ["drop why", "no"], ["drop other"]) == [["fine"]]
    tally, short = flow.runs[0].tally, flow.runs[1].tally
    assert (tally.entered, tally.kept, tally.dropped, tally.quarantined) == (6, 2, {"why": 2, "other": 1}, {"bad": 1})
    assert (short.entered, short.kept, short.dropped) == (2, 1, {"too_short": 1})
    dropped = flow.dropped().to_pylist()
    assert [(row["offset"], row["stage"], row["reason"]) for row in dropped] == [
        (0, "decides", "why"),
        (3, "decides", "why"),
        (4, "short", "too_short"),
        (5, "decides", "other"),
    ]
    assert json.loads(dropped[0]["detail"]) == {"n": 8} and dropped[0]["parent"] is None
    (lost,) = flow.quarantined().to_pylist()
    assert (lost["reason"], lost["detail"]) == ("bad", "bad: 7 of 9")
    assert flow.runs[0].measures["n"].count == 2, "of what is kept"
    flow.finish()


@pytest.mark.parametrize("careful", [False, True])
def test_documents_that_raise_are_found_and_the_others_go_on(careful: bool) -> None:
    flow = Flow([run_of("decides", Decides())], careful=careful)
    assert through(flow, ["a", "value", "b", "c", "value"], ["value"]) == [["a", "b", "c"]]
    assert flow.runs[0].tally.quarantined == {"ValueError": 3} and flow.runs[0].tally.balanced()
    assert [row["offset"] for row in flow.quarantined().to_pylist()] == [1, 4, 5]
    assert flow.first_error == {"decides": "ValueError: bad_value: too bad"}


def test_a_stage_that_raises_on_everything_is_broken() -> None:
    flow = Flow([run_of("decides", Decides())])
    through(flow, ["value"] * (SYSTEMATIC - 1))
    flow.finish()
    flow = Flow([run_of("decides", Decides())])
    through(flow, ["value"] * SYSTEMATIC)
    with pytest.raises(
        UnitFailed, match=f"stage decides raised on each of {SYSTEMATIC} documents: ValueError: bad_value: too bad"
    ):
        flow.finish()


@pytest.mark.parametrize(("text", "kind"), [("full", StoreFull), ("store", StoreError), ("end", KeyboardInterrupt)])
def test_what_is_no_documents_fault_ends_the_unit(text: str, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        through(Flow([run_of("decides", Decides())]), ["a", text])


def test_a_document_that_killed_its_process_is_lost_where_it_did() -> None:
    docs = documents("f", ["abcd", "efgh"])
    killer = docs["id"][0].as_py()
    for stage, others in (("short", ["EFGH"]), ("upper", ["EFGH"]), ("elsewhere", ["ABCD", "EFGH"])):
        flow = Flow([run_of("upper", Upper()), run_of("short", Short())], {killer: (stage, "killed_by_SIGSEGV")})
        assert through(flow, ["abcd", "efgh"]) == [others]
        assert sum(run.tally.quarantined["killed_by_SIGSEGV"] for run in flow.runs) == (stage != "elsewhere")
        flow.finish()


def test_each_piece_of_work_is_told_before_it_and_single_documents_by_name() -> None:
    told: list[tuple[str, str | None]] = []
    docs = documents("f", ["a", "b"])
    for careful, expected in ((False, [None]), (True, docs["id"].to_pylist())):
        told.clear()
        work_through("upper", Upper(), Upper().open(), docs, {}, lambda *where: told.append(where), careful)
        assert told == [("upper", name) for name in expected]


def test_an_empty_table_tells_the_schema_and_is_not_counted() -> None:
    flow = Flow([run_of("words", Words()), run_of("upper", Upper()), run_of("short", Short())])
    assert flow.schema(DOCUMENT.empty_table()).column_names == [*DOCUMENT.names, "word", "parent", "size"]
    assert through(flow, []) == [] and all(run.tally.entered == 0 for run in flow.runs)


class Slow:
    """A pool that answers only when it must, and notes how many tables it has."""

    batch_rows: int | None = None

    def __init__(self, work: Callable[[pa.Table], StageResult], ahead: int) -> None:
        self.work, self.ahead = work, ahead
        self.under_way, self.most = 0, 0

    def submit(self, table: pa.Table) -> Callable[[], StageResult]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)

        def wait() -> StageResult:
            self.under_way -= 1
            return self.work(table)

        return wait


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_a_pool_has_a_bounded_number_of_tables_and_leaves_no_trace(ahead: int) -> None:
    def work(table: pa.Table) -> StageResult:
        return work_through("words", Words(raise_on="!"), Words(raise_on="!").open(), table, {}, None, careful=False)

    texts = [["ab c", "de"], ["", "!"], ["fg hi jk"], ["l"], ["mn"]]
    pool = Slow(work, ahead)
    apart = Flow([StageRun("words", Words(), pool=pool), run_of("short", Short(least=2))])
    whole = Flow([run_of("words", Words(raise_on="!")), run_of("short", Short(least=2))])
    for flow in (apart, whole):
        flow.schema(DOCUMENT.empty_table())
    assert through(apart, *texts) == through(whole, *texts) == [["ab", "de"], ["fg", "hi", "jk"], ["mn"]]
    assert pool.most == min(ahead, 5)
    for one, other in zip(apart.runs, whole.runs, strict=True):
        assert counts(one) == counts(other) and one.tally.balanced()
    assert apart.dropped().equals(whole.dropped()) and apart.quarantined().equals(whole.quarantined())
    assert apart.runs[0].tally.made == 1 + 2, "beyond one each"


def counts(run: StageRun) -> dict[str, Any]:
    return {key: value for key, value in run.tally.plain().items() if key not in ("cpu_s", "wall_s")}


@dataclass(frozen=True, kw_only=True)
class _Own(Map):
    """A map whose function is given where it is used."""


@dataclass(frozen=True, kw_only=True)
class _OwnFilter(Filter):
    """The same, a filter."""


DOCS = documents("f", ["one", "two"])


@pytest.mark.parametrize(
    ("stage", "returned", "said"),
    [
        (_Own(), None, "it returned builtins.NoneType, expected a pyarrow.Table"),
        (Words(), {"text": ["one"]}, "it returned builtins.dict, expected a pyarrow.Table"),
        (_Own(), DOCS.slice(1), "it returned 1 rows for 2 documents"),
        (_Own(), DOCS.append_column("drop", pa.array([True, False])), "its column 'drop' is bool, expected string"),
        (_Own(), DOCS.append_column("error", pa.array([1, 2])), "its column 'error' is int64, expected string"),
        (_OwnFilter(), pa.array([True, False]), "it returned 2 values of type bool for 2 documents, not as many strings"),
        (_OwnFilter(), pa.array(["short"]), "it returned 1 values of type string for 2 documents"),
        (_OwnFilter(), [None, None], "it returned builtins.list for 2 documents"),
    ],
)
def test_what_is_no_result_of_such_a_stage_ends_the_unit_and_is_told(stage: Stage, returned: Any, said: str) -> None:
    with pytest.raises(UnitFailed, match=re.escape(f"stage 'own' breaks its contract: {said}")):
        work_through("own", stage, lambda docs: returned, DOCS, {}, None, careful=False)


@pytest.mark.parametrize("careful", [False, True])
def test_a_decision_column_may_be_there_where_something_is_decided_alone(careful: bool) -> None:
    """The tables of one that raises are halved: some of the pieces have the column then, others have none."""

    def work(docs: pa.Table) -> pa.Table:
        texts = docs["text"].to_pylist()
        if "boom" in texts:
            raise RuntimeError("boom")
        reasons = pa.array([text if text == "bad" else None for text in texts])
        return docs.append_column("drop", reasons) if "bad" in texts else docs

    done = work_through("own", _Own(), work, documents("f", ["one", "boom", "bad", "two"]), {}, None, careful)
    assert done.table["text"].to_pylist() == ["one", "bad", "two"]
    assert done.table["drop"].to_pylist() == [None, "bad", None] and done.table.schema.field("drop").type == pa.string()
    assert [lost["reason"].to_pylist() for lost in done.lost] == [["RuntimeError"]]


@dataclass(frozen=True, kw_only=True)
class Swaps(Map):
    """Puts other values into columns that a document has from its source."""

    columns: tuple[str, ...] = ("text",)

    def open(self) -> Transform:
        def work(docs: pa.Table) -> pa.Table:
            for name in self.columns:
                values = OTHER[name](docs)
                docs = docs.set_column(docs.column_names.index(name), name, values) if name in docs.column_names else docs
                docs = docs if name in docs.column_names else docs.append_column(name, values)
            return docs

        return work


OTHER: dict[str, Callable[[pa.Table], pa.Array]] = {
    "text": lambda docs: pa.array([None if text == "b" else text for text in docs["text"].to_pylist()], pa.string()),
    "id": lambda docs: pa.array([each[:-1] + "x" if row else each for row, each in enumerate(docs["id"].to_pylist())]),
    "offset": lambda docs: pa.array([0] * docs.num_rows, pa.int64()),
    "drop": lambda docs: pa.array(["short" if text == "b" else None for text in docs["text"].to_pylist()], pa.string()),
}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (("text",), "stage 'swaps' breaks its contract: 'text' of row 1 (document {1}, 'f' at 1) is null"),
        (("id",), "stage 'swaps' breaks its contract: it changes 'id' of row 1 (document {1}, 'f' at 1) from '{1}' to"),
        (("offset",), "stage 'swaps' breaks its contract: it changes 'offset' of row 1 (document {1}, 'f' at 1) from 1 to 0"),
        (("drop", "text"), None),
    ],
)
def test_a_map_that_takes_the_text_or_the_address_of_a_document_is_refused(columns: tuple[str, ...], said: str | None) -> None:
    flow = Flow([run_of("swaps", Swaps(columns=columns))])
    if said is None:
        assert through(flow, ["a", "b", "c"]) == [["a", "c"]], "what is dropped needs no text"
        return
    with pytest.raises(UnitFailed) as raised:
        through(flow, ["a", "b", "c"])
    assert said.format(*documents("f", ["a", "b", "c"])["id"].to_pylist()) in str(raised.value)


def test_stages_behind_one_that_makes_documents_get_tables_of_the_size_that_is_asked_for() -> None:
    given: list[int] = []

    def work(docs: pa.Table) -> pa.Table:
        given.append(docs.num_rows)
        return docs

    flow = Flow([run_of("words", Words()), run_of("swaps", Swaps(columns=()), work)], batch_rows=2)
    assert through(flow, ["a b c d e", "f"], ["g"]) == [["a", "b"], ["c", "d"], ["e", "f"], ["g"]]
    assert given == [2, 2, 2, 1]
