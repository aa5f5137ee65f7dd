"""A table's way to a pool and back: bounded, in order, without the rest of what it is a slice of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from pipeline.engines.failure import Failure
from pipeline.engines.remote_pool import PoolFailed, RemotePool, TableRequest, answer, pack, serving_again, unpack
from pipeline.resources import Resources
from pipeline.units.bisection import StageResult, work_through
from pipeline.units.flow import Flow, StageRun
from tests.toy import Pooled, Short, Words, documents

QUIET = Pooled(segfault_on="", grow_on="")


@dataclass
class Threads:
    """A pool of threads that counts the tables it has."""

    pooled: Pooled
    ahead: int
    batch_rows: int | None = None
    there: int = 0
    most: int = 0
    executor: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def submit(self, table: pa.Table) -> Callable[[], StageResult]:
        self.there += 1
        self.most = max(self.most, self.there)
        future = self.executor.submit(work_through, "pooled", self.pooled, self.pooled.open(), table, {}, None, False)

        def wait() -> StageResult:
            done = future.result()
            self.there -= 1
            return done

        return wait


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_never_more_tables_ahead_and_all_in_order(ahead: int) -> None:
    short, pooled = Short(least=3), Pooled(segfault_on="", grow_on="", seconds=0.001)
    tables = [documents("f", [f"{'boom' * (n % 7 == 3)} {row * n}" for row in range(4)], 4 * n) for n in range(20)]
    pool = Threads(pooled, ahead)
    whole = Flow([StageRun("short", short, short.open()), StageRun("pooled", pooled, pooled.open())])
    apart = Flow([StageRun("short", short, short.open()), StageRun("pooled", pooled, pool=pool)])
    assert list(apart.stream(enumerate(tables))) == list(whole.stream(enumerate(tables)))
    assert apart.schema(tables[0].slice(0, 0)) == whole.schema(tables[0].slice(0, 0))
    assert apart.dropped() == whole.dropped() and apart.dropped().num_rows > 0
    assert apart.quarantined() == whole.quarantined() and apart.quarantined().num_rows > 0
    for one, other in zip(apart.runs, whole.runs, strict=True):
        assert (one.tally.entered, one.tally.kept, one.tally.samples) == (
            other.tally.entered,
            other.tally.kept,
            other.tally.samples,
        )
    assert pool.most == ahead and pool.there == 0


def test_tables_are_joined_until_a_pool_has_the_rows_that_it_wants() -> None:
    tables = [documents("f", [f"{'boom' * (n % 7 == 3)} {row * n}" for row in range(4)], 4 * n) for n in range(10)]
    pool = Threads(QUIET, 2, batch_rows=10)
    whole, apart = (Flow([StageRun("pooled", QUIET, QUIET.open())]), Flow([StageRun("pooled", QUIET, pool=pool)]))
    expected, found = list(whole.stream(enumerate(tables))), list(apart.stream(enumerate(tables)))
    assert len(found) == 4 and len(expected) > 4, "three tables of 4 rows make one of 12, and the last is what is left"
    assert pa.concat_tables(found) == pa.concat_tables(expected)
    assert apart.quarantined() == whole.quarantined() and apart.quarantined().num_rows > 0
    assert apart.runs[0].tally.entered == whole.runs[0].tally.entered == 40


def test_a_slice_travels_without_the_rest() -> None:
    table = documents("f", ["x" * 1000] * 100)
    packed = pack(table.slice(3, 2))
    assert len(packed) < 10_000
    assert unpack(packed) == table.slice(3, 2)


def test_a_request_is_answered_with_what_the_stage_makes_of_the_table_and_what_it_lost() -> None:
    table = documents("f", ["one", "boom", "two", "three"])
    poison = {table["id"][3].as_py(): ("pooled", "killed_by_SIGSEGV")}
    seen: list[tuple[str, str | None]] = []
    request = TableRequest("pooled", QUIET, pack(table), poison=poison, careful=frozenset({0}))
    reply = answer(request, QUIET.open(), lambda stage, document: seen.append((stage, document)))
    assert reply is not None
    found = reply.result()
    assert found.table["text"].to_pylist() == ["ONE", "TWO"] and found.error is not None and "boom" in found.error
    assert [lost["reason"].to_pylist() for lost in found.lost] == [["killed_by_SIGSEGV"], ["RuntimeError"]]
    assert [document for _, document in seen] == table["id"].to_pylist()[:3], "a careful table is gone through one by one"
    assert answer(TableRequest("pooled", QUIET), QUIET.open(), None) is None


def test_a_pool_without_an_answer_ends_the_unit_with_its_failure() -> None:
    failure = Failure("failed", "its actors died")
    with pytest.raises(PoolFailed) as raised:
        RemotePool(lambda table: lambda: failure, 1).submit(documents("f", ["one"]))()
    assert raised.value.failure == failure


def test_pools_serve_a_later_step_that_needs_all_of_them_or_none() -> None:
    @dataclass
    class Held:
        stage: Pooled
        asked: Resources

    one, other = Held(QUIET, Resources()), Held(Pooled(), Resources(gpus=0.5))
    needed = {"pooled-2": (QUIET, Resources())}
    assert serving_again(needed, [one, other]) == {"pooled-2": one}
    assert serving_again({"pooled-2": (QUIET, Resources(gpus=1))}, [one, other]) is None
    assert serving_again({**needed, "more": (Pooled(salt=1), Resources())}, [one, other]) is None
    assert serving_again({}, [one]) == {}


def test_documents_made_of_others_come_back_with_their_number() -> None:
    stage, docs = Words(raise_on="!"), documents("f", ["a b c", "!", "", "d"])
    reply = answer(TableRequest("words", stage, pack(docs)), stage.open(), None)
    assert reply is not None
    here, back = work_through("words", stage, stage.open(), docs, {}, None, careful=False), reply.result()
    assert back.table.equals(here.table) and back.table["text"].to_pylist() == ["a", "b", "c", "", "d"]
    assert back.made == here.made == 2 and [lost.num_rows for lost in back.lost] == [1]
