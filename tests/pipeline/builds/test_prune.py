"""What no finished build needs goes, and nothing else: every build can be made, told of and gone back to as before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.errors import InputError
from gristmill.storage.store import Store, expand, open_store
from jobs.build import prune
from pipeline.builds.locate import locate_run
from pipeline.builds.prune import refuse_live, unneeded
from pipeline.builds.summary import summarize
from pipeline.engines.drive import Options, Outcome, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Named, Plan, make_plan
from stages.sink.documents import Documents
from tests.s3_servers import BUCKET, moto, use
from tests.toy import Lines, Short, Unique, Upper


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("crawl")
    for number in range(3):
        (place / f"{number}.txt").write_text("\n".join(f"line {n} of {n % 3}{number % 2}" for n in range(12)))
    return place


def plan_of(crawl: Path, files: str = "*", **upper: int) -> Plan:
    paths = f"{crawl}/{files}.txt"
    stages: list[Named] = [("lines", Lines(paths=paths)), ("upper", Upper(**upper)), ("short", Short()), ("unique", Unique())]
    return make_plan("prune", [*stages, ("documents", Documents())], expand(paths), 2)


def build(plan: Plan, root: Path | str) -> Outcome:
    outcome = drive(plan, lambda: LocalEngine(0), Options(str(root), 5))
    assert outcome.build is not None, outcome.failures
    return outcome


def files(root: Path) -> dict[str, int]:
    """Return all files of an output and their sizes."""
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


def take(store: Store) -> None:
    for file in unneeded(store):
        store.remove(file.name)


def test_all_of_finished_builds_is_needed(crawl: Path, tmp_path: Path) -> None:
    plans = [plan_of(crawl), plan_of(crawl, salt=1), plan_of(crawl, files="[01]")]
    found = [build(plan, tmp_path) for plan in [*plans, plans[0]]]
    before = files(tmp_path)
    assert unneeded(open_store(str(tmp_path))) == []
    assert prune.prune(str(tmp_path), yes=True) == 0 and files(tmp_path) == before
    assert all(build(plan, tmp_path).reused for plan in plans) and found[3].build == found[0].build


@pytest.mark.parametrize("moved", [False, True])
def test_a_build_that_lost_its_manifest_or_is_a_link_is_not_pruned(crawl: Path, tmp_path: Path, moved: bool) -> None:
    root = tmp_path / "out"
    plan = plan_of(crawl)
    folder = root / "builds" / str(build(plan, root).build)
    if moved:
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
        assert unneeded(open_store(str(root))) == []
    else:
        (folder / "manifest.json").unlink()
        with pytest.raises(InputError, match=r"manifest\.json was written and is missing"):
            unneeded(open_store(str(root)))
    before = files(root)
    assert build(plan, root).reused is moved and unneeded(open_store(str(root))) == []
    assert before.keys() <= files(root).keys()


def abandoned(root: Path, plan: Plan) -> None:
    """Commit units of a plan that never came to its end."""
    steps = make_plan(plan.name, plan.stages, plan.inputs, 2).steps
    drive(plan, lambda: LocalEngine(0), Options(str(root), 5))
    store = open_store(str(root))
    (run, *_) = sorted((root / "runs").iterdir(), reverse=True)
    build = json.loads(run.read_text())["build"]
    for name in (f"runs/{run.name}", plan.finished(), f"builds/{build}/manifest.json"):
        store.remove(name)
    assert not any(step.missing(store) for step in steps)


def old_layout(root: Path, plan: Plan) -> None:
    """Leave what a version of before left, under names that mean nothing now."""
    for name in ("steps/lines-unique-0123456789ab/" + "1" * 32 + ".json", "data/ff/" + "f" * 64 + ".arrow"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")


def damaged_finish(root: Path, plan: Plan) -> None:
    (root / "finished" / f"{'9' * 32}.json").write_text("{")


@pytest.mark.parametrize("leave", [abandoned, old_layout, damaged_finish])
def test_what_nothing_needs_goes_and_the_rest_stays(
    crawl: Path, tmp_path: Path, leave: Callable[[Path, Plan], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(crawl)
    first = build(plan, tmp_path)
    before = files(tmp_path)
    leave(tmp_path, plan_of(crawl, files="[12]"))
    left = {name: size for name, size in files(tmp_path).items() if name not in before}
    assert left
    assert prune.prune(str(tmp_path)) == 0
    shown = capsys.readouterr()
    assert {line.partition(" ")[2]: int(line.partition(" ")[0]) for line in shown.out.splitlines()} == left
    size = sum(left.values())
    said = f"no finished build needs {len(left)} file{'s' * (len(left) > 1)}, {size:,} bytes; `python -m jobs prune"
    assert shown.err.startswith(said) and files(tmp_path) == {**before, **left}, "nothing was deleted yet"
    assert prune.prune(str(tmp_path), yes=True) == 0
    assert capsys.readouterr().err.startswith("deleted") and files(tmp_path) == before
    assert build(plan, tmp_path).reused and first.build


def test_a_build_whose_folder_was_deleted_is_needed_no_more(crawl: Path, tmp_path: Path) -> None:
    """Data that another build shares with it stays; what is left can be told of, traced and grown."""
    small, large = plan_of(crawl, files="[01]"), plan_of(crawl)
    old, new = build(small, tmp_path), build(large, tmp_path)
    shutil.rmtree(tmp_path / "builds" / str(old.build))
    store = open_store(str(tmp_path))
    sizes = files(tmp_path)
    take(store)
    assert sum(files(tmp_path).values()) < sum(sizes.values()) and unneeded(store) == []
    located = locate_run(str(tmp_path))
    assert located.record.build == new.build and summarize(store, located.record)["documents"] > 0
    assert build(large, tmp_path).reused
    assert build(small, tmp_path).build == old.build, "it can be made again"


def test_whatever_is_not_of_the_machines_making_stays(crawl: Path, tmp_path: Path) -> None:
    build(plan_of(crawl), tmp_path)
    own = [
        "notes.txt",
        "data/README",
        "data/ab/x.arrow",
        "steps/mine/results.json",
        "finished/x.txt",
        "runs/table.csv",
        "other/y",
    ]
    for name in own:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    take(open_store(str(tmp_path)))
    assert all((tmp_path / name).read_text() == "mine" for name in own)


def test_a_running_build_is_left_alone(crawl: Path, tmp_path: Path) -> None:
    build(plan_of(crawl), tmp_path)
    old_layout(tmp_path, plan_of(crawl))
    store = open_store(str(tmp_path))
    with store.alive():
        assert len(open_store(str(tmp_path)).live()) == 1
        for yes in (False, True):
            with pytest.raises(InputError, match="a build is running there"):
                prune.prune(str(tmp_path), yes=yes)
    assert store.live() == [] and len(unneeded(store)) == 2


def test_a_record_that_cannot_be_read_keeps_everything(crawl: Path, tmp_path: Path) -> None:
    """Who cannot tell what is needed deletes nothing."""
    build(plan_of(crawl), tmp_path)
    old_layout(tmp_path, plan_of(crawl))
    (record,) = (tmp_path / "runs").iterdir()
    record.write_text(record.read_text()[:200])
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"run-00000001\.json is damaged.*what it needs is not known"):
        prune.prune(str(tmp_path), yes=True)
    assert files(tmp_path) == before


def test_on_s3(crawl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with moto() as port:
        use(monkeypatch, port)
        output = f"s3://{BUCKET}/prune"
        build(plan_of(crawl), output)
        store = open_store(output)
        assert unneeded(store) == [] and store.live() == []
        store.put_new(f"data/ff/{'f' * 64}.arrow", b"left")
        with store.alive(), pytest.raises(InputError, match=r"prune/live/[0-9a-f]{32}"):
            refuse_live(store)
        assert prune.prune(output, yes=True) == 0
        assert capsys.readouterr().out == f"4 data/ff/{'f' * 64}.arrow\n" and unneeded(store) == []
        assert build(plan_of(crawl), output).reused
