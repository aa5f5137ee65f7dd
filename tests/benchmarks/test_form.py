"""What every benchmark prints, two of them run for real, and the parts of others that could measure the wrong thing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from benchmarks import _reader_turns, _table, dedup_signatures, reader, runs
from benchmarks._turns import Ratio, Turns, calls, ratio, take_turns, timed
from benchmarks.end_to_end import CRAWL, select
from benchmarks.overhead import SHARDS, plan_of, shards, tasks_of
from benchmarks.reader import claims
from benchmarks.resume import Opened
from benchmarks.stages import left, megabytes, split
from tests.conftest import Checkout

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_quick(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert f"python -m benchmarks.{name}" in (printed := capsys.readouterr().out) and "--quick" in printed


def run_quick(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a benchmark; its last line is for machines."""
    monkeypatch.setattr(sys, "argv", [benchmark.__name__, "--quick"])
    benchmark.main()
    *table, last = capsys.readouterr().out.splitlines()
    rows = json.loads(last)
    assert rows and table
    for row in rows.values():
        assert set(row) == {"ratio", "goal"}
        assert row["goal"] > 0 and (row["ratio"] is None or row["ratio"] > 0)


def test_two_readers_run_and_what_their_starts_cost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """That the other readers work, test_reader.py shows; what a turn is, the tests below."""
    ours, others = ({name: readers[name]} for name, readers in (("gristmill", reader.OURS), ("memmap", reader.OTHERS)))
    found: dict[str, float] = {}
    fewer = {"QUICK": (400_000, 2), "OURS": ours, "OTHERS": others, "FURTHER": {}, "READERS": ours | others}
    for name, value in {**fewer, "claims": lambda *given: found.update(claims(*given)) or found}.items():
        monkeypatch.setattr(reader, name, value)
    monkeypatch.setattr(_reader_turns, "LEAST_S", 0.01)
    run_quick(reader, monkeypatch, capsys)
    assert found.keys() == {"indices_seconds", "indices_bytes", "resume", "resume_mixed", "state_bytes"}
    assert 8 * 1024 <= found["indices_bytes"] <= 10e6, "the indices themselves, and no table of all"
    assert 0 < found["state_bytes"] <= 200


def test_signatures_run(small_crawl: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_table, "machine", lambda: ["1", "2", "3"])  # measured in the test above
    for name, value in {
        "CRAWL": small_crawl.folder / "examples/crawl",
        "QUICK": 50_000,
        "take_turns": partial(take_turns, least_s=0.01),
        "compiling": lambda: (1.0, 1.0),
    }.items():
        monkeypatch.setattr(dedup_signatures, name, value)
    run_quick(dedup_signatures, monkeypatch, capsys)


def test_closing_line_and_table() -> None:
    line = _table.closing({"peer": (2.34567, 2.0), "not there": (None, 5.0), "share": (0.000191919, 0.01)})
    assert json.loads(line) == {
        "peer": {"ratio": 2.35, "goal": 2.0},
        "not there": {"ratio": None, "goal": 5.0},
        "share": {"ratio": 0.000192, "goal": 0.01},
    }
    assert _table.table(["", "docs"], [["warc", "1"], ["language", "23456"]]).splitlines() == [
        "           docs",
        "warc          1",
        "language  23456",
    ]
    assert [_table.number(x) for x in (None, 0.01234, 12.345, 12345.6)] == ["-", "0.0123", "12.3", "12,300"]


def test_a_closing_line_has_the_median_of_a_ratio() -> None:
    assert json.loads(_table.closing({"peer": (Ratio(2.0, 1.5, 2.5), 1.0)})) == {"peer": {"ratio": 2.0, "goal": 1.0}}
    assert [_table.ranged(each) for each in (Ratio(12.34, 11.9, 13.0), None)] == ["12.3 (11.9-13)", "-"]


def test_every_side_is_repeated_until_its_turn_is_full() -> None:
    asked: list[str] = []

    def piece(name: str, seconds: float) -> Callable[[], float]:
        return lambda: asked.append(name) or seconds  # type: ignore[func-returns-value]

    found = take_turns({"ours": piece("ours", 0.125), "peer": piece("peer", 0.5), "slow": piece("slow", 9.0)}, 2, least_s=1.0)
    turn = ["ours"] * 4 + ["peer", "slow"]
    assert asked == turn + turn[::-1], "the second turn is in the reverse order"
    assert found.seconds == {"ours": [0.125] * 2, "peer": [0.5] * 2, "slow": [9.0] * 2}
    assert found.over("slow", "ours") == Ratio(72.0, 72.0, 72.0) and found.over("absent", "ours") is None


def test_a_ratio_is_of_turns_not_of_sums() -> None:
    turns = Turns({"ours": [1.0, 10.0, 1.0], "peer": [3.0, 30.0, 4.0]})  # the second turn met a slow moment
    assert turns.over("peer", "ours") == Ratio(3.0, 3.0, 3.5)
    assert turns.median("ours") == 1.0
    assert ratio([2.0]) == Ratio(2.0, 2.0, 2.0)


def test_getting_ready_is_not_measured() -> None:
    clock = iter([5.0, 7.0])
    steps: list[str] = []

    def ready() -> Callable[[], object]:
        steps.append("ready")
        return lambda: steps.append("work")

    assert timed(ready, lambda: next(clock))() == 2.0 and steps == ["ready", "work"]
    (piece,) = calls({"side": lambda: steps.append("called")}).values()
    assert piece() >= 0 and steps[-1] == "called"


def test_runs_give_medians_and_ranges() -> None:
    given: list[runs.Ratios] = [
        {"a": {"ratio": each, "goal": 2.0}, "b": {"ratio": None, "goal": 1.0}} for each in (3.0, 9.0, 4.0)
    ]
    shown, last = runs.summary(given)
    assert json.loads(last) == {"a": {"ratio": 4.0, "goal": 2.0}, "b": {"ratio": None, "goal": 1.0}}
    assert [line.split() for line in shown.splitlines()[1:]] == [["a", "4", "3-9", "2"], ["b", "-", "-", "1"]]


def test_selected_pages_are_the_crawls_own_bytes(tmp_path: Path) -> None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    def pages(paths: list[Path]) -> dict[str, tuple[str | None, bytes]]:
        found = {}
        for path in paths:
            with path.open("rb") as file:
                for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False):
                    payload = record.headers.get("WARC-Identified-Payload-Type")
                    found[record.record_id] = payload, record.reader.read()
        return found

    crawl = sorted(CRAWL.glob("*.warc.gz"))
    paths, count = select(crawl, 25, tmp_path / "some")
    whole, some = pages(crawl), pages([Path(path) for path in paths])
    assert count == len(some) == 25 and len(paths) == len(crawl)
    for name, (payload, block) in some.items():
        assert block == whole[name][1]
        assert payload in ("text/html", "application/xhtml+xml"), "datatrove's reader would lose it"


def test_tables_are_split_and_cleared_of_decisions() -> None:
    docs = pa.table({"text": ["é", "b", "c"], "drop": ["short", None, None], "error": [None, "ValueError: x", None]})
    assert left([docs]).to_pydict() == {"text": ["c"]}
    assert megabytes(docs) == 4e-6
    assert [part.num_rows for part in split(pa.table({"n": range(600)}))] == [256, 256, 88]


def test_overhead_has_a_unit_a_shard(tmp_path: Path) -> None:
    tasks = tasks_of(plan_of(shards(tmp_path / "shards")), tmp_path / "out")
    assert len({task.unit.manifest for task in tasks}) == SHARDS


def test_opened_files_are_seen_mapped_ones_too(tmp_path: Path) -> None:
    (tmp_path / "data" / "ab").mkdir(parents=True)
    (tmp_path / "steps").mkdir()
    for name in ("data/ab/x", "steps/y"):
        (tmp_path / name).write_bytes(b"content")
    watch = Opened([tmp_path])
    (tmp_path / "data" / "ab" / "x").stat()
    list((tmp_path / "data").iterdir())
    assert not watch.counts(), "neither a look at a file nor a listing opens one"
    with pa.memory_map(str(tmp_path / "data" / "ab" / "x")) as file:
        assert file.read() == b"content"
    (tmp_path / "steps" / "y").read_bytes()
    assert watch.counts() == {"data": 1, "steps": 1}
    watch.close()
