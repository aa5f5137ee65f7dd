"""A stage is held to the columns that it declares: before any document is worked on, and when the build is planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import ConfigError, UnitFailed
from gristmill.storage.store import expand
from jobs.build.build import plan_of
from jobs.config.build_config import Build, Run
from pipeline.drive import Options, drive
from pipeline.failure import Failure
from pipeline.flow import Flow, StageRun
from pipeline.local import LocalEngine
from pipeline.plan import given_twice, make_plan
from pipeline.schema import DOCUMENT, undeclared
from pipeline.stage import Map, Transform
from tests.toy import Files, Lines, Upper, documents

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
    with pytest.raises(UnitFailed, match="stage 'odd' breaks its word: ") as raised:
        Flow([run]).schema(DOCUMENT.empty_table())
    assert CHANGES[how][1] in str(raised.value)
    assert run.tally.entered == 0


def test_a_stage_that_keeps_its_word_may_reorder_and_decide() -> None:
    before = pa.schema([("a", pa.int8()), ("b", pa.string())])
    after = pa.schema([("b", pa.string()), ("drop", pa.string()), ("q", pa.int8()), ("a", pa.int8()), ("error", pa.string())])
    assert undeclared(before, after, {"q": pa.int8()}) == []
    assert undeclared(before, pa.schema([("a", pa.int16()), ("b", pa.string())]), {"a": pa.int16()}) == []


@pytest.mark.parametrize("how", ["loses", "adds", "keeps back"])
def test_columns_that_come_with_the_documents_are_noticed(how: str) -> None:
    stage = Odd(how=how, only_documents=True)
    flow = Flow([StageRun("odd", stage, stage.open())])
    flow.schema(DOCUMENT.empty_table())
    with pytest.raises(UnitFailed, match="stage 'odd' gives columns"):
        list(flow.stream(iter([(0, documents("f", ["a"]))])))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_build_ends_with_the_name_of_the_stage(workers: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    inputs = expand(str(tmp_path / "*.txt"))
    stages = [("lines", Lines(paths="")), ("odd", Odd(how="loses")), ("files", Files())]
    outcome = drive(make_plan("t", stages, inputs), lambda: LocalEngine(workers), Options(str(tmp_path / "out")))
    ((_, label, failure),) = outcome.failures
    assert label == "a.txt" and isinstance(failure, Failure)
    assert failure.message.startswith("stage 'odd' breaks its word: it lost column 'url'") and "Traceback" not in failure.message


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


def test_a_column_has_one_giver_unless_the_later_says_that_it_replaces_it() -> None:
    lines, files = ("lines", Lines(paths="")), ("files", Files())
    assert list(given_twice([lines, ("upper", Upper()), ("again", Again()), files])) == []
    assert list(given_twice([lines, ("again", Again()), ("upper", Upper()), files])) == [(2, "size", 1)]
    assert list(given_twice([lines, ("urls", Urls()), files])) == [(1, "url", 0)]


def test_a_plan_of_two_givers_is_refused_with_the_place_of_the_later() -> None:
    stages = (("again", Again()), ("upper", Upper()), ("files", Files()))
    places = {-1: "a.yaml:3:3", 0: "a.yaml:5:5", 1: "a.yaml:6:5", 2: "a.yaml:7:5"}
    build = Build(
        name="t",
        output="out",
        source_name="lines",
        source=Lines(paths="none.txt"),
        stages=stages,
        run=Run(),
        text={},
        places=places,
    )
    with pytest.raises(ConfigError, match=r"^a\.yaml:6:5: stage 'upper' adds column 'size', which stage 'again' gives already"):
        plan_of(build)
