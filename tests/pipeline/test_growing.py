"""Inputs that come, go and change names between two runs on one output: always the build that one run on a fresh output gives."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests, stored_parts
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Named, Plan, make_plan
from pipeline.records import UnitRecord
from stages.sink.documents import Documents
from tests.toy import Lines, Share, Short, Unique, Upper

# Texts repeat within and between files, so that verdicts on one file depend on which files come before it.
TEXTS = {
    name: [f"{word} of {letter}" for word in words for letter in ("the mill", "water", f"file {name}")]
    for name, words in {"a": "one two", "b": "two three four", "c": "one four", "d": "five one"}.items()
    for words in [words.split()]
}
PLAIN = [("upper", Upper()), ("short", Short())]
SHAPES: dict[str, list[Named]] = {
    "several_parts_a_shard": [*PLAIN, ("documents", Documents(bytes_per_shard=40))],
    "verdicts": [*PLAIN, ("unique", Unique()), ("documents", Documents(bytes_per_shard=40))],
    "verdicts_then_model": [("unique", Unique()), *PLAIN, ("share", Share()), ("documents", Documents())],
}
CHANGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "in_front": (("b", "c"), ("a", "b", "c")),
    "in_the_middle": (("a", "c"), ("a", "b", "c")),
    "at_the_end": (("a", "b"), ("a", "b", "c")),
    "everywhere": (("b",), ("a", "b", "c", "d")),
    "the_first_goes": (("a", "b", "c"), ("b", "c")),
    "the_middle_goes": (("a", "b", "c"), ("a", "c")),
    "the_last_goes": (("a", "b", "c"), ("a", "b")),
    "one_comes_as_another_goes": (("a", "b", "c"), ("b", "c", "d")),
}


def lay(folder: Path, content: Mapping[str, str]) -> None:
    """Make the folder hold these files, name → whose texts, without touching those that stay."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.stem not in content:
            path.unlink()
    for name, texts in content.items():
        path = folder / f"{name}.txt"
        if not path.exists() or path.read_text() != "\n".join(TEXTS[texts]):
            path.write_text("\n".join(TEXTS[texts]))


def plan_of(folder: Path, shape: str) -> Plan:
    stages: list[Named] = [("lines", Lines(paths=f"{folder}/*.txt")), *SHAPES[shape]]
    return make_plan("growing", stages, expand(f"{folder}/*.txt"))


def build(plan: Plan, root: Path) -> tuple[str, dict[str, bytes]]:
    """Return the build's id and all its files."""
    outcome = drive(plan, lambda: LocalEngine(0), Options(str(root), 4))
    assert outcome.build is not None, outcome.failures
    files = {path.name: path.read_bytes() for path in (root / "builds" / outcome.build).iterdir()}
    return outcome.build, {name: content for name, content in files.items() if name != "manifest.json"}


Fresh = Callable[[str, tuple[str, ...]], tuple[str, dict[str, bytes]]]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """What one shot makes of a set of files: each is made once."""

    @cache
    def made(shape: str, names: tuple[str, ...]) -> tuple[str, dict[str, bytes]]:
        folder = tmp_path_factory.mktemp("fresh")
        lay(folder / "crawl", {name: name for name in names})
        return build(plan_of(folder / "crawl", shape), folder / "output")

    return made


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_of_inputs_gives_the_build_of_one_shot(shape: str, change: str, fresh: Fresh, tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    for names in CHANGES[change]:
        lay(crawl, {name: name for name in names})
        assert build(plan_of(crawl, shape), tmp_path / "output") == fresh(shape, names)
    assert len(list((tmp_path / "output" / "builds").iterdir())) == 2, "the change shows in the build"


@pytest.mark.parametrize("shape", SHAPES)
def test_names_and_contents_that_move(shape: str, tmp_path: Path) -> None:
    """A file gets another's name, two swap theirs, one takes the content of another: each as in one shot."""
    crawl, output = tmp_path / "crawl", tmp_path / "output"
    moves = [{"a": "a", "b": "b", "c": "c"}, {"b": "b", "c": "c", "z": "a"}, {"b": "c", "c": "b", "z": "a"}, {"b": "b", "c": "b"}]
    for number, content in enumerate(moves):
        lay(crawl, content)
        assert build(plan_of(crawl, shape), output) == build(plan_of(crawl, shape), tmp_path / f"fresh-{number}")


@pytest.mark.parametrize("shape", ["several_parts_a_shard", "verdicts"])
def test_every_order_of_arrival_leads_to_one_build(shape: str, tmp_path: Path) -> None:
    found = set()
    for order in itertools.permutations(("a", "b", "c")):
        crawl, output = tmp_path / f"crawl-{order}", tmp_path / f"output-{order}"
        for count in (1, 2, 3):
            lay(crawl, {name: name for name in order[:count]})
            made, _ = build(plan_of(crawl, shape), output)
        found.add(made)
    assert len(found) == 1


def test_a_record_of_a_unit_says_nothing_of_its_place(tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    lay(crawl, {"b": "b", "c": "c"})
    plan = plan_of(crawl, "several_parts_a_shard")
    build(plan, tmp_path / "output")
    found = manifests(open_store(str(tmp_path / "output")), plan.steps[-1])
    assert not {field.name for field in fields(UnitRecord)} & {"index", "number", "place", "shard"}
    parts = stored_parts(plan.steps[-1], [replace(record, unit="a.txt") for record in found])
    assert sorted({(part.shard, part.input) for part in parts}) == [(0, "b.txt"), (1, "c.txt")]


def test_two_parts_of_one_place_are_no_build(tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    lay(crawl, {"b": "b", "c": "c"})
    plan = plan_of(crawl, "several_parts_a_shard")
    build(plan, tmp_path / "output")
    found = manifests(open_store(str(tmp_path / "output")), plan.steps[-1])
    twice = [replace(record, parts=(*record.parts, *record.parts)) for record in found]
    with pytest.raises(AssertionError, match="two parts of one place"):
        stored_parts(plan.steps[-1], twice)


def test_a_plan_finished_by_a_machine_that_misplaced_files_is_assembled_anew(tmp_path: Path) -> None:
    """What was recorded as finished under the plan's former name leads nowhere; the units it computed serve again."""
    crawl, output = tmp_path / "crawl", tmp_path / "output"
    lay(crawl, {"a": "a", "b": "b"})
    plan = plan_of(crawl, "several_parts_a_shard")
    right = build(plan, output)
    finished = output / plan.finished()
    wrong = json.dumps({**json.loads(finished.read_text()), "build": "of an older machine"})
    finished.unlink()
    (output / "finished" / f"{'0' * 32}.json").write_text(wrong)
    units = sorted((output / "steps").rglob("*.json"))
    assert build(plan, output) == right
    assert sorted((output / "steps").rglob("*.json")) == units
