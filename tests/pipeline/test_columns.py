"""A stage is held to the columns that it declares: before any document is worked on, and when the build is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from gristmill.errors import ConfigError, UnitFailed
from gristmill.storage.store import expand
from pipeline.engines.drive import Options, drive
from pipeline.engines.failure import Failure
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from pipeline.planning.plan_check import column_faults, order_faults
from pipeline.schema import DOCUMENT, undeclared
from pipeline.stage import Map, Named, Source, Stage, Transform
from pipeline.units.flow import Flow, StageRun
from tests.toy import Files, Lines, Upper, Words, documents

Change = Callable[[pa.Table], pa.Table]


def nulls(name: str, kind: pa.DataType) -> Change:
    return lambda docs: docs.append_column(name, pa.nulls(docs.num_rows, kind))


CHANGES: dict[str, tuple[Change, str]] = {
    "loses": (lambda docs: docs.drop_columns(["url"]), "it lost column 'url'"),
    "adds": (nulls("zzz", pa.string()), "it added column 'zzz', which it does not declare"),
    "keeps back": (lambda docs: docs.drop_columns(["q"]), "it did not add column 'q', which it declares"),
    "retypes its own": (
        lambda docs: nulls("q", pa.float64())(docs.drop_columns(["q"])),
        "its column 'q' is double, expected float",
    ),
    "retypes another": (
        lambda docs: nulls("url", pa.int8())(docs.drop_columns(["url"])),
        "its column 'url' is int8, expected string",
    ),
    "doubles": (nulls("url", pa.string()), "it has column 'url' twice"),
    "renames": (
        lambda docs: docs.rename_columns(["uri" if name == "url" else name for name in docs.column_names]),
        "it lost column 'url'; it added column 'uri', which it does not declare",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Odd(Map):
    """Adds `q`, and does something else to the columns: always, or only where there are documents."""

    how: str = ""
    only_documents: bool = False

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"q": pa.float32()}

    def open(self) -> Transform:
        change = CHANGES[self.how][0] if self.how else lambda docs: docs

        def work(docs: pa.Table) -> pa.Table:
            if not docs.num_rows:
                assert docs.column_names, "the machine gives a table of no rows, not of no columns"
            docs = nulls("q", pa.float32())(docs)
            return docs if self.only_documents and not docs.num_rows else change(docs)

        return work


@pytest.mark.parametrize("how", CHANGES)
def test_a_schema_that_breaks_the_word_is_told_in_words(how: str) -> None:
    stage = Odd(how=how)
    run = StageRun("odd", stage, stage.open())
    with pytest.raises(UnitFailed, match="stage 'odd' breaks its contract: ") as raised:
        Flow([run]).schema(DOCUMENT.empty_table())
    assert CHANGES[how][1] in str(raised.value)
    assert run.tally.entered == 0


def test_a_stage_that_keeps_its_contract_may_reorder_and_decide() -> None:
    before = pa.schema([("a", pa.int8()), ("b", pa.string())])
    after = pa.schema([("b", pa.string()), ("drop", pa.string()), ("q", pa.int8()), ("a", pa.int8()), ("error", pa.string())])
    assert undeclared(before, after, {"q": pa.int8()}) == []
    assert undeclared(before, pa.schema([("a", pa.int16()), ("b", pa.string())]), {"a": pa.int16()}) == []


def test_types_that_come_with_documents_are_noticed_on_every_table() -> None:
    first = documents("f", ["a"])
    tables = [first, nulls("url", pa.int8())(first.drop_columns(["url"]))]
    run = StageRun("odd", Odd(), Odd().open())
    flow = Flow([run])
    flow.schema(DOCUMENT.empty_table().select([*(name for name in DOCUMENT.names if name != "url"), "url"]))
    with pytest.raises(
        UnitFailed,
        match=r"stage 'odd' makes another table of documents than of none: its column 'url' is int8, expected string; a",
    ):
        list(flow.stream(enumerate([tables[0].select([*tables[1].column_names]), tables[1]])))
    assert run.tally.entered == 2, "the first table was as it should be"


def test_the_order_of_columns_does_not_come_with_the_documents() -> None:
    work = Odd().open()

    def turned(docs: pa.Table) -> pa.Table:
        made = work(docs)
        return made.select(made.column_names[:: -1 if docs.num_rows else 1])

    flow = Flow([StageRun("odd", Odd(), turned)])
    flow.schema(DOCUMENT.empty_table())
    with pytest.raises(
        UnitFailed, match=r"stage 'odd' makes .* its columns are in the order \['q', 'text', .*, expected \['id', "
    ):
        list(flow.stream(iter([(0, documents("f", ["a"]))])))


@pytest.mark.parametrize(
    ("how", "says"), [("loses", "it lost column"), ("adds", "it added column"), ("keeps back", "it lost column")]
)
def test_columns_that_come_with_the_documents_are_noticed(how: str, says: str) -> None:
    stage = Odd(how=how, only_documents=True)
    flow = Flow([StageRun("odd", stage, stage.open())])
    flow.schema(DOCUMENT.empty_table())
    with pytest.raises(UnitFailed, match=f"stage 'odd' makes another table of documents than of none: {says} "):
        list(flow.stream(iter([(0, documents("f", ["a"]))])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_build_ends_with_the_name_of_the_stage(workers: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    inputs = expand(str(tmp_path / "*.txt"))
    stages = [("lines", Lines(paths="")), ("odd", Odd(how="loses")), ("files", Files())]
    outcome = drive(make_plan("t", stages, inputs), lambda: LocalEngine(workers), Options(str(tmp_path / "out")))
    ((_, label, failure),) = outcome.failures
    assert label == "a.txt" and isinstance(failure, Failure)
    assert (
        failure.message.startswith("stage 'odd' breaks its contract: it lost column 'url'") and "Traceback" not in failure.message
    )


@dataclass(frozen=True, kw_only=True)
class Again(Upper):
    """Adds the column of `Upper`, in its place."""

    def replaces(self) -> tuple[str, ...]:
        return ("size",)


@dataclass(frozen=True, kw_only=True)
class Urls(Map):
    """Gives a column that every document has."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"url": pa.string()}


@dataclass(frozen=True, kw_only=True)
class Sized(Lines):
    """A source that was asked for a column."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"size": pa.int32()}


@dataclass(frozen=True, kw_only=True)
class Needs(Map):
    """Needs columns that others give."""

    columns: tuple[str, ...]

    def needs(self) -> tuple[str, ...]:
        return self.columns


@dataclass(frozen=True, kw_only=True)
class Parents(Map):
    """Gives the column of documents that are made of others."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {"parent": pa.string()}


@dataclass(frozen=True, kw_only=True)
class WordsOfParents(Words):
    """Declares the column that the machine gives to documents that are made of others."""

    def adds(self) -> Mapping[str, pa.DataType]:
        return {**super().adds(), "parent": pa.string()}


def told(*between: tuple[str, Stage], source: Source | None = None) -> list[tuple[int, str]]:
    stages = [("lines", source or Lines(paths="")), *between, ("files", Files())]
    return [(fault.at, fault.message) for check in (order_faults, column_faults) for fault in check(stages)]


def test_a_column_has_one_giver_unless_the_later_says_that_it_replaces_it() -> None:
    assert told(("upper", Upper()), ("again", Again())) == []
    ((at, message),) = told(("again", Again()), ("upper", Upper()))
    assert at == 2 and message.startswith(
        "stage 'upper' adds column 'size', which stage 'again' gives already; give one of the two"
    )
    ((at, message),) = told(("urls", Urls()))
    assert at == 1 and message.startswith("stage 'urls' adds column 'url', which source 'lines' gives already")


def test_what_a_source_was_asked_for_is_replaced_by_nobody() -> None:
    ((at, message),) = told(("again", Again()), source=Sized(paths=""))
    assert at == 1 and message.startswith("stage 'again' adds column 'size', which source 'lines' gives already")


def test_what_a_sink_makes_itself_is_given_by_nobody() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Sizing(Files):
        makes: ClassVar[tuple[str, ...]] = ("size",)

    def said(*stages: Named) -> list[tuple[int, str]]:
        return [(fault.at, fault.message) for fault in column_faults([*stages, ("sizing", Sizing())])]

    assert said(("lines", Lines(paths=""))) == []
    by_stage = "stage 'sizing' makes column 'size' itself, which stage 'upper' gives already; "
    by_stage += "give the column of stage 'upper' another name"
    assert said(("lines", Lines(paths="")), ("upper", Upper())) == [(2, by_stage)]
    assert said(("lines", Sized(paths=""))) == [(1, by_stage.replace("stage 'upper'", "source 'lines'"))]


def test_parents_are_given_by_flat_maps_alone() -> None:
    assert told(("words", Words()), ("needs", Needs(columns=("parent", "word")))) == []
    said = "adds column 'parent', which the machine gives or takes itself; call it something else"
    assert told(("words", Words()), ("parents", Parents())) == [(2, f"stage 'parents': it {said}")]
    assert told(("again", WordsOfParents()), ("words", Words())) == [(1, f"stage 'again': it {said}")]
    (again,) = told(("words", Words()), ("words-2", Words()))
    assert again[1].startswith("stage 'words-2' adds column 'word'"), "its own column, not that of parents"


def test_a_column_is_there_before_it_is_needed() -> None:
    sizes = Needs(columns=("url", "size"))
    assert told(("upper", Upper()), ("needs", sizes)) == []
    assert told(("needs", sizes)) == [(1, "stage 'needs' needs column 'size', which no stage above it adds")]
    assert told(("needs", sizes), ("upper", Upper())) == [
        (1, "stage 'needs' needs column 'size', which is added by stage 'upper'; put it before 'needs'")
    ]


def test_a_plan_made_in_python_is_checked_too() -> None:
    stages = [("lines", Lines(paths="")), ("again", Again()), ("upper", Upper()), ("files", Files())]
    with pytest.raises(ConfigError, match=r"^stage 'upper' adds column 'size', which stage 'again' gives already"):
        make_plan("t", stages, [])


SAYINGS: dict[str, tuple[str, object, str]] = {
    "a list": ("adds", ["q"], "its adds() returns ['q'], expected a mapping of columns to types of pyarrow"),
    "nothing": ("adds", None, "its adds() returns None, expected a mapping"),
    "a type in words": ("adds", {"q": "float"}, "its adds() returns {'q': 'float'}, expected a mapping"),
    "letters": ("needs", "url", "its needs() returns 'url', expected a tuple of columns"),
    "letters replaced": ("replaces", "q", "its replaces() returns 'q', expected a tuple of columns"),
    "a decision": ("adds", {"drop": pa.string()}, "it adds column 'drop', which the machine gives or takes itself"),
    "a name": ("adds", {"id": pa.string()}, "it adds column 'id', which the machine gives or takes itself"),
}


@pytest.mark.parametrize("case", SAYINGS)
def test_what_a_stage_says_of_its_columns_in_another_form_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, said, told = SAYINGS[case]
    monkeypatch.setattr(Odd, method, lambda self: said)
    stages: list[Named] = [("lines", Lines(paths="x")), ("odd", Odd()), ("files", Files())]
    (fault,) = column_faults(stages)
    assert fault.at == 1 and fault.message.startswith(f"stage 'odd': {told}"), fault
