"""Patterns against Python's own glob, names that look like patterns, and what lies under a pattern that is no file."""

from __future__ import annotations

import glob
import os
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.storage import matching
from gristmill.storage.disk import Disk
from gristmill.storage.store import expand, open_read
from tests.random_examples import examples

TREE = [
    "a/1.txt",
    "a/2.txt",
    "a/.hidden.txt",
    "b/1.txt",
    "b/deep/er/3.txt",
    "b/deep/x1",
    "top.txt",
    "x[1].txt",
    ".dot/4.txt",
    "é/ü.txt",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tree")
    for name in TREE:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    return place


PARTS = st.sampled_from(
    ["a", "b", "deep", "*", "**", "?", "[ab]", "[!a]", "*.txt", "?.txt", "[0-9].txt", ".*", "x*", "*1*", "nowhere"]
)


@given(st.lists(PARTS, min_size=1, max_size=4))
@examples(300)
def test_files_are_those_that_glob_finds(tree: Path, parts: list[str]) -> None:
    pattern = f"{tree}/" + "/".join(parts)
    expected = {path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)}
    assert {entry.path for entry in matching.match(pattern, Disk()).files} == expected


ODD = [
    "data[1].jsonl",
    "what?.jsonl",
    "[x",
    "x]",
    "sp ace",
    "ha#sh",
    "50%25",
    "ünï",
    "a+b&c=d",
    "semi;colon",
    "quo'te\"",
    "back\\slash",
]


@pytest.mark.parametrize("name", ODD)
def test_a_path_that_exists_as_written_is_that_path(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"in {name}"
    folder.mkdir()
    (folder / name).write_text("x")
    (folder / "other").write_text("y")
    for pattern in (f"{folder}/{name}", matching.literal(f"{folder}/{name}")):
        (file,) = expand(pattern)
        assert (file.name, file.uri) == (name, f"{folder}/{name}")
        with open_read(file.uri) as stream:
            assert stream.read() == b"x"
    assert [file.name for file in expand(f"{folder}/*")] == sorted([name, "other"])


def test_a_set_of_characters_is_a_pattern_where_no_such_name_exists(tmp_path: Path) -> None:
    for name in ("d1.txt", "d2.txt", "d[13].txt"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in expand(f"{tmp_path}/d[12].txt")] == ["d1.txt", "d2.txt"]
    assert [file.name for file in expand(f"{tmp_path}/d[13].txt")] == ["d[13].txt"]
    assert [file.name for file in expand(f"{tmp_path}/d*.txt")] == ["d1.txt", "d2.txt", "d[13].txt"]


def test_a_star_never_hides_files_behind_one_of_its_name(tmp_path: Path) -> None:
    for name in ("*.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    assert [file.name for file in expand(f"{tmp_path}/*.txt")] == ["*.txt", "a.txt"]
    assert [file.name for file in expand(f"{tmp_path}/[*].txt")] == ["*.txt"]
    (tmp_path / "a*b").mkdir()
    (tmp_path / "a*b/c.txt").write_text("x")
    assert [file.uri for file in expand(f"{tmp_path}/a*b/c.txt")] == [f"{tmp_path}/a*b/c.txt"]


def test_names_are_those_below_the_fixed_part(tmp_path: Path) -> None:
    for name in ("c[1]/s/1.txt", "c[1]/s/2.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [file.name for file in expand(f"{tmp_path}/c[1]/*/*.txt")] == ["s/1.txt", "s/2.txt"]
    assert [file.name for file in expand(f"{tmp_path}/c[1]/s/1.txt")] == ["1.txt"]


def test_a_file_is_never_read_twice(tmp_path: Path) -> None:
    (tmp_path / "c/a").mkdir(parents=True)
    (tmp_path / "c/a/1.txt").write_text("x")
    with pytest.raises(InputError, match=r"matched by two patterns, as 'a/1\.txt' and as '1\.txt'"):
        expand([f"{tmp_path}/c/*/*.txt", f"{tmp_path}/c/a/*.txt"])
    assert [file.name for file in expand([f"{tmp_path}/c/*/*.txt", f"{tmp_path}/c/*/1.txt"])] == ["a/1.txt"]


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    assert [file.uri for file in expand("~/*.txt")] == [f"{tmp_path}/a.txt"]


def _link(path: Path) -> None:
    path.symlink_to("gone")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_link, "a link to 'gone', which does not exist"),
        (_loop, "not to be opened"),
        (os.mkfifo, "a FIFO"),
        (_socket, "a socket"),
    ],
)
@pytest.mark.parametrize("pattern", ["*.txt", "**", "**/*.txt", "z.txt"])
def test_what_is_no_file_is_refused_by_name(
    make, said: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    Path("good.txt").write_text("x")
    make(Path("z.txt"))
    with pytest.raises(InputError, match=f"'z.txt': is {re.escape(said)}"):
        expand(pattern)


def test_a_link_that_leads_around_gives_no_file_twice(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("x")
    (tmp_path / "in/again").symlink_to("../in")
    assert [file.name for file in expand(f"{tmp_path}/in/**/*.txt")] == ["a.txt"]
    assert [file.name for file in expand(f"{tmp_path}/in/**")] == ["a.txt"]


def test_folders_are_left_out_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "more.txt").mkdir()
    (tmp_path / "more.txt/b.jsonl").write_text("x")
    with pytest.raises(InputError, match=r"matches no file, only folders such as '.*more.txt'; add '/\*'"):
        expand(f"{tmp_path}/*.txt")
    (tmp_path / "a.txt").write_text("x")
    told: list[str] = []
    assert [file.name for file in expand(f"{tmp_path}/*.txt", told.append)] == ["a.txt"]
    assert len(told) == 1 and "also matches the folder" in told[0] and "more.txt" in told[0]
    assert expand(f"{tmp_path}/**", told.append) and len(told) == 1


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_where_a_file_is_meant(slash: str, tmp_path: Path) -> None:
    for name in ("1.jsonl.gz", "2.jsonl.gz", "LICENSE"):
        (tmp_path / name).write_text(name)
    with pytest.raises(InputError, match=rf"is a folder; give its files, such as '{tmp_path}/\*.jsonl.gz'"):
        expand(f"{tmp_path}{slash}")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"caf\\xe9.txt': its name is not UTF-8"):
        expand(f"{tmp_path}/*.txt")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "names no file"),
        ("gs://bucket/x", "local paths, s3:// or az://"),
        ("nowhere/x", "file does not exist"),
        ("nowhere/*", "pattern matches no file"),
    ],
)
def test_paths_that_lead_nowhere(path: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        expand(path)
