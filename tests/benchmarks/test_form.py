"""What every benchmark prints, two of them run for real, and the parts of others that could measure the wrong thing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks import _table
from benchmarks.end_to_end import CRAWL, select
from benchmarks.overhead import SHARDS, plan_of, shards, tasks_of
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


# That the other readers work, test_reader.py shows.
FEW_READERS = (
    "it.QUICK = (400_000, 1); it.OTHERS = {{'memmap': it.OTHERS['memmap']}}; it.READERS = it.OURS | it.OTHERS | it.FURTHER"
)
SMALL_CRAWL = "it.CRAWL = Path({crawl!r})"


@pytest.mark.parametrize(
    ("name", "quicker"), [("reader", FEW_READERS), ("dedup_signatures", SMALL_CRAWL)], ids=["reader", "dedup_signatures"]
)
def test_last_line_is_for_machines(name: str, quicker: str, small_crawl: Checkout) -> None:
    smaller = quicker.format(crawl=str(small_crawl.folder / "examples/crawl"))
    code = f"from pathlib import Path; from benchmarks import {name} as it; {smaller}; it.main()"
    done = subprocess.run([sys.executable, "-c", code, "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    rows = json.loads(last)
    assert rows and table
    for row in rows.values():
        assert set(row) == {"ratio", "goal"}
        assert row["goal"] > 0 and (row["ratio"] is None or row["ratio"] > 0)


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
