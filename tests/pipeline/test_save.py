"""A save keeps documents in the middle of a plan: no trace in the build, and what is before it is not computed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.errors import ConfigError
from gristmill.storage.store import InputFile, expand, open_store
from pipeline.builds.finish import manifests
from pipeline.builds.prune import unneeded
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from pipeline.stage import Named, Save
from tests.toy import Files, Lines, Share, Short, Unique, Upper, Words

SAVE: Named = ("save", Save())
UPPER, SHORT, UNIQUE, SHARE = ("upper", Upper()), ("short", Short()), ("unique", Unique()), ("share", Share())
SHAPES: dict[str, list[Named]] = {
    "between": [UPPER, SAVE, SHORT],
    "before a barrier": [UPPER, SAVE, UNIQUE, SHORT],
    "behind verdicts": [UPPER, UNIQUE, SAVE, SHORT],
    "behind a model": [UPPER, SHARE, SAVE, SHORT, UNIQUE],
    "before the sink": [UPPER, SHORT, SAVE],
    "twice": [UPPER, SAVE, SHORT, ("save-2", Save()), UNIQUE],
    "behind documents made of others": [("words", Words()), SAVE, UNIQUE],
}


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    for name, lines in {"a": "one two\nthree\nfour five six\none two", "b": "three\nto\nseven", "c": ""}.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    return tmp_path


def plan_of(crawl: Path, stages: list[Named]) -> Plan:
    paths = f"{crawl}/*.txt"
    return make_plan("t", [("lines", Lines(paths=paths)), *stages, ("files", Files())], expand(paths))


def built(plan: Plan, root: Path, *, verify: bool = False, batch_rows: int = 2) -> str:
    outcome = drive(plan, lambda: LocalEngine(0), Options(str(root), batch_rows, verify=verify))
    assert outcome.build is not None, outcome.failures
    return outcome.build


@pytest.mark.parametrize("shape", SHAPES)
def test_a_save_leaves_no_trace_in_the_build(shape: str, crawl: Path) -> None:
    stages = SHAPES[shape]
    with_saves = plan_of(crawl, stages)
    without = plan_of(crawl, [named for named in stages if not isinstance(named[1], Save)])
    found = built(with_saves, crawl / "saved")
    assert found == built(without, crawl / "not")
    one, other = (crawl / root / "builds" / found / "manifest.json" for root in ("saved", "not"))
    assert one.read_bytes() == other.read_bytes()
    assert with_saves.lineage() == without.lineage()


def test_a_segment_ends_at_a_save_and_the_next_begins_with_its_documents(crawl: Path) -> None:
    plan = plan_of(crawl, SHAPES["between"])
    first, second = plan.steps
    assert (first.name, second.name) == ("0 lines-save", "1 short-files")
    assert [name for name, _ in first.spec.all()] == ["lines", "upper", "save"]
    assert [unit.inputs for unit in second.units] == [(unit.manifest,) for unit in first.units]
    built(plan, crawl / "out")
    store = open_store(str(crawl / "out"))
    kept, ended = manifests(store, first), manifests(store, second)
    assert [set(record.outputs) for record in kept] == [{"docs"}] * 3 and not any(record.parts for record in kept)
    assert [account["stage"] for account in kept[0].ledger] == ["lines", "upper"]
    assert [account["stage"] for account in ended[0].ledger] == ["short", "files"]
    assert [record.ledger[0]["in"] for record in ended] == [record.outputs["docs"].rows for record in kept] == [4, 3, 0]


def test_only_what_is_behind_is_computed_again(crawl: Path) -> None:
    stages = [UPPER, SAVE, SHORT, UNIQUE]
    store = open_store(str(crawl / "out"))
    built(plan_of(crawl, stages), crawl / "out")
    missing = [len(step.missing(store)) for step in plan_of(crawl, [UPPER, SAVE, ("short", Short(least=6)), UNIQUE]).steps]
    assert missing == [0, 3, 1, 1, 3], "saved; to the barrier; its reduce and its settle; to the sink"
    assert [len(step.missing(store)) for step in plan_of(crawl, [("upper", Upper(salt=1)), *stages[1:]]).steps] == [3, 3, 1, 1, 3]
    (crawl / "b.txt").write_text("another")
    assert [len(step.missing(store)) for step in plan_of(crawl, [UPPER, SAVE, SHORT]).steps] == [1, 3]


def test_what_was_saved_is_needed_checked_and_put_back(crawl: Path) -> None:
    plan, root = plan_of(crawl, SHAPES["between"]), crawl / "out"
    found, store = built(plan, root), open_store(str(root))
    assert unneeded(store) == []
    docs = manifests(store, plan.steps[0])[0].outputs["docs"]
    whole = (root / docs.data).read_bytes()
    (root / docs.data).chmod(0o644)
    (root / docs.data).write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert built(plan, root, verify=True) == found
    assert (root / docs.data).read_bytes() == whole


def test_damage_that_a_later_change_meets_is_mended(crawl: Path) -> None:
    root = crawl / "out"
    plan = plan_of(crawl, SHAPES["between"])
    built(plan, root)
    docs = manifests(open_store(str(root)), plan.steps[0])[1].outputs["docs"]
    (root / docs.data).unlink()
    changed = plan_of(crawl, [UPPER, SAVE, ("short", Short(least=6))])
    assert built(changed, root) == built(plan_of(crawl, [UPPER, ("short", Short(least=6))]), crawl / "fresh")


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([SAVE, UPPER], "stage 'save' is the first, there is no work to keep yet; put it behind the stages to keep"),
        (
            [UPPER, SAVE, ("save-2", Save())],
            "stage 'save-2' stands behind 'save', which keeps the same documents; leave one of the two out",
        ),
        ([UPPER, SAVE, SAVE], "two stages are called 'save'; give each a name of its own"),
    ],
)
def test_a_save_with_nothing_to_keep_is_refused(stages: list[Named], told: str, crawl: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        plan_of(crawl, stages)


def test_the_last_stage_writes(crawl: Path) -> None:
    with pytest.raises(ConfigError, match="the last stage must be one that writes, found 'save'"):
        make_plan("t", [("lines", Lines(paths="")), UPPER, SAVE], [])


def test_documents_that_are_kept_for_a_barrier_are_other_units() -> None:
    """With the same stages before: a barrier needs its rows beside the documents."""
    inputs = [InputFile("a.txt", "a.txt", 1, "stamp")]
    plans = [
        make_plan("t", [("lines", Lines(paths="")), UPPER, end, SHORT, ("files", Files())], inputs) for end in (SAVE, UNIQUE)
    ]
    saved, barred = (plan.steps[0].units[0].fingerprint for plan in plans)
    assert saved != barred
