"""One unit after the other in this process: what each commits, that none is computed twice, and how far a barrier's units are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.errors import Damaged, UnitFailed
from gristmill.storage.store import expand, open_store
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import UnitRecord
from pipeline.stage import Part, Sink
from pipeline.units.segment import Task, run_unit
from tests.toy import Files, Lines, Share, Short, Unique, Upper, documents

LINES = {"a": ["one", "two", "one", "x"], "b": ["two", "three"]}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for name, lines in LINES.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    paths = f"{tmp_path}/*.txt"
    stages = [
        ("lines", Lines(paths=paths)),
        ("short", Short(least=2)),
        ("unique", Unique()),
        ("upper", Upper()),
        ("share", Share()),
    ]
    return make_plan("t", [*stages, ("files", Files())], expand(paths), 2)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def run_steps(plan: Plan, root: str, steps: int, reports: list[tuple[Any, ...]] | None = None) -> list[list[UnitRecord]]:
    def report(*at: Any) -> None:
        if reports is not None:
            reports.append(at)

    tasks = [[Task(root, step.spec, unit, 2, batch_rows=3) for unit in step.units] for step in plan.steps[:steps]]
    return [[run_unit(task, report) for task in step] for step in tasks]


def test_each_kind_of_unit_commits_what_the_next_reads(plan: Plan, root: str) -> None:
    segments, reduces, (settle,), judged, *_ = run_steps(plan, root, 4)
    store = open_store(root)
    assert [set(record.outputs) for record in segments] == [{"docs", "rows-0", "dropped"}, {"docs", "rows-0"}]
    assert [record.outputs["docs"].rows for record in segments] == [3, 2]
    assert {frozenset(record.outputs) for record in reduces} == {frozenset({"reduced"})}
    assert [record.stage for record in (*reduces, settle)] == ["unique"] * 3
    with pa.ipc.open_file(pa.BufferReader(store.read(settle.outputs["settled"].data))) as file:
        verdicts = [file.get_batch(shard).to_pylist() for shard in range(file.num_record_batches)]
    assert [[(row["row"], row["drop"]) for row in shard] for shard in verdicts] == [
        [(0, None), (1, None), (2, "duplicate")],
        [(0, "duplicate")],
    ]
    assert [[(each["stage"], each["phase"], each["in"], each["kept"]) for each in record.ledger] for record in judged] == [
        [("unique", "after", 3, 2), ("upper", "whole", 2, 2), ("share", "before", 2, 2)],
        [("unique", "after", 2, 1), ("upper", "whole", 1, 1), ("share", "before", 1, 1)],
    ]


def test_a_committed_unit_is_read_not_computed(plan: Plan, root: str) -> None:
    reports: list[tuple[Any, ...]] = []
    first = run_steps(plan, root, 3, reports)
    assert reports
    reports.clear()
    assert run_steps(plan, root, 3, reports) == first and not reports


def test_a_barriers_units_say_how_far_they_are(plan: Plan, root: str) -> None:
    run_steps(plan, root, 1)
    reports: list[tuple[Any, ...]] = []
    run_steps(plan, root, 3, reports)
    sides = [report for report in reports if report[1]]
    assert {document for _, _, document, _ in reports} == {None} and {number for number, *_ in reports} == {-1}
    reads = [(stage, done) for _, stage, _, done in sides if "run files" in stage]
    assert reads == [("unique (of 2 run files)", 0), ("unique (of 2 run files)", 1)] * 2, "of each reduce"
    assert [done for _, stage, _, done in sides if " rows)" in stage] == [0, 0]
    assert sum(int(stage.split()[2]) for _, stage, _, _ in sides if " rows)" in stage) == 5, "all that both segments emitted"
    assert [(stage, done) for _, stage, _, done in sides if "reduced files" in stage] == [
        ("unique (of 2 reduced files)", 0),
        ("unique (of 2 reduced files)", 1),
    ]
    assert [stage for _, stage, _, _ in sides][-1] == "unique (of 4 rows to settle)"


def test_a_unit_whose_input_is_gone_says_whose_it_was(plan: Plan, root: str) -> None:
    segments, *_ = run_steps(plan, root, 3)
    store = open_store(root)
    store.remove(segments[0].outputs["docs"].data)
    with pytest.raises(Damaged) as raised:
        run_steps(plan, root, 4)
    assert raised.value.record == plan.steps[0].units[0].manifest


class Greedy(Files):
    """Leaves what it does not want."""

    def open(self) -> Any:
        return lambda tables, folder: [Part("none", 0, folder, next(tables).num_rows)][1:]


def test_a_sink_takes_all_documents(tmp_path: Path, root: str) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nfour\n")
    sink: Sink = Greedy()
    plan = make_plan("t", [("lines", Lines(paths="")), ("greedy", sink)], expand(f"{tmp_path}/a.txt"))
    with pytest.raises(AssertionError, match="sink greedy left 4 documents unread"):
        run_unit(Task(root, plan.steps[0].spec, plan.steps[0].units[0], 1, batch_rows=3))
    assert not open_store(root).exists(plan.steps[0].units[0].manifest)


class Wide(Lines):
    """Has a column that its schema does not have."""

    def open(self) -> Any:
        return lambda file, batch_rows: iter([documents(file.name, ["a"]).append_column("odd", pa.array([1]))])


def test_a_source_gives_the_columns_of_its_schema(tmp_path: Path, root: str) -> None:
    (tmp_path / "a.txt").write_text("one")
    plan = make_plan("t", [("wide", Wide(paths="")), ("files", Files())], expand(f"{tmp_path}/a.txt"))
    with pytest.raises(UnitFailed, match="source 'wide' breaks its contract: it added column 'odd', which it does not declare"):
        run_unit(Task(root, plan.steps[0].spec, plan.steps[0].units[0], 1, batch_rows=3))
