"""docs/reference/ is what the code says, and a page that is not is named with what to do."""

import shutil

import pytest

from jobs.__main__ import COMMANDS
from jobs.manual import pages
from jobs.manual.entries import GROUPS


def test_the_pages_are_what_the_code_says():
    assert pages.stale() == [], "run `make reference`"


def test_every_name_has_a_section():
    found = pages.pages()
    for title, group in GROUPS.items():
        sections = [line.split()[1] for line in found[f"{title}.md"].splitlines() if line.startswith("## ")]
        assert sections == list(group.entries)
    assert [line[3:] for line in found["commands.md"].splitlines() if line.startswith("## ")] == list(COMMANDS)


def test_an_option_is_written_as_it_is_given():
    text = pages.pages()["commands.md"]
    for line in (
        "| `--set KEY=VALUE` | override a key",
        "| `[document]` | a URL",
        "| `TOKENIZER ...` | a tokenizer",
        "| `--yes` | delete it",
    ):
        assert line in text


def test_a_stale_page_is_named_and_mended(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "reference"
    shutil.copytree(pages.FOLDER, folder)
    monkeypatch.setattr(pages, "FOLDER", folder)
    monkeypatch.setattr(pages.stale, "__defaults__", (folder,))
    (folder / "stages.md").write_text("old")
    (folder / "gone.md").write_text("a page of nothing")
    assert pages.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"docs/reference/{name}.md is not what the code says: run `make reference`" for name in ("gone", "stages")
    ]
    assert pages.main([]) == 0 and pages.main(["--check"]) == 0
    assert not (folder / "gone.md").exists()


@pytest.mark.parametrize("name", ["stages", "schemes", "policies", "files"])
def test_rows_have_the_columns_of_their_table(name):
    columns = 0
    for line in pages.pages()[f"{name}.md"].splitlines():
        if line.startswith("| parameter |"):
            columns = line.count("|")
            assert columns in (4, 5), line
        elif line.startswith("| "):
            assert line.replace("\\|", "").count("|") == columns, line
