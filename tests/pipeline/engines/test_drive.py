"""How a plan is driven to its end: what is done, in which order, and what becomes of each kind of failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gristmill.errors import StoreError, StoreFull
from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines.child import attempt
from pipeline.engines.drive import MENDED, Options, Outcome, drive
from pipeline.engines.failure import Failure
from pipeline.planning.plan import Plan, Step, make_plan
from pipeline.records import UnitRecord, read_run, read_units
from pipeline.units.segment import Task
from tests.toy import Files, Lines, Short, Unique, Upper


@dataclass
class Bench:
    """An engine that runs units in this process, the last first, and spoils some: (kind of step, label) → what comes instead."""

    spoiled: dict[tuple[str, str], Failure] = field(default_factory=dict)
    ran: list[tuple[str, str]] = field(default_factory=list)
    closed: int = 0
    before: Callable[[Task], None] = lambda task: None

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, UnitRecord | Failure]]:
        for task in reversed(tasks):
            key = (task.spec.title(), task.unit.label)
            self.ran.append(key)
            self.before(task)
            yield task, self.spoiled.pop(key) if key in self.spoiled else attempt(task)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Notes:
    """A watcher that writes down what it is told."""

    lines: list[str] = field(default_factory=list)

    def step(self, step: Step, todo: int) -> None:
        self.lines.append(f"step {step.spec.title()} {todo}")

    def unit(self, step: Step, manifest: UnitRecord) -> None:
        self.lines.append(f"unit {manifest.unit}")

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        self.lines.append(f"failed {label} {failure.message}")

    def note(self, line: str) -> None:
        self.lines.append(f"note {line}")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    for name, lines in {"a": "one\ntwo", "b": "two\nthree"}.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    return plan_of(tmp_path)


def plan_of(folder: Path) -> Plan:
    paths = f"{folder}/*.txt"
    between = [("short", Short(least=2)), ("unique", Unique()), ("upper", Upper())]
    return make_plan("t", [("lines", Lines(paths=paths)), *between, ("files", Files())], expand(paths))


def driven(plan: Plan, root: Path, bench: Bench, notes: Notes | None = None, *, verify: bool = False) -> Outcome:
    return drive(plan, lambda: bench, Options(str(root), 2, verify=verify), notes)


FIRST, REDUCE, SETTLE, LAST = "lines-unique", "unique-reduce", "unique-settle", "unique-files"


def test_steps_come_one_after_the_other_and_are_told(plan: Plan, tmp_path: Path) -> None:
    bench, notes = Bench(), Notes()
    outcome = driven(plan, tmp_path / "out", bench, notes)
    assert outcome.build is not None and not outcome.reused and bench.closed == 1
    assert bench.ran == [(FIRST, "b.txt"), (FIRST, "a.txt"), (REDUCE, "1/1"), (SETTLE, "all"), (LAST, "b.txt"), (LAST, "a.txt")]
    assert notes.lines == [
        f"step {FIRST} 2",
        "unit b.txt",
        "unit a.txt",
        f"step {REDUCE} 1",
        "unit 1/1",
        f"step {SETTLE} 1",
        "unit all",
        f"step {LAST} 2",
        "unit b.txt",
        "unit a.txt",
    ]
    record = read_run(open_store(str(tmp_path / "out")), "runs/run-00000001.json")
    assert [(step.kind, len(step.units), step.done) for step in record.steps] == [
        ("segment", 2, 2),
        ("reduce", 1, 1),
        ("settle", 1, 1),
        ("segment", 2, 2),
    ]


def test_what_is_finished_needs_no_engine(plan: Plan, tmp_path: Path) -> None:
    first = driven(plan, tmp_path / "out", Bench())

    def none() -> Bench:
        raise AssertionError("nothing is to do")

    again = drive(plan, none, Options(str(tmp_path / "out"), 2))
    assert (again.build, again.manifest, again.reused) == (first.build, first.manifest, True)


def test_a_failed_unit_ends_the_build_when_the_others_of_its_step_are_done(plan: Plan, tmp_path: Path) -> None:
    bench, notes = Bench({(FIRST, "b.txt"): Failure("failed", "it broke")}), Notes()
    outcome = driven(plan, tmp_path / "out", bench, notes)
    assert outcome.build is None and outcome.failures == ((f"0 {FIRST}", "b.txt", Failure("failed", "it broke")),)
    assert bench.ran == [(FIRST, "b.txt"), (FIRST, "a.txt")] and bench.closed == 1
    assert "failed b.txt it broke" in notes.lines and "unit a.txt" in notes.lines
    again = Bench()
    assert driven(plan, tmp_path / "out", again).build is not None
    assert again.ran[:2] == [(FIRST, "b.txt"), (REDUCE, "1/1")], "what was done is done"


def test_a_full_store_stops_at_once(plan: Plan, tmp_path: Path) -> None:
    bench = Bench({(FIRST, "b.txt"): Failure("full", "no space left")})
    with pytest.raises(StoreFull, match="no space left"):
        driven(plan, tmp_path / "out", bench)
    assert bench.ran == [(FIRST, "b.txt")] and bench.closed == 1


def test_what_a_unit_finds_damaged_is_computed_again_before_it(plan: Plan, tmp_path: Path) -> None:
    root, notes = tmp_path / "out", Notes()

    def lose(task: Task) -> None:
        if task.spec.kind == "reduce" and len(bench.ran) == 3:
            (committed,) = (record for record in manifests(open_store(str(root)), plan.steps[0]) if record.unit == "a.txt")
            (root / committed.outputs["rows-0"].data).unlink()

    bench = Bench(before=lose)
    outcome = driven(plan, root, bench, notes)
    assert outcome.build == driven(plan, tmp_path / "fresh", Bench()).build is not None
    assert bench.ran[2:5] == [(REDUCE, "1/1"), (FIRST, "a.txt"), (REDUCE, "1/1")]
    (note,) = (line for line in notes.lines if line.startswith("note"))
    assert note.endswith(f"is missing; computed again (0 {FIRST}, a.txt)")
    assert notes.lines.count("unit a.txt") == 2, "of the first and the last step: not when it is mended"


def test_damage_that_comes_again_and_again_ends_the_build(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "out"

    def lose(task: Task) -> None:
        if task.spec.kind == "reduce":
            for record in manifests(open_store(str(root)), plan.steps[0])[:1]:
                (root / record.outputs["rows-0"].data).unlink(missing_ok=True)

    outcome = driven(plan, root, Bench(before=lose))
    ((step, label, failure),) = outcome.failures
    assert (step, label) == (f"0 {FIRST}", "a.txt") and failure.message.endswith(f"after it was computed again {MENDED} times")


def test_verify_reads_what_is_done_and_has_it_mended(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "out"
    first = driven(plan, root, Bench())
    settled = manifests(open_store(str(root)), plan.steps[2])[0].outputs["settled"]
    path = root / settled.data
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    unseen, bench = Bench(), Bench()
    assert driven(plan, root, unseen).build == first.build and not unseen.ran
    assert driven(plan, root, bench, verify=True).build == first.build
    assert bench.ran == [(SETTLE, "all")] and path.read_bytes() == whole


def test_manifests_of_a_build_are_told_missing(plan: Plan, tmp_path: Path) -> None:
    driven(plan, tmp_path / "out", Bench())
    store = open_store(str(tmp_path / "out"))
    names = [unit.manifest for unit in plan.steps[0].units]
    assert [record.unit for record in read_units(store, names)] == ["a.txt", "b.txt"]
    store.remove(names[1])
    with pytest.raises(StoreError, match="was committed and is gone; `python -m jobs build CONFIG --verify` puts it back"):
        read_units(store, names)
