"""A finished plan that is run again: all of it is there, or what is not is named and made again; in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gristmill.storage.store import Store, expand, open_store
from pipeline.builds.finish import is_finished, sound_units, still_finished, stored_parts
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import Finished, UnitRecord, find_lead, runs
from tests.toy import Files, Lines, Upper


@dataclass
class Done:
    """A plan of two shards that is finished in `store`, and what was found damaged of it."""

    plan: Plan
    store: Store
    lines: list[str]

    def again(self) -> Finished | None:
        return still_finished(self.store, self.plan, self.lines.append)

    def path(self, pattern: str) -> Path:
        (found,) = Path(self.store.root).glob(pattern)
        return found


@pytest.fixture
def done(tmp_path: Path) -> Done:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"one {name}\ntwo\n")
    plan = make_plan("t", [("lines", Lines(paths="")), ("upper", Upper()), ("files", Files())], expand(str(tmp_path / "*.txt")))
    assert drive(plan, lambda: LocalEngine(0), Options(str(tmp_path / "out"))).build is not None
    return Done(plan, open_store(str(tmp_path / "out")), [])


def test_a_plan_that_is_done_is_found_and_leaves_no_record_again(done: Done) -> None:
    found = done.again()
    assert found is not None and found.record == "runs/run-00000001.json" and done.lines == []
    assert set(found.files) == {"lines-00000.jsonl", "lines-00001.jsonl", "manifest.json"}
    assert runs(done.store) == ["runs/run-00000001.json"] and is_finished(done.store, done.plan)


@pytest.mark.parametrize(
    ("pattern", "damage", "said"),
    [
        ("builds/*/lines-00001.jsonl", lambda path: path.unlink(), "lines-00001.jsonl is missing; put back"),
        ("builds/*/lines-00000.jsonl", lambda path: path.write_text("x"), "has 1 bytes, "),
        ("builds/*/manifest.json", lambda path: path.write_text(path.read_text().replace("4", "5")), "is not what was written"),
        ("finished/*.json", lambda path: path.write_text(path.read_text()[:-9]), "; written again"),
        ("runs/*.json", lambda path: path.unlink(), "runs/run-00000001.json is missing; written again"),
        ("runs/*.json", lambda path: path.write_text('{"x": 1}'), "runs/run-00000001.json is damaged"),
    ],
    ids=["file-missing", "file-of-another-size", "manifest-changed", "record-cut", "run-missing", "run-damaged"],
)
def test_what_is_missing_or_damaged_is_named_and_the_plan_is_not_done(
    pattern: str, damage: Callable[[Path], object], said: str, done: Done
) -> None:
    path = done.path(pattern)
    content = path.read_bytes()
    path.unlink()  # files of a build are links to the data
    path.write_bytes(content)
    damage(path)
    assert done.again() is None
    (line,) = done.lines
    assert said in line, line


def test_a_record_without_the_hash_of_the_manifest_is_damaged(done: Done) -> None:
    """Whoever reads it can then tell a manifest that was changed."""
    path = done.path("finished/*.json")
    content = json.loads(path.read_text())
    del content["content"], content["check"]
    path.write_text(json.dumps(content))
    assert done.again() is None and not is_finished(done.store, done.plan)


def test_a_plan_that_another_came_after_is_made_the_newest_again(done: Done, tmp_path: Path) -> None:
    other = make_plan("u", [("lines", Lines(paths="")), ("files", Files())], done.plan.inputs)
    drive(other, lambda: LocalEngine(0), Options(done.store.root))
    first = done.again()
    assert first is not None
    newest = find_lead(done.store, runs(done.store)[0])
    assert newest is not None and (newest.build, newest.again) == (first.build, "runs/run-00000001.json")
    done.again()
    assert len(runs(done.store)) == 3, "it is the newest already"


def test_units_are_sound_missing_or_named_with_what_is_wrong(done: Done) -> None:
    names = [unit.manifest for unit in done.plan.steps[0].units]
    sound = sound_units(done.store, names, whole=True)
    assert all(isinstance(each, UnitRecord) for each in sound)
    first, second = (each for each in sound if isinstance(each, UnitRecord))
    part = Path(done.store.root) / first.parts[0].data
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"?")
    done.store.remove(names[1])
    assert sound_units(done.store, names, whole=False) == [first, None], "its size is right"
    changed, _ = sound_units(done.store, names, whole=True)
    assert isinstance(changed, str) and first.parts[0].data in changed
    assert second.unit == "b.txt"


def test_parts_stand_in_the_order_of_the_plan(done: Done) -> None:
    step = done.plan.steps[-1]
    found = [
        each for each in sound_units(done.store, [u.manifest for u in step.units], whole=False) if isinstance(each, UnitRecord)
    ]
    assert [(part.shard, part.input, part.number) for part in stored_parts(step, found)] == [(0, "a.txt", 0), (1, "b.txt", 0)]
