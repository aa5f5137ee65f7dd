"""Builds with a stage that asks: answers are other ones each time, and what is built of them is the same however it ran."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import ray

from gristmill.errors import Stopped
from gristmill.storage.store import expand, open_store
from pipeline.builds.prune import unneeded
from pipeline.builds.summary import summarize
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.engines.on_ray.cluster import RayEngine
from pipeline.planning.fingerprint import describe
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import read_run, runs
from pipeline.schema import document_id, made_id
from pipeline.stage import Filter, Map
from stages.sink.documents import Documents
from tests.s3_servers import BUCKET, moto, seaweed, use
from tests.toy import Files, Lines, Oracle, Short, Upper

TEXTS = {"a": ["mill", "water", "stone"], "b": ["flour", "wheel"], "c": []}


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    for name, lines in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def plan_of(crawl: Path, *behind: tuple[str, Map | Filter], **oracle: Any) -> Plan:
    paths = f"{crawl}/*.txt"
    stages = [("lines", Lines(paths=paths)), ("oracle", Oracle(log=str(crawl / "log"), **oracle)), *behind, ("files", Files())]
    return make_plan("t", stages, expand(paths))


def built(plan: Plan, root: Path, workers: int = 0, batch_rows: int = 2) -> tuple[str, list[dict[str, Any]]]:
    outcome = drive(plan, lambda: LocalEngine(workers), Options(str(root), batch_rows))
    assert outcome.build is not None, outcome.failures
    files = sorted((root / "builds" / outcome.build).glob("*.jsonl"))
    return outcome.build, [json.loads(line) for file in files for line in file.read_text().splitlines()]


def asked(crawl: Path) -> Counter[str]:
    return Counter(path.read_text() for path in (crawl / "log").glob("asked-*"))


ONCE = Counter(line for lines in TEXTS.values() for line in lines)  # a question a shard


def test_answers_are_documents_beside_those_they_are_about(crawl: Path) -> None:
    _, docs = built(plan_of(crawl), crawl / "out")
    ids = [document_id(f"{name}.txt", row) for name, lines in TEXTS.items() for row in range(len(lines))]
    assert [doc["id"] for doc in docs] == [name for each in ids for name in (each, made_id(each, 1))]
    assert [doc["parent"] for doc in docs] == [parent for each in ids for parent in (None, each)]
    assert [doc["answered"] for doc in docs] == [False, True] * len(ids)
    assert all(after["text"].startswith(f"{before['text']}: ") for before, after in zip(docs[::2], docs[1::2], strict=True))


def test_a_changed_later_stage_or_a_changed_use_of_the_answers_asks_nothing_again(crawl: Path) -> None:
    first, docs = built(plan_of(crawl), crawl / "out")
    _, shouted = built(plan_of(crawl, ("upper", Upper(raise_on=""))), crawl / "out")
    assert [doc["text"] for doc in shouted] == [doc["text"].upper() for doc in docs]
    _, loud = built(plan_of(crawl, loud=True), crawl / "out")
    assert [doc["text"] for doc in loud[1::2]] == [doc["text"].upper() for doc in docs[1::2]]
    assert asked(crawl) == ONCE
    elsewhere, _ = built(plan_of(crawl), crawl / "other")
    assert elsewhere != first and asked(crawl) == ONCE + ONCE, "another output has a journal of its own"


@pytest.mark.parametrize("batch_rows", [1, 100])
def test_a_killed_unit_asks_for_what_is_missing_alone(batch_rows: int, crawl: Path) -> None:
    plan = plan_of(crawl, kill_on="stone")
    build, docs = built(plan, crawl / "out", workers=1, batch_rows=batch_rows)
    assert (crawl / "log/go").exists(), "it was killed"
    if batch_rows == 1:
        assert asked(crawl) == ONCE
    assert built(plan, crawl / "out", workers=1) == (build, docs)
    same, _ = built(plan_of(crawl, ("short", Short(least=1))), crawl / "out", batch_rows=3)
    assert same == build, "the same bytes of the answers that are kept"


def test_two_drivers_at_once_come_to_one_build(crawl: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: built(plan_of(crawl, together=2), crawl / "out", workers=1, batch_rows=1), range(2)))
    assert both[0] == both[1], "whatever each of them was answered"
    assert asked(crawl)["water"] == asked(crawl)["flour"] == 2, "both have asked"


def test_one_that_must_stop_ends_the_build_and_a_rerun_goes_on(crawl: Path) -> None:
    plan = plan_of(crawl, stop_on="stone")
    with pytest.raises(Stopped, match="asked about stone"):
        built(plan, crawl / "out", batch_rows=100)
    before = asked(crawl)
    assert before["water"] == 1 and "stone" not in before
    (crawl / "log/go").touch()
    built(plan, crawl / "out", batch_rows=100)
    assert asked(crawl) == ONCE


def test_where_it_asks_leaves_no_trace(crawl: Path) -> None:
    one, other = Oracle(log="here"), Oracle(log="there", stop_on="x")
    assert describe(one) == describe(other) and one != other
    assert describe(one) != describe(Oracle(log="here", loud=True))
    assert plan_of(crawl, stop_on="x").fingerprint == plan_of(crawl).fingerprint


def test_the_account_is_that_of_the_answers_whoever_asked_for_them(crawl: Path) -> None:
    paths = f"{crawl}/*.txt"
    for least in (1, 3):
        oracle = ("oracle", Oracle(log=str(crawl / "log")))
        stages = [("lines", Lines(paths=paths)), oracle, ("short", Short(least=least)), ("documents", Documents())]
        drive(make_plan("t", stages, expand(paths)), lambda: LocalEngine(0), Options(str(crawl / "out"), 2))
        store = open_store(str(crawl / "out"))
        summary = summarize(store, read_run(store, runs(store)[0]))
        (stage,) = [each for each in summary["stages"] if "asked" in each]
        assert stage["stage"] == "oracle" and stage["made"] == 5 and stage["in"] == 5
        assert stage["asked"] == {"answers": 5, "letters": sum(len(line) for line in ONCE.elements())}
    assert asked(crawl) == ONCE


def test_pruning_leaves_answers_alone(crawl: Path) -> None:
    built(plan_of(crawl), crawl / "out")
    (crawl / "out/builds").rename(crawl / "gone")
    names = [file.name for file in unneeded(open_store(str(crawl / "out")))]
    assert names and not any(name.startswith("answers/") for name in names)


@pytest.mark.parametrize("serve", [moto, seaweed], ids=["moto", "seaweed"])
def test_answers_lie_in_a_bucket_too(
    serve: Callable[..., AbstractContextManager[int]], crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (crawl / "server").mkdir()
    with serve(*([crawl / "server"] if serve is seaweed else [])) as port:
        use(monkeypatch, port)
        root = f"s3://{BUCKET}/{crawl.name}"
        for loud in (False, True):
            outcome = drive(plan_of(crawl, loud=loud), lambda: LocalEngine(0), Options(root, 2))
            assert outcome.build is not None, outcome.failures
        assert asked(crawl) == ONCE
        store = open_store(root)
        (subject,) = store.folders("answers")
        letters = sum(int(name.rpartition("letters=")[2]) for name in store.list(f"answers/{subject}/spent"))
        assert letters == sum(len(line) for line in ONCE.elements())


def test_workers_on_ray_ask_as_those_here_do(crawl: Path) -> None:
    build, docs = built(plan_of(crawl), crawl / "out", workers=2)
    plan = plan_of(crawl, ("short", Short(least=1)))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=100 << 20)
    try:
        (crawl / "out" / "finished").rename(crawl / "forgotten")
        outcome = drive(plan, lambda: RayEngine(), Options(str(crawl / "out"), 3))
        assert outcome.build == build and asked(crawl) == ONCE, "of the answers that are kept"
        outcome = drive(plan_of(crawl, kill_on="stone"), lambda: RayEngine(), Options(str(crawl / "other"), 1))
        assert outcome.build is not None and asked(crawl) == ONCE + ONCE, "and of their own"
        assert (crawl / "log/go").exists(), "one of them was killed"
    finally:
        ray.shutdown()
    assert len(docs) == 10
