"""Word of workers at the desk: what came since the last look, the newest of each unit, lines in their order.

`tests/pipeline/engines/on_ray/test_cluster.py` has the desk as an actor, with a driver that looks in.
"""

from __future__ import annotations

import queue
from collections.abc import Callable

from pipeline.engines.on_ray.news import Reporter, _Desk


def test_the_desk_gives_each_word_once_and_the_newest_of_a_unit() -> None:
    desk = _Desk()
    for documents in (1, 7):
        desk.report("a", documents, "words")
    desk.report("b", 2, "")
    desk.note("one")
    desk.note("two")
    assert desk.news() == ({"a": (7, "words"), "b": (2, "")}, ["one", "two"])
    assert desk.news() == ({}, [])


class Method:
    """A method of an actor, called in this process."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.remote = call


class Desk:
    """An actor's handle; what is reported can be waited for."""

    def __init__(self) -> None:
        self.reported, self.noted = queue.SimpleQueue[tuple[str, int, str]](), list[str]()
        self.report = Method(lambda *word: self.reported.put(word))
        self.note = Method(self.noted.append)


def test_a_unit_is_reported_when_it_begins_and_when_it_has_moved() -> None:
    desk = Desk()
    reporter = Reporter(desk, every=0.001)
    with reporter.reporting("a") as moved:
        assert desk.reported.get() == ("a", 0, "")
        moved(5, "words")
        assert desk.reported.get() == ("a", 5, "words")
        reporter.note("slow")
    assert desk.noted == ["slow"]


def test_a_unit_that_does_not_move_is_not_reported_again() -> None:
    desk = Desk()
    with Reporter(desk, every=0.001).reporting("a"), Reporter(desk, every=0.001).reporting("b") as moved:
        first = {desk.reported.get()[0], desk.reported.get()[0]}
        for number in range(20):  # b is heard again and again meanwhile
            moved(number, "words")
            assert desk.reported.get() == ("b", number, "words")
    assert first == {"a", "b"}
