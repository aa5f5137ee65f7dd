"""`explain` on a real build: what it tells of a document is what the build did, and a token leads back to its record."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.storage.store import expand
from gristmill.tokenizer.files import load
from jobs.explain.explain import _finding, _raw_command
from jobs.explain.trace import Found
from pipeline.finding import Finding, Limit
from stages.source.text import TextSource
from stages.source.warc import WarcSource
from tests.conftest import PAGES, Built, Checkout


def explained(built: Built, document: str) -> str:
    out, errors = built.checkout.here("explain", "build/demo", document)
    assert errors == ""
    return out


def page_at(checkout: Checkout, fate: str, name: str = min(PAGES)) -> dict[str, Any]:
    """Return the first page of a file that the demo treats so."""
    (file,) = expand(str(checkout.folder / "examples/crawl" / name))
    starts = sorted(start for taken in PAGES[name].values() for start in taken)
    rows = pa.concat_tables(WarcSource(paths="").open()(file, 100)).to_pylist()
    assert len(rows) == len(starts)
    page: dict[str, Any] = rows[starts.index(min(PAGES[name][fate]))]
    return page


def verdicts(text: str) -> dict[str, str]:
    """Return the verdict of each stage in the order told."""
    return dict(line.split(": ", 1) for line in text.splitlines() if re.match(r"[a-z_0-9]+: (kept|dropped|quarantined)", line))


def test_explain_tells_every_decision_on_a_kept_document(small_build: Built) -> None:
    page = page_at(small_build.checkout, "kept")
    out = explained(small_build, page["url"])
    assert out == explained(small_build, page["id"])
    stages = [stage["stage"] for stage in small_build.record()["stages"]]
    assert verdicts(out) == dict.fromkeys(stages, "kept")
    assert f"document {page['id']}\n" in out and "exact_copies = 2" in out
    assert f"file = build/demo/builds/{small_build.id}/tokens-00000.arrow" in out
    assert "<!DOCTYPE html" in out, "the text before the stage that changed it"


def test_explain_tells_why_a_filter_dropped_a_document(small_build: Built) -> None:
    page = page_at(small_build.checkout, "gopher_short_doc")
    out = explained(small_build, page["url"])
    assert list(verdicts(out).values()) == ["kept", "kept", "kept", "dropped: gopher_short_doc"]
    told = out.split("\ngopher_quality: dropped: gopher_short_doc\n")[1].splitlines()
    words = re.fullmatch(r"  words = (\d+), below min_doc_words = 50 and passes max_doc_words = 100000", told[0])
    assert words is not None and int(words[1]) < 50, "the one that decided comes first"
    mean = re.compile(r"  mean_word_length = [\d.]+, passes min_avg_word_length = 3 and max_avg_word_length = 10")
    assert any(map(mean.fullmatch, told))


def test_every_stage_that_decides_says_by_what(small_build: Built) -> None:
    kept = explained(small_build, page_at(small_build.checkout, "kept")["id"])
    for line in (
        r"engine = resiliparse",
        r"markup_chars = \d+, passes max_chars = 4194304",
        r"depth = \d+, passes max_depth = 512",
        r"work = \d+, passes max_work = 268435456",
        r"text_chars = \d+",
        r"language = en, among keep = en, fr, de",
        r"language_score = [\d.]+, passes min_score = [\d.]+",
        r"tokens = \d+",
        r"bytes_per_token = [\d.]+",
    ):
        assert re.search(f"^  {line}$", kept, re.MULTILINE), line
    unsure = explained(small_build, page_at(small_build.checkout, "language_score")["id"])
    assert re.search(
        r"^language: dropped: language_score\n  language_score = [\d.]+, below min_score = 0.65$", unsure, re.MULTILINE
    )
    other = explained(small_build, page_at(small_build.checkout, "language")["id"])
    assert re.search(r"^language: dropped: language\n  language = (?!en)\w+, not among keep = en, fr, de$", other, re.MULTILINE)


def test_explain_names_the_document_that_a_duplicate_repeats(small_build: Built) -> None:
    page = page_at(small_build.checkout, "exact_duplicate", max(PAGES))
    out = explained(small_build, page["id"])
    assert list(verdicts(out).items())[-1] == ("dedup_exact", "dropped: exact_duplicate")
    original = re.search(r"^  duplicate_of = ([0-9a-f]{32}), the same text with normalize = \w+$", out, re.MULTILINE)
    assert original is not None
    kept = explained(small_build, original[1])
    assert set(verdicts(kept).values()) == {"kept"} and min(PAGES) in kept


def test_explain_agrees_with_the_build_on_a_page_of_each_fate(small_build: Built, pages: pa.Table) -> None:
    lost: dict[str, str] = {}
    for name in (name for step in small_build.record()["steps"] for name in step["units"]):
        outputs = json.loads((small_build.output / name).read_text())["outputs"]
        if "dropped" in outputs:
            rows = pa.ipc.open_file((small_build.output / outputs["dropped"]["data"]).read_bytes()).read_all()
            lost |= dict(zip(rows["id"].to_pylist(), rows["reason"].to_pylist(), strict=True))
    fates = {document: lost.get(document, "kept") for document in pages["id"].to_pylist()}
    expected = Counter(fate for each in PAGES.values() for fate, starts in each.items() for _ in starts)
    assert Counter(fates.values()) == expected, "all that the build lost is on record by its id"
    for fate, document in {fate: document for document, fate in fates.items()}.items():
        *before, last = verdicts(explained(small_build, document)).values()
        assert set(before) <= {"kept"} and last.removeprefix("dropped: ") == fate


def test_a_stage_is_said_to_change_what_it_changed(small_build: Built) -> None:
    row = (
        pa.ipc.open_file(next((small_build.output / "builds" / small_build.id).glob("tokens-00000.arrow"))).read_all().slice(0, 1)
    )
    out = explained(small_build, row["doc_id"][0].as_py())
    told = out.split("\nselect: kept\n")[1].split("\n\n")[0]
    tokens = len(row["input_ids"][0])
    edge = r"scores from the edge on of policies\[excess\] = -?[\d.e-]+"
    assert re.fullmatch(rf"  selected\.excess = \d+ of {tokens} set, {edge}\n  score\.excess = {tokens} values", told)


def test_a_token_leads_back_to_the_bytes_of_its_record(small_build: Built) -> None:
    folder = small_build.output / "builds" / small_build.id
    out, _ = small_build.checkout.here("explain", "build/demo", "--token", "1:0:5")
    row = pa.ipc.open_file((folder / "tokens-00001.arrow").read_bytes()).read_all().slice(0, 1).to_pylist()[0]
    token = row["input_ids"][5]
    assert out.startswith(f"token {token} of tokens-00001.arrow, row 0, position 5 of {len(row['input_ids'])}\n")
    spelled = load(small_build.checkout.folder / "build/tokenizers/superbpe-8k/tokenizer.json").tokens
    assert f"[{spelled[token].decode(errors='replace')!r}]" in out
    for line in (r"ref_loss\.reference = \d", r"score\.excess = -?\d", r"selected\.excess = (yes|no)$"):
        assert re.search(f"^  {line}", out, re.MULTILINE), line
    place = re.search(r"^  record  (.*), bytes (\d+) to (\d+)$", out, re.MULTILINE)
    assert place is not None and Path(place[1]).name == row["file"] == max(PAGES)
    content = (small_build.checkout.folder / place[1]).read_bytes()[int(place[2]) : int(place[3])]
    address = re.search(rb"WARC-Target-URI: <?(.*?)>?\r\n", zlib.decompress(content, wbits=31))
    assert address is not None and address[1].decode() == row["url"]
    command = re.search(r"^  raw     (.*)$", out, re.MULTILINE)
    assert command is not None and f"  url     {row['url']}\n" in out
    raw = subprocess.run(command[1], shell=True, cwd=small_build.checkout.folder, capture_output=True, check=True)
    assert raw.stdout == zlib.decompress(content, wbits=31)


@pytest.mark.parametrize(
    ("name", "pack"), [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.bz2", bz2.compress), ("a.txt.xz", lzma.compress)]
)
def test_the_command_for_a_line_of_a_compressed_file_unpacks_it_first(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(b"one\nthe second line\nthree\n" * 50))
    (file,) = expand(str(path))
    source = TextSource(paths="")
    row = pa.concat_tables(source.open()(file, 100)).to_pylist()[1]
    found = Found(row["id"], None, file.name, row["offset"], row["length"])
    command = _raw_command(file.uri, found, unpacked=source.addresses_unpacked)
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout == b"the second line"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (Finding("tokens", 12), "tokens = 12"),
        (Finding("share", 0.76543, (Limit("most", 0.7, "above", True),)), "share = 0.7654, above most = 0.7"),
        (Finding("share", 0.79999999, (Limit("least", 0.8, "below", True),)), "share = 0.79999999, below least = 0.8"),
        (Finding("words", 7, (Limit("low", 2), Limit("high", 5, "above", True))), "words = 7, above high = 5 and passes low = 2"),
        (Finding("words", 7, (Limit("low", 2), Limit("high", 9))), "words = 7, passes low = 2 and high = 9"),
        (Finding("language", "fr", (Limit("keep", ("en", "de"), "not among", True),)), "language = fr, not among keep = en, de"),
        (Finding("n", 3e6, (Limit("most", 1e5, "above", True),)), "n = 3000000, above most = 100000"),
    ],
)
def test_a_value_stands_beside_its_limits(found: Finding, line: str) -> None:
    assert _finding(found) == line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http://nowhere.example/"], "no document 'http://nowhere.example/' in build"),
        (["--token", "0:0"], "give SHARD:ROW:POS as three numbers"),
        (["--token", "7:0:0"], "SHARD 7 is out of range; there are 2"),
        (["--token", "0:99:0"], "ROW 99 is out of range"),
        (["--token", "0:0:99999"], "POS 99999 is out of range"),
        ([], "give a URL or a document id, or --token"),
        (["x", "--token", "0:0:0"], "give a URL or a document id, or --token"),
    ],
)
def test_what_explain_cannot_find(arguments: list[str], says: str, small_build: Built) -> None:
    out, errors = small_build.checkout.here("explain", "build/demo", *arguments, code=2)
    assert out == "" and errors.startswith("error: ") and says in errors and errors.count("\n") == 1
