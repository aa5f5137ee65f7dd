"""From stages to units with names: where segments end, what a name depends on, and which lists of stages are no plan."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gristmill.errors import ConfigError
from gristmill.storage.store import InputFile
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.plan_check import order_faults
from pipeline.stage import Named, Save
from tests.toy import Files, Lines, Share, Short, Unique, Upper, Words

LINES, UPPER, SHORT, UNIQUE, SHARE, FILES = (
    ("lines", Lines(paths="")),
    ("upper", Upper()),
    ("short", Short()),
    ("unique", Unique()),
    ("share", Share()),
    ("files", Files()),
)
SAVE = ("save", Save())


def file(name: str, stamp: str = "1") -> InputFile:
    return InputFile(name, f"/in/{name}", 10, stamp)


def plan_of(*between: Named, inputs: Sequence[InputFile] = (file("a"), file("b")), partitions: int | None = None) -> Plan:
    return make_plan("t", [LINES, *between, FILES], inputs, partitions)


def names(plan: Plan, step: int) -> list[str]:
    return [unit.fingerprint for unit in plan.steps[step].units]


def test_segments_end_at_barriers_and_saves() -> None:
    plan = plan_of(UPPER, UNIQUE, SAVE, SHORT, SHARE)
    assert [(step.name, step.spec.kind, [name for name, _ in step.spec.all()]) for step in plan.steps] == [
        ("0 lines-unique", "segment", ["lines", "upper", "unique"]),
        ("1 unique-reduce", "reduce", ["unique"]),
        ("2 unique-settle", "settle", ["unique"]),
        ("3 unique-save", "segment", ["unique", "save"]),
        ("4 short-share", "segment", ["short", "share"]),
        ("5 share-reduce", "reduce", ["share"]),
        ("6 share-settle", "settle", ["share"]),
        ("7 share-files", "segment", ["share", "files"]),
    ]
    assert [len(step.units) for step in plan.steps] == [2, 1, 1, 2, 2, 1, 1, 2]


def test_a_unit_reads_the_segment_before_it_and_the_settle_between() -> None:
    plan = plan_of(UNIQUE, SAVE, SHORT, SHARE)
    first, reduce, settle, saved, emitting, _, last_settle, last = plan.steps
    assert [unit.inputs for unit in reduce.units] == [tuple(unit.manifest for unit in first.units)]
    assert settle.units[0].inputs == tuple(unit.manifest for unit in reduce.units)
    assert saved.units[1].inputs == (first.units[1].manifest, settle.units[0].manifest)
    assert emitting.units[1].inputs == (saved.units[1].manifest,)
    assert last.units[1].inputs == (emitting.units[1].manifest, last_settle.units[0].manifest)
    assert {unit.label for step in (first, saved, emitting, last) for unit in step.units} == {"a", "b"}
    assert all(unit.manifest == f"{step.folder}/{unit.fingerprint}.json" for step in plan.steps for unit in step.units)


@pytest.mark.parametrize(("inputs", "partitions"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 4), (100, 32), (10_000, 64)])
def test_about_one_reduce_for_four_inputs(inputs: int, partitions: int) -> None:
    plan = plan_of(UNIQUE, inputs=[file(f"{number:05}") for number in range(inputs)])
    assert len(plan.steps[1].units) == partitions


@pytest.mark.parametrize("partitions", [0, 3, 128, -1])
def test_partitions_are_powers_of_two(partitions: int) -> None:
    with pytest.raises(ConfigError, match=f"partitions: {partitions} is not a power of two from 1 to 64"):
        plan_of(UNIQUE, partitions=partitions)


def test_a_name_depends_on_what_a_unit_reads_and_does_and_on_nothing_else() -> None:
    plan = plan_of(UPPER, UNIQUE, SHORT)
    first = names(plan, 0)
    assert names(plan_of(UPPER, UNIQUE, SHORT, inputs=[file("c"), file("a"), file("b")]), 0)[1:] == first, "not on its place"
    assert names(plan_of(UPPER, UNIQUE, ("short", Short(least=9))), 0) == first, "not on what comes behind"
    assert names(plan_of(("loud", UPPER[1]), UNIQUE, SHORT), 0) == first, "not on what a stage is called"
    others = {
        "content": plan_of(UPPER, UNIQUE, SHORT, inputs=[file("a", "2"), file("b", "2")]),
        "parameters": plan_of(("upper", Upper(salt=1)), UNIQUE, SHORT),
        "stages": plan_of(UNIQUE, SHORT),
        "end": plan_of(UPPER, SAVE, SHORT),
        "barrier": plan_of(UPPER, SHARE, SHORT),
    }
    for why, other in others.items():
        assert not set(names(other, 0)) & set(first), why
    assert not set(names(plan_of(UPPER, UNIQUE, SHORT, inputs=[file("a"), file("b", "2")]), 3)) & set(names(plan, 3))


def test_the_plan_has_another_name_for_another_order_and_none_for_another_title() -> None:
    plan = plan_of(UPPER)
    assert make_plan("other", plan.stages, plan.inputs).fingerprint == plan.fingerprint
    assert plan_of(UPPER, inputs=plan.inputs[::-1]).fingerprint != plan.fingerprint
    assert plan.finished() == f"finished/{plan.fingerprint}.json"


def test_reduces_of_another_number_are_other_units_with_one_settle_each() -> None:
    one, two = plan_of(UNIQUE, partitions=1), plan_of(UNIQUE, partitions=2)
    assert not set(names(one, 1)) & set(names(two, 1)) and names(one, 0) == names(two, 0)


@pytest.mark.parametrize(
    ("stages", "at", "told"),
    [
        ([UPPER, FILES], 0, "'upper' is no source; the first of the stages reads the input"),
        ([LINES, ("more", Lines(paths="")), FILES], 1, "'more' is a source; only the first of the stages reads the input"),
        ([LINES, FILES, UPPER, ("end", Files())], 1, "stage 'files' writes the shards and must be the last, found before 'end'"),
        ([LINES, UPPER], 1, "the last stage must be one that writes, found 'upper'"),
        ([LINES], 0, "the last stage must be one that writes, found 'lines'"),
        ([LINES, SHORT, ("short", Short(least=9)), FILES], 2, "two stages are called 'short'; give each a name of its own"),
        ([LINES, SAVE, FILES], 1, "stage 'save' is the first, there is no work to keep yet"),
    ],
)
def test_what_stands_where_it_cannot(stages: list[Named], at: int, told: str) -> None:
    fault = next(order_faults(stages))
    assert fault.at == at and fault.message.startswith(told)
    with pytest.raises(ConfigError, match=told):
        make_plan("t", stages, [])


def test_flat_maps_are_fused_like_maps_and_saves_are_in_no_lineage() -> None:
    plan = plan_of(("words", Words()), SAVE, SHORT)
    assert [name for name, _ in plan.steps[0].spec.stages] == ["words"]
    assert [stage.stage for stage in plan.lineage().stages] == ["lines", "words", "short", "files"]
