"""One contract over every stage of `STAGES`: what the machine relies on, whatever the work is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.lineage import Lineage
from pipeline.planning.code import identity
from pipeline.planning.fingerprint import ABSENT, describe, digest
from pipeline.schema import DOCUMENT, check
from pipeline.stage import Barrier, Exchange, Filter, Fit, Map, Sink, Source, Stage, Stored
from pipeline.units import exchange
from pipeline.units.ledger import measure_of
from stages import STAGES
from tests.contract.running import joined, met, opened
from tests.contract.stage_cases import CASES, ON_A_BUILD, RUNS
from tests.contract.world import SPLITS, World, state, whole

REASON = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
REASON_CHARS = 40
FATE = ("drop", "error")
KEPT_BY_ALL = [name for name in DOCUMENT.names if name not in ("text", "media")]
DIGESTS = """
import json, pickle, sys
from pipeline.planning.fingerprint import describe, digest
json.dump([digest(describe(stage)) for stage in pickle.load(sys.stdin.buffer)], sys.stdout)
"""


DOCUMENTS = 14  # of the crawl, beside the odd ones: the last of them show both sides of every filter


@dataclass(frozen=True)
class Done:
    """A stage opened, and what it makes of all its documents; `untouched`: these were not written to."""

    stage: Stage
    docs: pa.Table
    work: Callable[[pa.Table], Any]
    out: Any
    untouched: bool


Doing = Callable[[str, int], Done]


@pytest.fixture(scope="module")
def world(pages: pa.Table, texts: pa.Table, tokenizer: Path) -> World:
    return World.of(*(docs.slice(docs.num_rows - DOCUMENTS) for docs in (pages, texts)), tokenizer)


@pytest.fixture(scope="module")
def done(world: World) -> Doing:
    """Give a stage with its work on all its documents, which is done once for all tests that look at it."""

    @functools.cache
    def doing(name: str, index: int) -> Done:
        stage = world.stage(name, index)
        docs = world.input(stage)
        before, work = ipc(docs), opened(stage, world)
        return Done(stage, docs, work, work(docs), ipc(docs) == before)

    return doing


def of_kind(*kinds: type[Stage]) -> list[tuple[str, int]]:
    return [(name, index) for name, index in RUNS if issubclass(STAGES[name], kinds)]


def test_every_stage_is_in_the_table_with_every_parameter() -> None:
    assert list(CASES) == [name for name in STAGES if name not in ON_A_BUILD]
    for name, case in CASES.items():
        assert set(case.other) == {field.name for field in dataclasses.fields(STAGES[name])} - {"paths"}, name


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_a_stage_is_a_frozen_keyword_only_dataclass_with_a_version(name: str, stage: type[Stage]) -> None:
    assert stage.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only and field.init for field in dataclasses.fields(stage))
    assert isinstance(stage.version, int) and stage.version >= 1
    assert "version" not in {field.name for field in dataclasses.fields(stage)}
    assert get_type_hints(stage)["version"] == ClassVar[int]
    assert (stage.__doc__ or "").split("\n")[0].endswith(".")


def test_no_two_stages_or_parameters_share_a_name_in_fingerprints() -> None:
    classes = {*STAGES.values(), *(each for stage in STAGES.values() for each in parameter_classes(stage))}
    names = [identity(each) for each in classes]
    assert {"Ngram", "CausalLm", "Policy", "Term"} <= set(names) and len(set(names)) == len(names), sorted(names)


def parameter_classes(cls: type) -> set[type]:
    """Return the dataclasses that the parameters of a stage may be, and theirs."""
    found, hints = set[type](), list(get_type_hints(cls).values())
    while hints:
        hint = hints.pop()
        hints += get_args(hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in found:
            found.add(hint)
            hints += get_type_hints(hint).values()
    return found


@pytest.mark.parametrize(("name", "index"), RUNS)
def test_the_libraries_that_a_stage_names_are_installed(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    assert len(set(stage.libraries())) == len(stage.libraries())
    assert ABSENT not in describe(stage).get("libraries", {}).values()


@pytest.mark.parametrize(("name", "index"), RUNS)
def test_a_stage_survives_pickling_and_passes_its_own_check(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    again = pickle.loads(pickle.dumps(stage))
    assert again == stage and describe(again) == describe(stage)
    stage.check()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage.added = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CASES)
def test_each_parameter_changes_the_fingerprint(name: str, world: World) -> None:
    case = CASES[name]
    base = world.stage(name, 0)
    seen = {digest(describe(base))}
    for parameter, changes in case.other.items():
        changed = world.make(name, {**case.one[0], **changes})
        if changes:
            assert getattr(changed, parameter) != getattr(base, parameter), parameter
            assert digest(describe(changed)) not in seen, parameter
        seen.add(digest(describe(changed)))
    spelled_out = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    assert describe(type(base)(**spelled_out)) == describe(base)


def test_the_paths_of_a_source_are_no_part_of_the_fingerprint_and_the_version_is() -> None:
    for name, stage in STAGES.items():
        if issubclass(stage, Source) and name not in ON_A_BUILD:
            assert describe(stage(paths="a")) == describe(stage(paths=("b", "c")))
            newer = type(stage.__name__, (stage,), {"version": stage.version + 1})
            assert describe(newer(paths="a")) != describe(stage(paths="a"))


@pytest.mark.parametrize(("name", "index"), RUNS)
def test_the_fingerprint_covers_the_content_of_the_files_that_the_stage_names(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    hashes = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in stage.files()]
    assert list(describe(stage).get("files", {}).values()) == hashes


@pytest.mark.parametrize(("name", "index"), RUNS)
def test_what_a_stage_attaches_is_in_its_fingerprint(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    assert set(stage.attachments().values()) <= set(stage.files())
    assert all(re.fullmatch(r"[a-z][a-z0-9.-]*", attached) for attached in stage.attachments())


def test_another_process_with_another_hash_seed_gives_the_same_fingerprints(world: World) -> None:
    made = [world.stage(name, index) for name, index in RUNS]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12345"}
    told = subprocess.run([sys.executable, "-c", DIGESTS], input=pickle.dumps(made), env=environment, capture_output=True)
    assert json.loads(told.stdout) == [digest(describe(stage)) for stage in made], told.stderr


# Maps, filters, and what a fit makes of its model: a table goes in, one of the same rows comes out.


@pytest.mark.parametrize(("name", "index"), of_kind(Map, Fit))
def test_a_map_returns_the_same_rows_with_the_columns_it_declares(name: str, index: int, done: Doing) -> None:
    stage, docs, out = done(name, index).stage, done(name, index).docs, done(name, index).out
    assert done(name, index).untouched, "the input was written to"
    assert out.select(KEPT_BY_ALL).equals(docs.select(KEPT_BY_ALL))
    check(out, DOCUMENT, name)
    assert set(out.column_names) - set(docs.column_names) - set(FATE) == set(stage.adds()) - set(docs.column_names)
    for column, kind in stage.adds().items():
        assert out.schema.field(column).type == kind, column
    for column in set(docs.column_names) - set(stage.adds()) - {"text", "media"}:
        assert state(out[column]) == state(docs[column]), column
    for column in stage.measures():
        if isinstance(column, tuple):
            assert set(column) <= set(out.column_names), column
            continue
        measure = measure_of(out.schema.field(column).type)
        measure.add(out[column])
        assert measure.count > 0, column
    if "drop" in out.column_names:
        expect_reasons(out["drop"])


@pytest.mark.parametrize(("name", "index"), of_kind(Filter))
def test_a_filter_gives_each_row_a_reason_or_null(name: str, index: int, done: Doing) -> None:
    docs, reasons = done(name, index).docs, done(name, index).out
    assert done(name, index).untouched, "the input was written to"
    assert isinstance(reasons, pa.Array | pa.ChunkedArray) and len(reasons) == docs.num_rows
    assert reasons.type == pa.string()
    expect_reasons(reasons)
    assert 0 < reasons.null_count < len(reasons), "the texts must show both sides of the filter"


@pytest.mark.parametrize(("name", "index"), of_kind(Map, Filter, Fit))
def test_what_a_stage_explains_is_what_it_decided(name: str, index: int, done: Doing) -> None:
    stage, docs, work = done(name, index).stage, done(name, index).docs, done(name, index).work
    parameters = {field.name for field in dataclasses.fields(stage)}
    for row in range(min(docs.num_rows, 4)):
        before = docs.slice(row, 1)
        out = work(before)
        after = before.append_column("drop", out) if isinstance(stage, Filter) else out
        found = stage.explain(before, after)
        reason = after["drop"][0].as_py() if "drop" in after.column_names else None
        deciding = [each for each in found if each.decisive]
        assert deciding in ([], list(found[:1])) and (reason is not None or not deciding), "the one that decided comes first"
        assert deciding or reason in (None, "empty"), f"what {reason} was decided by"
        assert reason is not None or not any(limit.broken for each in found for limit in each.limits)
        limits = [limit for each in found for limit in each.limits]
        assert {limit.parameter.partition("[")[0] for limit in limits} <= parameters


@pytest.mark.parametrize(("name", "index"), of_kind(Map, Filter, Fit))
def test_no_split_of_the_documents_into_tables_shows_in_the_output(name: str, index: int, world: World, done: Doing) -> None:
    stage, docs, expected = done(name, index).stage, done(name, index).docs, state(done(name, index).out)
    again = opened(pickle.loads(pickle.dumps(stage)), world)
    for split, cut in SPLITS.items():
        results = [again(table) for table in cut(docs)]
        assert state(joined(results)) == expected, split


@pytest.mark.parametrize(("name", "index"), of_kind(Map, Filter, Fit))
def test_a_table_without_rows_gives_the_schema_of_one_with_rows(name: str, index: int, done: Doing) -> None:
    stage, docs, full = done(name, index).stage, done(name, index).docs, done(name, index).out
    for empty in (docs.slice(0, 0), docs.schema.empty_table(), docs.slice(5, 0)):
        out = done(name, index).work(empty)
        assert len(out) == 0
        assert out.type == full.type if isinstance(stage, Filter) else out.schema.equals(full.schema, check_metadata=True)


# Barriers


@pytest.mark.parametrize(("name", "index"), of_kind(Barrier))
def test_a_barrier_emits_keys_and_rows_of_its_table(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    assert isinstance(stage, Barrier)
    docs = world.input(stage)
    before = ipc(docs)
    rows = stage.open()(docs)
    assert ipc(docs) == before, "the input was written to"
    assert rows.schema.field("key").type == pa.uint64() and rows["key"].null_count == 0
    assert "shard" not in rows.column_names and rows.num_rows > 0
    if isinstance(stage, Exchange):
        assert rows.schema.field("row").type == pa.int64()
        assert set(rows["row"].to_pylist()) <= set(range(docs.num_rows))
    assert stage.open()(docs.slice(0, 0)).schema == stage.open()(docs.schema.empty_table()).schema == rows.schema
    combine = stage.combine()
    if combine is not None:
        assert combine(rows).schema == rows.schema and combine(rows.slice(0, 0)).num_rows == 0


@pytest.mark.parametrize(("name", "index"), of_kind(Barrier))
def test_no_split_and_no_number_of_keys_a_call_shows_in_what_is_settled(name: str, index: int, world: World) -> None:
    stage = world.stage(name, index)
    assert isinstance(stage, Barrier)
    docs = world.input(stage)
    halves = docs.slice(0, 15), docs.slice(15)
    expected = state(met(stage, [[half] for half in halves]))
    for calls in (3, 200):
        assert state(met(pickle.loads(pickle.dumps(stage)), [[half] for half in halves], calls)) == expected, calls
    for split, cut in SPLITS.items():
        assert state(met(stage, [cut(half) for half in halves], 5)) == expected, split


@pytest.mark.parametrize(("name", "index"), of_kind(Exchange))
def test_verdicts_name_documents_once_with_the_declared_columns(name: str, index: int, world: World, tmp_path: Path) -> None:
    stage, docs = world.stage(name, index), world.input(world.stage(name, index))
    assert isinstance(stage, Exchange)
    verdicts = met(stage, [[docs.slice(0, 15)], [docs.slice(15)]])
    assert {f.name: f.type for f in verdicts.schema} == {**exchange.ADDRESS, "drop": pa.string(), **stage.adds()}
    addresses = list(zip(verdicts["shard"].to_pylist(), verdicts["row"].to_pylist(), strict=True))
    assert len(set(addresses)) == len(addresses) and all(row < (15, docs.num_rows - 15)[shard] for shard, row in addresses)
    expect_reasons(verdicts["drop"])
    assert pc.sum(pc.is_valid(verdicts["drop"])).as_py() > 0, "the texts must hold duplicates"
    assert set(stage.defaults()) == set(stage.adds())
    assert met(stage, [[docs.slice(0, 0)]]).schema == verdicts.schema
    exchange.write_verdicts(stage, verdicts, 2, tmp_path / "verdicts.arrow")
    judged = exchange.apply_verdicts(docs.slice(15), 0, verdicts.filter(pc.equal(verdicts["shard"], 1)), stage.defaults())
    for column, kind in stage.adds().items():
        assert judged.schema.field(column).type == kind
    for column in stage.measures():
        measure_of(judged.schema.field(column).type).add(judged[column])


# Sinks


def written(stage: Sink, tables: Sequence[pa.Table], folder: Path) -> list[tuple[Any, ...]]:
    folder.mkdir(parents=True)
    parts = stage.open()(iter(tables), folder)
    assert sorted(folder.iterdir()) == sorted(part.path for part in parts), "a file that is no part"
    return [(part.kind, part.number, part.rows, json.dumps(part.stats, sort_keys=True), part.path.read_bytes()) for part in parts]


@pytest.mark.parametrize(("name", "index"), of_kind(Sink))
def test_a_sink_writes_the_same_bytes_whatever_the_split(name: str, index: int, world: World, tmp_path: Path) -> None:
    stage, docs = world.stage(name, index), scored(world)
    assert isinstance(stage, Sink)
    before = ipc(docs)
    expected = written(stage, [docs], tmp_path / "whole")
    assert ipc(docs) == before, "the input was written to"
    assert expected and len({(kind, number) for kind, number, *_ in expected}) == len(expected)
    rows = {kind: sum(each[2] for each in expected if each[0] == kind) for kind, *_ in expected}
    assert set(rows.values()) == {docs.num_rows}
    if index:
        assert len({number for _, number, *_ in expected}) > 1, "the parameters must make more than one part"
    for split, cut in SPLITS.items():
        assert written(pickle.loads(pickle.dumps(stage)), cut(docs), tmp_path / split) == expected, split


@pytest.mark.parametrize(("name", "index"), of_kind(Sink))
def test_a_sink_writes_nothing_for_no_documents(name: str, index: int, world: World, tmp_path: Path) -> None:
    stage, docs = world.stage(name, index), scored(world)
    assert isinstance(stage, Sink)
    assert written(stage, [], tmp_path / "none") == []
    assert written(stage, [docs.slice(0, 0), docs.slice(3, 0)], tmp_path / "empty") == []


@pytest.mark.parametrize(("name", "index"), of_kind(Sink))
def test_an_assembly_depends_on_the_parts_alone(name: str, index: int, world: World, tmp_path: Path) -> None:
    stage, docs = world.stage(name, index), scored(world)
    assert isinstance(stage, Sink)
    stored = []
    for shard, half in enumerate((docs.slice(0, 15), docs.slice(15))):
        (tmp_path / str(shard)).mkdir()
        for part in stage.open()(iter([half]), tmp_path / str(shard)):
            content = part.path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            address = (shard, f"{shard}.warc", part.kind, part.number, f"data/{sha256}")
            stored.append(Stored(*address, sha256, len(content), part.rows, json.loads(json.dumps(part.stats))))
    lineage = Lineage(name="n", inputs=(), stages=())
    built = stage.assemble(stored, lineage)
    assert stage.assemble(iter(reversed(stored)), lineage) == built == type(stage)().assemble(stored, lineage)
    assert re.fullmatch(r"[0-9a-f]{32}", built.id) and built.manifest in built.files
    assert sorted(built.links.values()) == sorted(part.data for part in stored)
    assert stage.assemble(stored[:1], lineage).id != built.id
    assert stage.assemble([], lineage).links == {}


def scored(world: World) -> pa.Table:
    """Return documents as they come to the sink of token shards."""
    stage = world.stage("score_ngram", 0)
    return whole(opened(stage, world)(world.encoded))


def ipc(table: pa.Table) -> bytes:
    """Return the bytes of all buffers, to see whether they were written to."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def expect_reasons(reasons: pa.Array | pa.ChunkedArray) -> None:
    assert reasons.type == pa.string()
    for reason in reasons.drop_null().unique().to_pylist():
        assert REASON.fullmatch(reason) and len(reason) <= REASON_CHARS, reason


@pytest.mark.parametrize(("name", "index"), of_kind(Map))
def test_a_map_replaces_the_columns_it_finds(name: str, index: int, done: Doing) -> None:
    once = done(name, index).out
    twice = done(name, index).work(once.drop_columns([column for column in ("drop", "error") if column in once.column_names]))
    assert sorted(twice.column_names) == sorted(once.column_names)
    assert len(set(twice.column_names)) == len(twice.column_names)
