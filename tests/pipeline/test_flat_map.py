"""Builds with documents made of others: every one accounted for, verdicts on the right ones, the same bytes however it ran."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.builds.summary import summarize
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from pipeline.records import read_run, runs
from pipeline.schema import document_id, made_id
from pipeline.stage import Named
from stages.sink.documents import Documents
from tests.toy import Files, Lines, Short, Unique, Upper, Words

TEXTS = {"a": ["the mill grinds", "", "boom here", "the water", "x"], "b": ["mill water", "grinds slow", " "], "c": []}

FILES: Named = ("files", Files())


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    for name, lines in TEXTS.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def plan_of(crawl: Path, words: Words, sink: Named = FILES) -> Plan:
    paths = f"{crawl}/*.txt"
    between = [("words", words), ("short", Short(least=2)), ("unique", Unique()), ("upper", Upper(raise_on=""))]
    return make_plan("t", [("lines", Lines(paths=paths)), *between, sink], expand(paths))


def built(plan: Plan, root: Path, workers: int = 0, batch_rows: int = 7) -> list[dict[str, Any]]:
    """Return the documents of the build, in order."""
    outcome = drive(plan, lambda: LocalEngine(workers), Options(str(root), batch_rows))
    assert outcome.build is not None, outcome.failures
    files = sorted((root / "builds" / outcome.build).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def expected() -> list[tuple[str, str, str, int, str]]:
    """Return (id, parent, file, offset, text) of the first of equal words, in plain Python."""
    found, seen = [], set()
    for name, lines in TEXTS.items():
        for offset, line in enumerate(lines):
            parent = document_id(f"{name}.txt", offset)
            for number, word in enumerate(line.split() if "boom" not in line else ()):
                if len(word) >= 2 and word not in seen:
                    seen.add(word)
                    found.append((made_id(parent, number), parent, f"{name}.txt", offset, word.upper()))
    return found


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_verdicts_of_a_barrier_meet_the_documents_that_were_made(batch_rows: int, crawl: Path) -> None:
    docs = built(plan_of(crawl, Words(raise_on="boom")), crawl / "out", batch_rows=batch_rows)
    assert [(doc["id"], doc["parent"], doc["file"], doc["offset"], doc["text"]) for doc in docs] == expected()


def test_every_document_is_accounted_for_from_unit_to_report(crawl: Path) -> None:
    plan = plan_of(crawl, Words(raise_on="boom"), ("documents", Documents()))
    built(plan, crawl / "out", batch_rows=2)
    store = open_store(str(crawl / "out"))
    for record in (record for step in plan.steps for record in manifests(store, step)):
        for account in record.ledger:
            gone = sum(account["dropped"].values()) + sum(account["quarantined"].values())
            assert account["in"] + account.get("made", 0) == account["kept"] + gone
            assert ("made" in account) == (account["stage"] == "words" and record.unit != "c.txt")
    summary = summarize(store, read_run(store, runs(store)[0]))
    words = next(stage for stage in summary["stages"] if stage["stage"] == "words")
    # Of a: 3 + 0 + raised + 2 + 1, of b: 2 + 2 + 0.
    assert (words["in"], words["made"], words["kept"]) == (8, 5, 10)
    assert words["dropped"] == {"no_words": 2} and words["quarantined"] == {"RuntimeError": 1}
    assert [stage["stage"] for stage in summary["stages"] if "made" in stage] == ["words"]
    assert summary["samples"]["words"]["no_words"][0]["text"].strip() == ""
    (raised,) = summary["quarantine"]
    assert raised["id"] == document_id("a.txt", 2), "the parent, which nothing was made of"


def test_a_parent_that_kills_its_process_is_found_and_the_others_make_theirs(
    crawl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the id of the parent: nothing was made of it yet."""
    monkeypatch.setattr("pipeline.engines.child.STRIKES", 1)  # each costs a process
    plan = plan_of(crawl, Words(segfault_on="boom"))
    docs = built(plan, crawl / "out", workers=1)
    assert [doc["id"] for doc in docs] == [each[0] for each in expected()]
    found = Counter[str]()
    for record in manifests(open_store(str(crawl / "out")), plan.steps[0]):
        for account in record.ledger:
            found.update(account["quarantined"])
    assert found == {"killed_by_SIGSEGV": 1}
