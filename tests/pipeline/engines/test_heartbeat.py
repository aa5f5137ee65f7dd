"""Silence ends: how far the units are is said again and again, what does not move is said, and its worker replaced if asked for.

Nothing here measures time: clocks are given, and stages wait until they are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gristmill.storage.store import expand
from pipeline.engines.drive import Engine, Options, Outcome, drive
from pipeline.engines.heartbeat import Heartbeat, Rhythm
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import Plan, make_plan
from tests.pipeline.toy_corpus import totals
from tests.toy import Files, Lines, Upper, Waits


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """A heartbeat by a clock that is set, without a thread of its own: `tick` is called here."""

    rhythm: Rhythm = field(default_factory=Rhythm)
    lines: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.heart = Heartbeat(self.rhythm, self.lines.append, self.clock)
        self.heart.begin("crawl-documents", 9)
        self.heart.end()

    def at(self, now: float) -> list[str]:
        """Return what is said at a time."""
        self.clock.now = now
        self.lines.clear()
        self.heart.tick()
        return list(self.lines)


def test_units_of_a_barrier_say_what_they_count() -> None:
    desk = Desk()
    desk.heart.begin("dedup_exact-reduce", 8, replaceable=False)
    desk.heart.end()
    desk.heart.moved("3/8", 120, "dedup_exact (of 400 run files)")
    assert desk.at(160) == ["dedup_exact-reduce: 0 of 8 done; under way: 3/8 120 at dedup_exact (of 400 run files)"]
    lines = desk.at(700)
    assert lines[0] == "dedup_exact-reduce: 3/8 has not moved for 600 s, at dedup_exact (of 400 run files) after 120"


def test_a_line_is_said_each_minute_with_the_documents_of_what_is_done_and_under_way() -> None:
    desk = Desk()
    desk.heart.moved("a.warc", 1500, "language")
    desk.heart.moved("b.warc", 30, "")
    assert desk.at(159.9) == []
    (line,) = desk.at(160)
    assert line == (
        "crawl-documents: 0 of 9 done, 1,530 documents so far; under way: a.warc 1,500 at language, b.warc 30 at its begin"
    )
    desk.heart.moved("a.warc", 2000, "documents")
    desk.heart.finished("a.warc")
    assert desk.at(219) == []
    assert desk.at(225) == ["crawl-documents: 1 of 9 done, 2,030 documents so far; under way: b.warc 30 at its begin"]
    desk.heart.finished("b.warc")
    desk.heart.finished("never-heard-of.warc")
    assert desk.at(1000) == ["crawl-documents: 3 of 9 done, 2,030 documents so far; under way: none"]


def test_of_many_units_those_that_have_not_moved_for_long_are_named() -> None:
    desk = Desk()
    for number in range(5):
        desk.clock.now += 1
        desk.heart.moved(f"{number}", number, "x")
    desk.heart.moved("0", 7, "y")
    assert desk.at(170)[0].endswith("under way: 1 1 at x, 2 2 at x, 3 3 at x, and 2 more")


def test_what_does_not_move_is_said_once_until_it_moves_again() -> None:
    desk = Desk(Rhythm(None, 600, replace=True))
    desk.heart.moved("a", 5, "language")
    desk.heart.moved("b", 0, "score")
    desk.clock.now = 500
    desk.heart.moved("b", 1, "score")
    assert desk.at(699) == [] and desk.heart.stuck(600) == []
    said = "crawl-documents: a has not moved for 650 s, at language after 5 documents; its worker is replaced soon"
    assert desk.at(750) == [said] and desk.heart.stuck(600) == ["a"] and desk.heart.stuck(600, {"language"}) == []
    assert desk.at(760) == []
    desk.heart.moved("a", 6, "language")
    assert desk.heart.stuck(600) == []
    assert [line.split(" has")[0] for line in desk.at(2000)] == ["crawl-documents: a", "crawl-documents: b"]
    desk.heart.interrupted("a")
    desk.heart.finished("b")
    assert desk.heart.stuck(600) == [] and desk.at(9000) == []


@pytest.mark.parametrize(
    ("rhythm", "said", "limit"),
    [
        (Rhythm(None, None), [], None),
        (Rhythm(None, 10), ["run.replace_stalled: true replaces such a worker"], None),
        (Rhythm(None, 10, replace=True), ["its worker is replaced soon"], 15),
        (Rhythm(None, None, replace=True), [], None),
    ],
)
def test_a_rhythm_tells_and_replaces_as_asked(rhythm: Rhythm, said: list[str], limit: float | None) -> None:
    desk = Desk(rhythm)
    desk.heart.moved("a", 5, "language")
    assert [line.split("; ")[1] for line in desk.at(1e6)] == said and rhythm.limit == limit


@pytest.fixture
def waiting(tmp_path: Path) -> Callable[[str], Plan]:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\nwait\nfour\n")
    (tmp_path / "b.txt").write_text("five\n")

    def plan(until: str) -> Plan:
        stages = [("lines", Lines(paths="")), ("waits", Waits(until=until)), ("upper", Upper()), ("files", Files())]
        return make_plan("t", stages, expand(str(tmp_path / "*.txt")))

    return plan


def run(plan: Plan, engine: Callable[[], Engine], root: Path) -> Outcome:
    return drive(plan, engine, Options(str(root), batch_rows=2))


@pytest.mark.parametrize("workers", [0, 2], ids=["here", "in-processes"])
def test_a_unit_that_does_not_move_is_told_with_its_documents_and_the_build_is_the_same(
    workers: int, waiting: Callable[[str], Plan], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "a.txt has not moved" in line and any("a.txt 4 at waits" in each for each in lines):
            go.touch()  # what ends the waiting is that both were said

    heart = Heartbeat(Rhythm(0.1, 0.3), say)
    made = run(waiting(str(go)), lambda: LocalEngine(workers, heart=heart), tmp_path / "out")
    assert made.build is not None
    assert any("a.txt has not moved for" in line and "at waits after 4 documents" in line for line in lines)
    assert run(waiting(str(go)), lambda: LocalEngine(0), tmp_path / "quiet").build == made.build


def test_a_worker_that_does_not_move_is_replaced_and_the_document_that_holds_it_is_found(
    waiting: Callable[[str], Plan], tmp_path: Path
) -> None:
    plan = waiting(str(tmp_path / "never"))
    heart = Heartbeat(Rhythm(None, 1.0, replace=True), lambda line: None)
    assert run(plan, lambda: LocalEngine(1, heart=heart), tmp_path / "out").build is not None
    found = totals(plan, tmp_path / "out")
    assert found["waits/whole"] == {"in": 6, "kept": 5, "dropped": 0, "quarantined": 1}
