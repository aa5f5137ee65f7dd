"""A build of pages, URLs and file names made to steer terminals and shells: all that the commands say of it is harmless."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.conftest import ROOT
from tests.warcs import page, record

NAME = "a$(touch PWNED) ;touch PWNED2; \x1b]0;t\x07'q' -b.warc.gz"
TEXT = "Words \x1b]0;PWNED\x07 of \x1b[31m the \x9b2J river \u202eesrever\u202c and\r\x7f its mill"
URL = "http://a.test/\x1b[2J\u202e?token=page"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Said:
    """What a command printed, on both streams, with its exit code."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *words: str) -> None:
        self.code = main(list(words))
        self.out, self.err = capfd.readouterr()
        assert not STEERS.search(self.out + self.err), (words, STEERS.findall(self.out + self.err))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "in put").mkdir()
    filler = "An ordinary page about the river and its mill. " * 8
    pages = [record("http://a.test/0", page(filler)), record(URL, page(TEXT + filler)), record("http://a.test/2", page(filler))]
    (folder / "in put" / NAME).write_bytes(b"".join(map(gzip.compress, pages)))
    config = {
        "name": "hostile\x1b[31m",
        "output": str(folder / "out;put"),
        "source": {"warc": {"paths": str(folder / "in put" / "*.warc.gz")}},
        "stages": ["extract_html", "dedup_exact", "documents"],
        "run": {"on": "local", "workers": 1},
    }
    (folder / "build $(x).yaml").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def here(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(built)


def output(built: Path) -> str:
    return str(built / "out;put")


def run_in_shell(line: str, built: Path) -> bytes:
    """Paste a line into a shell; nothing but what it says may happen."""
    done = subprocess.run(["bash", "-c", line], cwd=built, capture_output=True, check=True)
    assert not list(built.glob("PWNED*"))
    return done.stdout


def test_building_and_planning(built, capfd):
    said = Said(capfd, "plan", "build $(x).yaml")
    assert "run it: python -m jobs build 'build $(x).yaml'" in said.out
    said = Said(capfd, "build", "build $(x).yaml")
    assert said.code == 0 and f"next: python -m jobs report '{output(built)}'" in said.err
    assert json.loads(Said(capfd, "plan", "build $(x).yaml", "--json").out)["inputs"][0]["name"] == NAME


def test_explaining(built, capfd):
    """The page as text; the command for its record gives the record."""
    Said(capfd, "build", "build $(x).yaml")
    said = Said(capfd, "explain", output(built), URL)
    assert "url     http://a.test/\\x1b[2J\\u202e?token=page" in said.out  # as it was crawled
    assert "\\x1b]0;PWNED\\x07 of \\x1b[31m the \\x9b2J river \\u202eesrever\\u202c" in said.out
    (line,) = [line for line in said.out.splitlines() if line.startswith("  raw ")]
    assert b"<h1>Words \x1b]0;PWNED" in run_in_shell(line.removeprefix("  raw     "), built)


def test_reporting(built, capfd):
    Said(capfd, "build", "build $(x).yaml")
    assert Said(capfd, "report", output(built)).code == 0
    summary = json.loads(Said(capfd, "report", output(built), "--json").out)
    assert summary["inputs"][0]["name"] == NAME
    (sample,) = summary["samples"]["dedup_exact"]["exact_duplicate"]
    (written,) = Path(output(built)).glob("builds/*/report.html")
    text = written.read_text()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text) and "touch PWNED" in text
    assert f"python -m jobs explain &#x27;{output(built)}&#x27; {sample['id']}" in text


def test_mistakes(built, capfd):
    for words in (
        ["explain", output(built), "http://no\x1b[2J\u202e"],
        ["report", "no\x1b[31m"],
        ["build", "no\x1b[31m\u202e.yaml"],
        ["plan", "build $(x).yaml", "--set", "stages.\x1b[31m=1"],
        ["stages", "\x9b31m"],
    ):
        said = Said(capfd, *words)
        assert said.code == 2 and said.err.startswith("error: ")
    with pytest.raises(SystemExit, match="2"):
        main(["build", "a", "\x1b[31m"])
    assert "\\x1b[31m" in capfd.readouterr().err


def test_an_unexpected_error(tmp_path):
    """Its traceback passes the same door."""
    script = "import sys, jobs.__main__ as m; sys.excepthook = m._unexpected; raise RuntimeError('\\x1b[31m http://u:hunter2@h/')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (
        done.returncode == 1
        and "RuntimeError: \\x1b[31m http://u:***@h/" in done.stderr
        and "hunter2@" not in done.stderr.splitlines()[-1]
    )
