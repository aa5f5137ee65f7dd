"""From WARC files to a deduplicated corpus: this pipeline beside datatrove's FineWeb chain, on the same files in one run.

Reads `examples/crawl` or the files given; writes both sides' outputs into a temporary folder. Each side is one process on one
core (`_chains.py` has both chains); they take turns (`_turns.py`), and what they load is loaded before. Prints input pages per
CPU second and one JSON line of ratios.

What both sides run: read WARC, extract the text, keep English above .65, Gopher's repetition and quality filters, FineWeb's
filter, MinHash (14 x 8 of word 5-grams), write the texts. Where they differ:
- The same options of trafilatura in `same_extractor`; in `default_extractor` ours is resiliparse, as our recipes have it.
- Pages: datatrove's reader loses XHTML without a WARC-Identified-Payload-Type. Common Crawl writes that field, other crawlers
  don't: the records are copied with it before, so that both sides have the same pages to work on.
- Ours also removes exact duplicates, keeps the reason of each drop, and verifies candidates of MinHash.
- datatrove's URL and C4 filters and its formatter of personal data are left out on its side, as we have none yet.

    python -m benchmarks.end_to_end [--quick] [--warc PATH ...]
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, Any

from benchmarks import _datatrove, _table
from benchmarks._chains import SIDES
from benchmarks._turns import Turns, take_turns

CRAWL = Path(__file__).parents[1] / "examples" / "crawl"
QUICK_PAGES, WARM_PAGES = 36, 8
QUICK_TURNS, TURNS = 2, 5

# What the prototypes reached over datatrove's chain, in one run.
GOALS = {"same_extractor": ("gristmill-trafilatura", 2.2), "default_extractor": ("gristmill-resiliparse", 22.0)}
IDENTIFIED = "WARC-Identified-Payload-Type"
PAGE = re.compile(rb"^content-type:[ \t]*(text/html|application/xhtml\+xml)", re.IGNORECASE | re.MULTILINE)
COLUMNS = ("warc", "extract_html", "language", "gopher_repetition", "gopher_quality", "fineweb_quality", "dedup_minhash")


def select(warcs: Sequence[Path], pages: int | None, folder: Path) -> tuple[list[str], int]:
    """Write the responses of the files, or so many from all over them, to a folder; return the paths and how many there are.

    A page's record gets a WARC-Identified-Payload-Type where it has none, as Common Crawl's records have it.
    """
    folder.mkdir()
    total = sum(1 for path in warcs for _ in _responses(path))
    pages = total if pages is None else min(pages, total)
    paths, seen, taken = [], 0, 0
    for path in warcs:
        target = folder / path.name
        with target.open("wb") as out:
            for data in _responses(path):
                seen += 1
                if seen * pages // total > taken:
                    taken += 1
                    out.write(gzip.compress(data, 6, mtime=0))
        paths.append(str(target))
    return paths, taken


def _responses(path: Path) -> Iterator[bytes]:
    """Yield each response in a file as a record that says what its payload is, where it is a page."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=False):
            block = record.reader.read()
            found = PAGE.search(block[: block.find(b"\r\n\r\n")])
            if found is not None and record.headers.get(IDENTIFIED) is None:
                record.headers.append(IDENTIFIED, found[1].lower().decode())
            head = "".join(f"{name}: {value}\r\n" for name, value in record.headers.items())
            yield f"{record.headers.status_line}\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


@dataclass
class Side:
    """A process with one chain; `load`: CPU seconds of its first run, `counts`: documents that left each step in the last one."""

    name: str
    cache: Path
    log: IO[str]
    load: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks._chains", self.name, str(self.cache)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.log, text=True)

    def run(self, folder: Path, warcs: Sequence[str]) -> dict[str, Any]:
        """Run the chain once, into `folder`; return what the process says of it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        folder.mkdir()
        self.process.stdin.write(json.dumps({"folder": str(folder), "warcs": warcs}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.log.seek(0)
            raise RuntimeError(f"{self.name} ended:\n{self.log.read()[-3000:]}")
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(sides: Sequence[Side], warm: Sequence[str], warcs: Sequence[str], turns: int, folder: Path) -> Turns:
    """Load every side with a few pages, then let them take turns over all."""
    numbers = count()

    def piece(side: Side) -> float:
        result = side.run(folder / f"{side.name}-{next(numbers)}", warcs)
        side.counts = result["counts"]
        return float(result["cpu"])

    for side in sides:
        side.load = side.run(folder / f"{side.name}-warm", warm)["cpu"]
    found = take_turns({side.name: partial(piece, side) for side in sides}, turns)
    for side in sides:
        side.close()
        # An extractor that fails on every page is the fastest: datatrove only logs it.
        assert side.counts["extract_html"] > 0.5 * side.counts["warc"], f"{side.name} did not extract: {side.counts}"
    return found


def _rows(sides: Sequence[Side], found: Turns, pages: int) -> list[list[str]]:
    rows = []
    for side in sides:
        cpu = found.median(side.name)
        counts = [str(side.counts[name]) for name in COLUMNS]
        rows.append([side.name, *(_table.number(value) for value in (pages / cpu, cpu, side.load)), *counts])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAGES} pages from all over the files; within a minute")
    parser.add_argument("--warc", nargs="+", type=Path, metavar="PATH", help=".warc.gz files")
    arguments = parser.parse_args(argv)
    warcs = arguments.warc or sorted(CRAWL.glob("*.warc.gz"))
    lacking = _datatrove.missing()
    names = [name for name in SIDES if name != "datatrove" or not lacking]
    turns, state = QUICK_TURNS if arguments.quick else TURNS, _table.MachineRows()
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as log:
        folder = Path(place)
        paths, pages = select(warcs, QUICK_PAGES if arguments.quick else None, folder / "warcs")
        warm, _ = select(warcs, WARM_PAGES, folder / "warm")
        sides = [Side(name, folder / "cache", log) for name in names]
        found = measure(sides, warm, paths, turns, folder)
    print(f"{pages} pages of {len(paths)} files, one core each, medians of {turns} turns; documents that left each step")
    head = ["", "pages/CPU-s", "CPU-s", "load CPU-s", *COLUMNS]
    print(_table.table(head, _rows(sides, found, pages)))
    if lacking:
        print(f"datatrove is skipped, it lacks {', '.join(lacking)}: {_datatrove.INSTALL}")
    elif failed := sides[-1].counts["failed"]:
        print(f"datatrove's extractor gave up on {failed} pages")
    rows = {row: (found.over("datatrove", name), goal) for row, (name, goal) in GOALS.items()}
    for row, (ratio, goal) in rows.items():
        print(f"{row}: {_table.ranged(ratio)} times datatrove's pages per CPU second (goal {goal:g})")
    print(state)
    print(_table.closing(rows))


if __name__ == "__main__":
    main()
