"""One corpus, every way to run it: the build's id must not move, and every document must be accounted for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gristmill.storage.store import expand, open_store
from pipeline.builds.finish import manifests
from pipeline.engines.drive import Options, Result, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from pipeline.units.segment import Task
from tests.pipeline.toy_corpus import plan_of, run, totals
from tests.toy import Upper


def test_same_build_for_any_run(corpus: Path, tmp_path: Path) -> None:
    first = run(plan_of(corpus), tmp_path / "a").build
    assert run(plan_of(corpus), tmp_path / "b", batch_rows=1000).build == first
    assert run(plan_of(corpus, partitions=16), tmp_path / "c", workers=2, batch_rows=1).build == first


@dataclass
class Shuffled:
    """An engine that takes the shards of each step in another order."""

    seed: int
    inner: LocalEngine = field(default_factory=lambda: LocalEngine(0))

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        order = list(tasks)
        random.Random(self.seed).shuffle(order)
        return self.inner.run(order)

    def close(self) -> None:
        self.inner.close()


def test_same_build_in_any_order_of_shards(corpus: Path, tmp_path: Path) -> None:
    builds = {drive(plan_of(corpus), partial(Shuffled, seed), Options(str(tmp_path / str(seed)))).build for seed in range(3)}
    assert builds == {run(plan_of(corpus), tmp_path / "straight").build}


def test_every_document_is_accounted_for(corpus: Path, tmp_path: Path) -> None:
    plan = plan_of(corpus)
    run(plan, tmp_path)
    found = totals(plan, tmp_path)
    assert found["lines/whole"] == {"in": 240, "kept": 240, "dropped": 0, "quarantined": 0}
    assert found["upper/whole"]["quarantined"] > 0
    assert found["short/whole"]["dropped"] > 0
    assert found["unique/after"]["dropped"] > 0
    assert found["upper/whole"]["kept"] == found["short/whole"]["in"]
    assert found["short/whole"]["kept"] == found["unique/before"]["in"]
    assert found["unique/before"]["kept"] == found["unique/after"]["in"]
    assert found["unique/after"]["kept"] == found["share/before"]["in"] == found["files/whole"]["kept"]


def test_documents_that_kill_are_found_and_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a distance in one file, one that is the first of its file and the last. That it takes three deaths: `test_child`."""
    monkeypatch.setattr("pipeline.engines.child.STRIKES", 1)  # each costs a process
    mild = [f"line {number}" for number in range(12)]
    (tmp_path / "0.txt").write_text("\n".join([*mild[:3], "aab", *mild[3:6], "bb falls", *mild[6:], "ccé"]))
    (tmp_path / "1.txt").write_text("bb alone")
    plan = plan_of(tmp_path, poison=True)
    first = run(plan, tmp_path / "a", workers=2)
    kinds: Counter[str] = Counter()
    for manifest in manifests(open_store(str(tmp_path / "a")), plan.steps[0]):
        for account in manifest.ledger:
            kinds.update(account["quarantined"])
    assert kinds == {"RuntimeError": 1, "killed_by_SIGSEGV": 2, "MemoryError": 1}
    assert run(plan, tmp_path / "b", workers=1, batch_rows=50).build == first.build


def test_a_finished_build_is_not_touched_and_a_change_recomputes_what_depends_on_it(corpus: Path, tmp_path: Path) -> None:
    run(plan_of(corpus), tmp_path)
    again = drive(plan_of(corpus), lambda: pytest.fail("no engine is needed"), Options(str(tmp_path)))
    assert again.reused
    changed = plan_of(corpus, salt=1)
    store = open_store(str(tmp_path))
    assert [len(step.missing(store)) for step in changed.steps] == [len(step.units) for step in changed.steps]
    late = make_plan("toy", [*plan_of(corpus).stages[:-2], plan_of(corpus).stages[-1]], expand(f"{corpus}/*.txt"))
    assert [len(step.missing(store)) for step in late.steps] == [0, 0, 0, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stage_that_raises_on_everything_fails_its_shards(corpus: Path, tmp_path: Path, workers: int) -> None:
    stages = [*plan_of(corpus).stages[:1], ("upper", Upper(raise_on=" ")), *plan_of(corpus).stages[2:]]
    for path in corpus.glob("*.txt"):
        (tmp_path / path.name).write_text("".join(f"all of it {n}\n" for n in range(30)))
    plan = make_plan("toy", stages, expand(f"{tmp_path}/*.txt"))
    outcome = drive(plan, lambda: LocalEngine(workers), Options(str(tmp_path / "out")))
    assert outcome.build is None
    assert [(label, failure.kind) for _, label, failure in outcome.failures] == [(f"{n}.txt", "failed") for n in range(5)]
    assert "stage upper raised on each of 30 documents" in outcome.failures[0][2].message
