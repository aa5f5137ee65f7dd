"""What reaches the terminal: nothing that steers it, no secret of a URL, and commands that are safe to paste."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.progress import BuildProgress
from jobs.terminal import command, one_line, quoted, say, show, show_json, tell, visible
from pipeline.engines.panics import pass_on
from tests.conftest import ROOT
from tests.random_examples import examples

CONTROLS = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]
STEERING = [*CONTROLS, 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
ODD_NAMES = [
    "plain.warc.gz",
    "a$(touch PWNED) ;touch PWNED; b.gz",
    "`touch PWNED`",
    'it\'s "quoted" \\ and !history',
    "line\ntouch PWNED\n",
    "tab\tand \r return",
    "-rf",
    "--checkpoint-action=exec=touch PWNED",
    "\x1b]0;title\x07\x1b[2J",
    "\u202egz.exe",
    "c1 \x9b31m é 漢 ~ * ? [a] {b,c} # & | < >",
    "",
]


@pytest.mark.parametrize("code", STEERING, ids=hex)
def test_characters_that_steer_become_visible(code):
    shown = visible(f"a{chr(code)}b")
    assert chr(code) not in shown
    assert shown.encode().decode("unicode_escape") == f"a{chr(code)}b"


def test_all_controls_are_known():
    """By Unicode's own classes: controls (Cc), and what its bidirectional algorithm takes for a direction."""
    directing = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(0x110000):
        character = chr(code)
        steers = unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in directing
        if steers and character not in "\t\n":
            assert character not in visible(character), hex(code)
    assert one_line("a\tb\nc\r") == "a\\tb\\nc\\x0d"
    for kept in ("Zwölf — 漢字 \u200d\u200c שלום مرحبا 🦙", "tab\tand\nline", "back\\slash"):
        assert visible(kept) == kept


@given(st.text())
def test_any_text_is_printed(text):
    out = io.StringIO()
    show(text, file=out)
    shown_text = out.getvalue().removesuffix("\n")
    assert shown_text == visible(text) and not set(map(ord, shown_text)) & set(STEERING)
    shown_text.encode()


def test_json_is_the_same_data_without_such_characters(capsys):
    value = {"url": "http://a/\x1b[2J\u202e", "error": "\x9b\x7f\n", "n": [1, None, "é\ud800"]}
    show_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value and printed.count("\n") == 1
    assert not set(map(ord, printed)) & set(STEERING)


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_quoted_arguments_are_what_they_were(tmp_path, name):
    """In a shell; one that begins with a dash is a path then."""
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode() == (f"./{name}" if name.startswith("-") else name)
    assert list(tmp_path.iterdir()) == []
    assert visible(quoted(name)) == quoted(name) and "\n" not in quoted(name)


@examples(30)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_argument_is_quoted(name):
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True, check=True)
    assert done.stdout.decode() == (f"./{name}" if name.startswith("-") else name)


def test_names_that_are_no_utf8_are_quoted_as_their_bytes():
    name = b"caf\xe9 \xff.gz"
    line = f"printf %s {quoted(name.decode(errors='surrogateescape'))}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == name


def test_commands():
    assert command("report", "build/demo") == "python -m jobs report build/demo"
    assert command("build", "my build.yaml") == "python -m jobs build 'my build.yaml'"
    assert command("explain", "-out", "a;b") == "python -m jobs explain ./-out 'a;b'"


def test_messages_hide_secrets_and_data_does_not(capsys):
    url = "https://me:hunter2@host/x?token=abc&page=1"
    say(f"not there: {url}")
    tell(f"error: {url}")
    show(url)
    out, err = capsys.readouterr()
    assert out == f"not there: https://me:***@host/x?token=***&page=1\n{url}\n"
    assert "hunter2" not in err and "abc" not in err


def test_progress_prints_through_it(capsys):
    progress = BuildProgress()
    progress.note("0 warc: a\x1b[31m\u202e.gz failed: s3://k:secret@b/")
    assert capsys.readouterr().err == "0 warc: a\\x1b[31m\\u202e.gz failed: s3://k:***@b/\n"


def test_nothing_is_printed_past_the_door():
    """By the source: in the commands only `terminal.py` calls print or writes to the standard streams."""
    for path in sorted((ROOT / "jobs").rglob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            written = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout.write", "sys.stderr.write")
            assert not printed and not written, f"{path.name}:{node.lineno}"


def test_words_of_libraries_in_workers_pass_it_too(capfd):
    """What a child process prints of a page, line by line; bytes that are no UTF-8 as well."""
    script = "import os; os.write(2, b'bad page \\x1b[2J\\x9b \\xe2\\x80\\xae http://u:hunter2@h/ caf\\xc3\\xa9\\n\\nend')"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        pass_on(child.stderr).join()
    assert capfd.readouterr().err == "bad page \\x1b[2J\\x9b \\u202e http://u:***@h/ café\nend"
