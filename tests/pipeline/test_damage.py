"""Damage in an output folder: noticed by who reads it, said, and put back; the build is the same, or there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gristmill.errors import Damaged, InputError, UserError
from gristmill.format.build import open_build
from gristmill.storage.store import expand, open_store
from jobs.explain.trace import of_build
from jobs.report import report
from jobs.tokenizer.corpus import documents_of
from pipeline.builds.finish import manifests
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.failure import Failure
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, Step, make_plan
from pipeline.records import UnitRecord, find_unit, read_run, runs
from pipeline.units import opened
from stages.sink.documents import Documents
from tests.toy import Lines, Share, Short, Unique, Upper


class Said:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.units: list[str] = []

    def step(self, step: Step, todo: int) -> None: ...

    def unit(self, step: Step, manifest: UnitRecord) -> None:
        self.units.append(f"{step.name}: {manifest.unit}")

    def failed(self, step: Step, label: str, failure: Failure) -> None:
        self.notes.append(failure.message)

    def note(self, line: str) -> None:
        self.notes.append(line)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    crawl = tmp_path_factory.mktemp("crawl")
    for number in range(3):
        (crawl / f"{number}.txt").write_text(
            "\n".join(f"{word} {n % (7 - number)}" for n in range(20) for word in ("a", "river", "boom"))
        )
    stages = [
        ("lines", Lines(paths=f"{crawl}/*.txt")),
        ("upper", Upper()),
        ("short", Short()),
        ("unique", Unique()),
        ("share", Share()),
        ("documents", Documents()),
    ]
    return make_plan("damage", stages, expand(f"{crawl}/*.txt"), 2)


RECORD = {"on": "local", "workers": 0, "version": "0.1.0"}


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that this process opened in an earlier test would not be read again."""
    monkeypatch.setattr(opened, "_OPENED", {})


def build(plan: Plan, root: Path, verify: bool = False, workers: int = 0) -> tuple[Outcome, Said]:
    watcher = Said()
    return drive(
        plan, lambda: LocalEngine(workers, retries=0), Options(str(root), 4, verify=verify, record=RECORD), watcher
    ), watcher


@pytest.fixture(scope="module")
def whole(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("whole") / "out"
    outcome, watcher = build(plan, root)
    assert outcome.build is not None and watcher.notes == []
    return root, outcome.build


def copy(whole: Path, to: Path) -> Path:
    """Copy an output with the links between its files."""
    shutil.copytree(whole, to, copy_function=shutil.copy2)
    for path in (to / "builds").rglob("*.arrow"):
        (data,) = [each for each in (to / "data").rglob("*.arrow") if each.read_bytes() == path.read_bytes()]
        path.unlink()
        path.hardlink_to(data)
    return to


def forget(plan: Plan, root: Path, first: int) -> None:
    """Take away the steps from number `first` on, and what there is of finished builds."""
    for name in ("finished", "builds", "runs"):
        shutil.rmtree(root / name)
    for step in plan.steps[first:]:
        shutil.rmtree(root / step.folder)


def flip(path: Path, part: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, int(len(content) * part))] ^= 16
    replace(path, bytes(content))


def replace(path: Path, content: bytes) -> None:
    """Write into the very file, so that all its names see it."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate(len(content))


READ_LATER = [(0, "docs"), (0, "rows-0"), (1, "reduced"), (2, "settled"), (3, "docs"), (3, "rows-0"), (4, "reduced")]
READ_LATER += [(5, "settled")]
HARMS: Mapping[str, Callable[[Path], None]] = {
    "in_the_middle": lambda path: flip(path, 0.5),
    "in_the_footer": lambda path: flip(path, 0.97),
    "cut": lambda path: replace(path, path.read_bytes()[:-9]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", ["in_the_middle", "in_the_footer", "gone"])
@pytest.mark.parametrize(("number", "role"), READ_LATER)
def test_what_a_later_step_reads_is_computed_again(
    plan: Plan, whole: tuple[Path, str], tmp_path: Path, number: int, role: str, harm: str
) -> None:
    root = copy(whole[0], tmp_path / "out")
    data = manifests(open_store(str(root)), plan.steps[number])[0].outputs[role].data
    forget(plan, root, number + 1)
    HARMS[harm](root / data)
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1]
    # Another unit that made the very same bytes may have them made again, too.
    assert watcher.notes and all(data in note for note in watcher.notes)
    assert watcher.notes[0].endswith(f"; computed again ({plan.steps[number].name}, {plan.steps[number].units[0].label})")
    assert (root / data).read_bytes() == (whole[0] / data).read_bytes()
    assert build(plan, root, verify=True)[1].notes == []


def test_damage_in_several_steps_at_once_is_mended_from_the_first_to_the_last(
    plan: Plan, whole: tuple[Path, str], tmp_path: Path
) -> None:
    """What is computed again reads what is damaged itself."""
    root = copy(whole[0], tmp_path / "out")
    store = open_store(str(root))
    harmed = [unit.outputs["rows-0"].data for unit in manifests(store, plan.steps[0])]
    harmed += [unit.outputs["reduced"].data for unit in manifests(store, plan.steps[1])]
    for data in harmed:
        flip(root / data, 0.97)
    forget(plan, root, 2)
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1]
    assert {data for data in harmed if any(data in note for note in watcher.notes)} == set(harmed)
    assert build(plan, root, verify=True)[0].build == whole[1]


@pytest.mark.parametrize("harm", ["cut", "gone", "deep"])
def test_manifests_of_units(plan: Plan, whole: tuple[Path, str], tmp_path: Path, harm: str) -> None:
    root = copy(whole[0], tmp_path / "out")
    names = [plan.steps[number].units[0].manifest for number in (0, 2, 3)]
    forget(plan, root, 4)
    for name in names:
        (HARMS | {"deep": lambda path: replace(path, b"[" * 200_000)})[harm](root / name)
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1]
    assert len(watcher.notes) == (0 if harm == "gone" else 3), watcher.notes
    assert all(find_unit(open_store(str(root)), name) is not None for name in names)


def test_children_find_it_too(plan: Plan, whole: tuple[Path, str], tmp_path: Path) -> None:
    root = copy(whole[0], tmp_path / "out")
    data = manifests(open_store(str(root)), plan.steps[0])[1].outputs["rows-0"].data
    forget(plan, root, 1)
    flip(root / data, 0.5)
    outcome, watcher = build(plan, root, workers=1)
    assert outcome.build == whole[1] and len(watcher.notes) == 1 and data in watcher.notes[0]


def test_a_disk_that_keeps_nothing_ends_the_build(plan: Plan, whole: tuple[Path, str], tmp_path: Path) -> None:
    """A file that is damaged whenever it is read is given up, with its name."""
    root = copy(whole[0], tmp_path / "out")
    data = root / manifests(open_store(str(root)), plan.steps[0])[0].outputs["rows-0"].data
    forget(plan, root, 1)
    data.unlink()
    data.mkdir()  # nothing can be committed there
    outcome, _ = build(plan, root)
    assert outcome.build is None and str(data) in outcome.failures[0][2].message


# ---- finished builds ----


def shard_of(root: Path) -> Path:
    return min((root / "builds").rglob("documents-*.arrow"))


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("harm", ["cut", "gone"])
@pytest.mark.parametrize("known", [True, False])
def test_a_shard_of_a_finished_build(
    plan: Plan, whole: tuple[Path, str], tmp_path: Path, harm: str, linked: bool, known: bool
) -> None:
    """Whether only the build's name of the file or its content is lost, and whether the plan is known to be finished."""
    root = copy(whole[0], tmp_path / "out")
    shard = shard_of(root)
    right = shard.read_bytes()
    if not linked:
        shard.unlink()
        shard.write_bytes(right)
    HARMS[harm](shard)
    if not known:
        shutil.rmtree(root / "finished")
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1] and not outcome.reused
    assert shard.read_bytes() == right
    assert (str(shard) in " ".join(watcher.notes)) or (harm, known) == ("gone", False), watcher.notes
    assert build(plan, root)[0].reused


def test_verify_finds_what_has_the_right_size(plan: Plan, whole: tuple[Path, str], tmp_path: Path) -> None:
    root = copy(whole[0], tmp_path / "out")
    shard = shard_of(root)
    right = shard.read_bytes()
    flip(shard, 0.4)
    assert build(plan, root)[0].reused and report.report(str(root)) == 0, "sizes alone say nothing"
    assert report.report(str(root), verify=True) == 1
    outcome, watcher = build(plan, root, verify=True)
    assert outcome.build == whole[1] and shard.read_bytes() == right
    assert len(watcher.notes) == 2, "the content, and the link to the damaged file"
    assert build(plan, root, verify=True)[1].notes == [] and report.report(str(root), verify=True) == 0


@pytest.mark.parametrize("content", ["", "{", '{"build": "../x", "manifest": "x", "record": "y"}', "[" * 200_000, '"text"'])
@pytest.mark.parametrize("folder", ["finished", "runs"])
def test_records_of_a_finished_build(plan: Plan, whole: tuple[Path, str], tmp_path: Path, folder: str, content: str) -> None:
    root = copy(whole[0], tmp_path / "out")
    (record,) = (root / folder).iterdir()
    record.write_text(content)
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1] and not outcome.reused
    assert [str(record) in note for note in watcher.notes] == [True] and watcher.units == []
    assert build(plan, root)[0].reused


def test_the_manifest_of_a_build(plan: Plan, whole: tuple[Path, str], tmp_path: Path) -> None:
    root = copy(whole[0], tmp_path / "out")
    manifest = next((root / "builds").rglob("manifest.json"))
    right = manifest.read_bytes()
    manifest.write_bytes(right[:-30])
    outcome, watcher = build(plan, root)
    assert outcome.build == whole[1] and manifest.read_bytes() == right and str(manifest) in watcher.notes[0]


@pytest.mark.parametrize("key", ['\n "version"', '"sha256"', '"shards"', "{"])
@pytest.mark.parametrize("verify", [False, True])
def test_a_manifest_of_the_right_size(plan: Plan, whole: tuple[Path, str], tmp_path: Path, key: str, verify: bool) -> None:
    root = copy(whole[0], tmp_path / "out")
    manifest = next((root / "builds").rglob("manifest.json"))
    right = manifest.read_bytes()
    at = right.index(key.encode()) + len(key) // 2
    manifest.write_bytes(right[:at] + b"~" + right[at + 1 :])
    with pytest.raises(UserError, match=manifest.name):
        report.report(str(root))
    outcome, watcher = build(plan, root, verify=verify)
    assert outcome.build == whole[1] and manifest.read_bytes() == right and str(manifest) in watcher.notes[0]
    assert build(plan, root)[0].reused


def test_a_manifest_that_another_plan_wrote_stays(plan: Plan, whole: tuple[Path, str], tmp_path: Path) -> None:
    root = copy(whole[0], tmp_path / "out")
    manifest = next((root / "builds").rglob("manifest.json"))
    other = manifest.read_bytes().replace(b'"damage"', b'"repair"')
    assert other != manifest.read_bytes()
    manifest.write_bytes(other)
    assert not build(plan, root)[0].reused
    assert manifest.read_bytes() == other and build(plan, root)[0].reused


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_explain_names_the_damaged_file_of_a_build(plan: Plan, whole: tuple[Path, str], tmp_path: Path, harm: str) -> None:
    root = copy(whole[0], tmp_path / "out")
    store = open_store(str(root))
    record = read_run(store, runs(store)[0])
    shard = shard_of(root)
    HARMS[harm](shard)
    (of_manifest,) = [each for each in open_build(root, None)[0].shards if each.file == shard.name]
    with pytest.raises(Damaged, match=shard.name), of_build(store, record.manifest, of_manifest):
        pass


def test_the_report_names_what_is_damaged(
    plan: Plan, whole: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy(whole[0], tmp_path / "out")
    shard, store = shard_of(root), open_store(str(root))
    quarantined = root / manifests(store, plan.steps[0])[0].outputs["quarantined"].data
    HARMS["cut"](shard)
    assert report.report(str(root)) == 1
    assert f"damaged: {shard} has {shard.stat().st_size} bytes" in capsys.readouterr().err
    flip(quarantined, 0.5)
    with pytest.raises(Damaged, match=quarantined.name):
        report.report(str(root))
    unit = root / plan.steps[1].units[1].manifest
    unit.write_text("{")
    with pytest.raises(Damaged, match=unit.name):
        report.report(str(root))
    assert build(plan, root, verify=True)[0].build == whole[1]
    assert report.report(str(root)) == 0


@pytest.mark.parametrize("outside", ["builds", "one"])
def test_a_page_is_written_nowhere_else(plan: Plan, whole: tuple[Path, str], tmp_path: Path, outside: str) -> None:
    """Whoever made the output may have put links to other places into it."""
    root = copy(whole[0], tmp_path / "out")
    place = root / "builds" if outside == "builds" else root / "builds" / whole[1]
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    with pytest.raises(InputError, match="leads out of the output"):
        report.report(str(root))
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


# ---- which build is the newest ----


def leads(root: Path) -> list[str]:
    """Return the builds that the runs lead to, the newest first."""
    return [json.loads((root / name).read_text())["build"] for name in runs(open_store(str(root)))]


def test_back_to_an_older_plan(plan: Plan, tmp_path: Path) -> None:
    other = make_plan("other", [plan.stages[0], *plan.stages[2:]], plan.inputs, 2)
    found = [build(each, tmp_path)[0] for each in (plan, other, plan, plan, other, other, plan)]
    a, b = found[0].build, found[1].build
    assert a != b and [outcome.build for outcome in found] == [a, b, a, a, b, b, a]
    assert [outcome.reused for outcome in found] == [False, False, True, True, True, True, True]
    assert leads(tmp_path) == [a, b, a, b, a], "a record for each change, none for a repetition"


def test_the_report_and_the_reader_go_back_too(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_plan("other", [plan.stages[0], *plan.stages[2:]], plan.inputs, 2)
    for each in (plan, other, plan, other, plan):
        found = build(each, tmp_path)[0].build
        assert report.report(str(tmp_path), as_json=True) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["build"] == found and shown["name"] == each.name
        assert open_build(tmp_path, "documents")[0].build == found
        assert {row["id"] for table in documents_of(str(tmp_path)) for row in table.to_pylist()}


def test_a_clock_that_goes_back(plan: Plan, tmp_path: Path) -> None:
    """A run is newer than those whose names begin with a time, whatever that time is."""
    a = build(plan, tmp_path)[0].build
    (record,) = (tmp_path / "runs").iterdir()
    record.rename(tmp_path / "runs" / "29991231T235959999999Z-cafe.json")
    other = make_plan("other", [plan.stages[0], *plan.stages[2:]], plan.inputs, 2)
    b = build(other, tmp_path)[0].build
    assert leads(tmp_path) == [b, a]
