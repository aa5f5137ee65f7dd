"""Folders of one user alone: what is taken for one, and what happens where there is none."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest

from gristmill import private
from gristmill.private import fresh_folder, private_folder
from pipeline.units.opened import opened_alone
from stages.extract.html import ExtractHtml
from tests.conftest import ROOT

# Numba, half a second of a process, is imported once: each of the environments has a process that is forked there.
PROGRAM = """
import contextlib, io, json, os, sys, numba
for environment in json.loads(sys.argv[1]):
    if not os.fork():
        os.environ.update(environment)
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            import gristmill.compiling
        print(json.dumps([numba.config.CACHE_DIR, os.environ.get("NUMBA_CACHE_DIR"), errors.getvalue()]))
        break
    if os.wait()[1]:
        sys.exit(1)
"""


def test_one_that_is_made_is_private(tmp_path):
    umask = os.umask(0)
    try:
        made = private_folder(tmp_path / "b")
    finally:
        os.umask(umask)
    assert made == tmp_path / "b" and stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_folder(made) == made
    assert private_folder(tmp_path / "c" / "d") == tmp_path / "c" / "d"


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701, 0o500])
def test_another_mode_is_not_mended(tmp_path, mode):
    folder = tmp_path / "x"
    folder.mkdir()
    folder.chmod(mode)
    assert private_folder(folder) is None
    assert stat.S_IMODE(folder.stat().st_mode) == mode


def test_links_files_and_others_folders_are_refused(tmp_path):
    own = private_folder(tmp_path / "own")
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    for name in ("link", "nowhere", "file", "file/below"):
        assert private_folder(tmp_path / name) is None
    assert not (tmp_path / "missing").exists()
    open_to_all = tmp_path / "all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert private_folder(open_to_all / "mine") is None  # anybody may put another in its place
    open_to_all.chmod(0o1777)
    assert private_folder(open_to_all / "mine") == open_to_all / "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_of_another_user_is_refused(tmp_path):
    for name in ("theirs", "above"):
        (tmp_path / name).mkdir(mode=0o700)
        os.chown(tmp_path / name, 12345, 12345)
    assert private_folder(tmp_path / "theirs") is None
    assert private_folder(tmp_path / "above" / "mine") is None


def test_a_fresh_one_is_private_and_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = fresh_folder("things", "/the/known/place")
    assert made.parent == tmp_path and stat.S_IMODE(made.stat().st_mode) == 0o700
    assert fresh_folder("things", "/the/known/place") == made and len(caplog.records) == 1
    assert "/the/known/place" in caplog.text and str(made) in caplog.text
    private._removed(made, os.getpid() + 1)
    assert made.exists()
    private._removed(made, os.getpid())
    assert not made.exists()


def compiling(tmp_path, *environments):
    """Import the compiler in other processes; return where each keeps code, what its own processes would use, and its errors."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, json.dumps(environments)]
    environment = {**kept, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_compiled_code_lies_in_a_private_folder(tmp_path):
    """In the same one each time; where somebody has changed its mode, or there is no home, in a fresh one that goes again."""
    (tmp_path / "caches").mkdir()
    known = {"XDG_CACHE_HOME": str(tmp_path / "caches")}
    (place, inherited, errors), again = compiling(tmp_path, known, known)
    assert place.startswith(str(tmp_path / "caches" / "gristmill")) and inherited is None and errors == ""
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert again == [place, None, ""]
    os.chmod(place, 0o777)
    others = compiling(tmp_path, known, {"HOME": "/proc/1/nohome"}, {"XDG_CACHE_HOME": "relative"})
    assert len({fresh for fresh, _, _ in others}) == 3
    for fresh, inherited, errors in others:
        assert fresh == inherited and fresh.startswith(str(tmp_path / "tmp")) and "compiled loops" in errors
        assert not os.path.exists(fresh)
    assert not (ROOT / "relative").exists()


def test_locks_lie_in_a_private_folder(tmp_path, monkeypatch):
    """Where a stage is opened by one process at a time: a link of a known name is not followed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").write_text("kept")
    (tmp_path / f"gristmill-{os.geteuid()}").symlink_to(target)
    opened_alone(ExtractHtml(max_depth=51))
    assert [path.name for path in target.iterdir()] == ["file"]
    (tmp_path / f"gristmill-{os.geteuid()}").unlink()
    opened_alone(ExtractHtml(max_depth=52))
    folder = tmp_path / f"gristmill-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and [path.suffix for path in folder.iterdir()] == [".lock"]
