"""What the machine writes down: what was written is read, what is damaged is told from what is missing; both name the file."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import Damaged
from gristmill.storage.store import Store, open_store
from pipeline.lineage import BuildInput, BuildStage
from pipeline.records import (
    Data,
    Finished,
    Lead,
    PartData,
    RunRecord,
    StepRecord,
    UnitRecord,
    add_run,
    find_finished,
    find_lead,
    find_unit,
    pack,
    read_run,
    read_unit,
    runs,
)

SHA = "0a" * 32
DATA = Data(data=f"data/0a/{SHA}.arrow", sha256=SHA, bytes=90, rows=3, ends=(40, 90), hashes=("aa", "bb"))
PART = PartData(data=DATA.data, sha256=SHA, bytes=90, rows=3, kind="tokens", number=2, stats={"tokens": 7, "of": {"é": [1]}})
UNIT_NAME = f"steps/warc-x-0123/{'b' * 32}.json"
SAMPLE = {"id": "a", "url": None, "file": "a", "offset": 0, "text": "x", "language": "en"}
ACCOUNT = {
    "stage": "warc",
    "phase": "whole",
    "in": 3,
    "kept": 2,
    "dropped": {"short": 1},
    "quarantined": {},
    "samples": {"short": [SAMPLE]},
    "cpu_s": 0.1,
    "wall_s": -1e-9,
}
MEASURE = {"kind": "number", "count": 2, "sum": 1e300, "min": 1, "max": 2.5, "sparse": {"o1": 2}}
UNIT = UnitRecord(
    unit="a 'file'.warc.gz",
    fingerprint="b" * 32,
    outputs={"docs": DATA},
    parts=(PART,),
    ledger=(ACCOUNT,),
    measures={"size": MEASURE, "language": {"kind": "category", "counts": {"en": 2}}},
    seconds={"wall": 0.25, "cpu": 1 / 3},
)
STEP = StepRecord(name="0 warc", kind="segment", stages=("warc", "documents"), units=(UNIT_NAME,), done=1)
RUN = RunRecord(
    build="c" * 32,
    manifest=f"builds/{'c' * 32}/manifest.json",
    name="demo",
    inputs=(BuildInput("a", "/in/a", 3),),
    stages=(BuildStage("warc", 1, {"max_bytes": None, "of": [{"é": 1}]}),),
    run={"on": "local", "workers": None},
    steps=(STEP,),
)
FINISHED = Finished(build="x", manifest="builds/x/m.json", record="runs/r.json", files={}, content="")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_what_was_written_is_read(store: Store) -> None:
    empty = replace(UNIT, outputs={}, parts=(), ledger=(), measures={}, stage="unique")
    for number, unit in enumerate((UNIT, empty)):
        name = f"steps/warc-x-0123/{number:032x}.json"
        store.put_new(name, pack(unit))
        assert read_unit(store, name) == find_unit(store, name) == unit
    name = add_run(store, RUN)
    assert read_run(store, name) == RUN and find_lead(store, name) == Lead(build=RUN.build, manifest=RUN.manifest)
    finished = Finished(build=RUN.build, manifest=RUN.manifest, record=name, files={"a.arrow": 5}, content="0a" * 8)
    store.put_new("finished/p.json", pack(finished))
    assert find_finished(store, "finished/p.json") == finished


def test_what_is_not_there_is_missing_and_not_damaged(store: Store) -> None:
    assert find_unit(store, UNIT_NAME) is None and find_finished(store, "finished/p.json") is None
    assert find_lead(store, "runs/run-00000001.json") is None and runs(store) == []
    with pytest.raises(Damaged, match=r"steps/warc-x-0123/b+\.json was committed and is missing") as raised:
        read_unit(store, UNIT_NAME)
    assert raised.value.record == UNIT_NAME
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.record, again.what) == (str(raised.value), UNIT_NAME, raised.value.what)


DAMAGES = {
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "a_bit": lambda raw: raw.replace(b'"demo"', b'"demn"').replace(b'"rows": 3', b'"rows": 1'),
    "zeros": lambda raw: bytes(len(raw)),
    "no_utf8": lambda raw: raw.replace(b"warc", b"\xff\xfe\xfd\xfc"),
    "deep": lambda raw: b"[" * 200_000,
    "another_kind": lambda raw: b"[1, 2]",
    "nothing_of_it": lambda raw: b'{"x": 1}',
    "a_number": lambda raw: b"7",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named(store: Store, damage: str) -> None:
    for name, record, read in (
        (UNIT_NAME, UNIT, read_unit),
        ("runs/run-00000001.json", RUN, read_run),
        (
            "finished/p.json",
            Finished(build="x", manifest="builds/x/m.json", record="runs/r.json", files={}, content=""),
            find_finished,
        ),
    ):
        raw = pack(record)
        changed = DAMAGES[damage](raw)
        if changed == raw:
            continue  # the finished plan has none of the words that are changed
        store.put_new(name, changed)
        with pytest.raises(Damaged) as raised:
            read(store, name)
        assert store.uri(name) in str(raised.value) and raised.value.record == name


@pytest.mark.parametrize("name", [UNIT_NAME, "runs/run-00000001.json", "finished/p.json"])
def test_a_record_without_its_hash_is_no_record(store: Store, name: str) -> None:
    content = json.loads(pack(UNIT if name == UNIT_NAME else RUN))
    del content["check"]
    store.put_new(name, json.dumps(content).encode())
    with pytest.raises(Damaged, match=f"{name} is damaged"):
        {UNIT_NAME: read_unit, "finished/p.json": find_finished}.get(name, read_run)(store, name)


def test_every_changed_byte_of_a_manifest_is_noticed(store: Store) -> None:
    raw = pack(UNIT)
    unnoticed = set()
    for at in range(0, len(raw), 3):
        store.remove(UNIT_NAME)
        store.put_new(UNIT_NAME, raw[:at] + bytes([raw[at] ^ 2]) + raw[at + 1 :])
        try:
            if read_unit(store, UNIT_NAME) != UNIT:
                unnoticed.add(at)
        except Damaged:
            continue
    assert not unnoticed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("build", "../../../elsewhere"),
        ("build", ""),
        ("build", ".."),
        ("manifest", "/etc/manifest.json"),
        ("manifest", "builds/../../x/manifest.json"),
        ("steps", [{"name": "0", "kind": "segment", "stages": [], "done": 0, "units": [f"steps/../../{'b' * 32}.json"]}]),
        ("steps", [{"name": "0", "kind": "segment", "stages": [], "done": 0, "units": ["/x.json"]}]),
        ("again", "../runs/x.json"),
    ],
)
def test_names_in_a_record_lead_nowhere_else(store: Store, key: str, value: object) -> None:
    content = {**json.loads(pack(RUN)), key: value}
    del content["check"]
    store.put_new("runs/20250101T000000Z-x.json", json.dumps(content).encode())
    with pytest.raises(Damaged, match=r"20250101T000000Z-x\.json: (steps: )?(unit|'\w+')"):
        read_run(store, "runs/20250101T000000Z-x.json")


@pytest.mark.parametrize("data", ["/etc/passwd", "data/0a/../../x.arrow", f"../data/0a/{SHA}.arrow", f"data/0a/{SHA}.arrow\n"])
def test_files_of_a_unit_lie_in_the_output(store: Store, data: str) -> None:
    store.put_new(UNIT_NAME, pack(replace(UNIT, outputs={"docs": replace(DATA, data=data)})))
    with pytest.raises(Damaged, match="'data' is"):
        read_unit(store, UNIT_NAME)


def test_runs_are_numbered_behind_those_that_were_named_by_time(store: Store) -> None:
    """The newest is the last that was written, by its name alone."""
    store.put_new("runs/20991231T235959999999Z-cccccccccccc.json", pack(RUN))
    names = [add_run(store, replace(RUN, name=f"number {n}")) for n in range(12)]
    assert runs(store) == [*names[::-1], "runs/20991231T235959999999Z-cccccccccccc.json"]
    assert len(set(names)) == 12 and read_run(store, runs(store)[0]).name == "number 11"


def test_a_run_with_nothing_to_do_leads_to_the_one_that_did_it(store: Store) -> None:
    name = add_run(store, RUN)
    again = add_run(store, Lead(build=RUN.build, manifest=RUN.manifest, again=name))
    assert read_run(store, again) == RUN and find_lead(store, again) == Lead(build=RUN.build, manifest=RUN.manifest, again=name)
    store.remove(name)
    with pytest.raises(Damaged, match=r"run-00000001\.json is missing"):
        read_run(store, again)


FORGED: dict[str, tuple[dict[str, Any], str]] = {
    "a stage that is no name": ({"ledger": [{**ACCOUNT, "stage": 3}]}, "ledger[0]: 'stage' must be text"),
    "no stage": ({"ledger": [{}]}, "ledger[0]: 'stage' must be text"),
    "a phase": ({"ledger": [{**ACCOUNT, "phase": "x"}]}, "ledger[0]: 'phase' is 'x', must match"),
    "a text for a count": ({"ledger": [{**ACCOUNT, "in": "3"}]}, "ledger[0]: 'in' must be a whole number"),
    "a count below zero": ({"ledger": [{**ACCOUNT, "made": -1}]}, "ledger[0]: 'made' is -1, must not be negative"),
    "no time": ({"ledger": [{**ACCOUNT, "cpu_s": float("nan")}]}, "ledger[0]: 'cpu_s' must be a number"),
    "reasons": ({"ledger": [{**ACCOUNT, "dropped": ["short"]}]}, "ledger[0]: 'dropped' must be an object"),
    "a reason": ({"ledger": [{**ACCOUNT, "dropped": {"short": None}}]}, "ledger[0]: dropped: 'short' must be a whole number"),
    "samples": (
        {"ledger": [{**ACCOUNT, "samples": {"short": 1}}]},
        "ledger[0]: samples: short[0]: expected an object",
    ),
    "a sample": (
        {"ledger": [{**ACCOUNT, "samples": {"short": [{**SAMPLE, "id": 1}]}}]},
        "ledger[0]: samples: short[0]: 'id' must be text",
    ),
    "notes": ({"ledger": [{**ACCOUNT, "notes": [1]}]}, "ledger[0]: 'notes' must be a list of texts"),
    "a histogram": ({"measures": {"size": 3}}, "measures: size: expected an object"),
    "joint counts": (
        {"measures": {"a": {"kind": "joint", "columns": ["a"], "joint": {"x": [1]}}}},
        "measures: a: joint: 'x' is a list of 1",
    ),
    "its kind": ({"measures": {"size": {}}}, "measures: size: 'kind' must be text"),
    "its bounds": ({"measures": {"size": {**MEASURE, "min": None}}}, "measures: size: 'min' must be a number"),
    "its bins": ({"measures": {"size": {**MEASURE, "sparse": {"x": 1}}}}, "measures: size: sparse: 'x' must match"),
    "seconds": ({"seconds": {"wall": "1", "cpu": 1}}, "seconds: 'wall' must be a number"),
    "languages": (
        {"parts": [{**asdict(PART), "stats": {"languages": {"en": [1, 2]}}}]},
        "parts: stats: languages: 'en' is ",
    ),
}
FORGED_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "an engine": ({"run": {"on": "mars"}}, "run: 'on' is 'mars', must match local|ray"),
    "workers": ({"run": {"workers": "2"}}, "run: 'workers' must be a whole number"),
    "seconds": ({"run": {"seconds": None}}, "run: 'seconds' must be a number"),
    "a config": ({"run": {"config": "x"}}, "run: 'config' must be an object"),
    "origins": ({"run": {"origins": []}}, "run: 'origins' must be an object"),
    "an origin": ({"run": {"origins": {"warc": "1"}}}, "run: origins: 'warc' must be an object"),
    "a version": ({"run": {"origins": {"warc": {"python": 3}}}}, "run: origins: warc: 'python' must be text"),
}


@pytest.mark.parametrize(
    ("record", "changes", "said"),
    [
        *(pytest.param(UNIT, *forged, id=name) for name, forged in FORGED.items()),
        *(pytest.param(RUN, *forged, id=f"run: {name}") for name, forged in FORGED_RUNS.items()),
    ],
)
def test_a_forged_record_with_the_right_hash_is_named_with_the_key(
    store: Store, record: UnitRecord | RunRecord, changes: dict[str, Any], said: str
) -> None:
    name = UNIT_NAME if isinstance(record, UnitRecord) else "runs/run-00000001.json"
    store.put_new(name, pack(replace(record, **changes)))
    with pytest.raises(Damaged) as raised:
        (read_unit if isinstance(record, UnitRecord) else read_run)(store, name)
    assert str(raised.value).startswith(f"{store.uri(name)}: {said}")
