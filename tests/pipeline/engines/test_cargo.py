"""Code of somebody else travels whole, is written once, and is found before what a machine may have of it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gristmill.storage.store import expand
from pipeline.engines.cargo import pack, travelling
from pipeline.engines.examine import set_exam
from pipeline.planning.code import load_file
from pipeline.planning.fingerprint import describe, digest
from pipeline.planning.plan import make_plan
from pipeline.units.segment import Task
from stages import STAGES
from tests.pipeline.planning.test_fingerprint import STAGE, imported, write
from tests.toy import Files, Lines

UNLOAD = """
import pickle, sys
cargo, stages = pickle.load(sys.stdin.buffer)
cargo.unload()
cargo.unload()
from pipeline.planning.fingerprint import describe, digest
stages = pickle.loads(stages)
print(*(digest(describe(stage)) for stage in stages), sys.modules[type(stages[0]).__module__].__file__)
print(type(stages[0])().words())
"""
WORDS = f"""{STAGE}
    def words(self):
        from pathlib import Path
        import gm_cargo_helper
        return Path(__file__).with_name("words.txt").read_text() + gm_cargo_helper.more

    def files(self):
        return (__file__.replace("odd.py", "words.txt"),)
"""


def test_only_what_is_nobody_elses_travels() -> None:
    assert pack([STAGES["dedup_exact"](), STAGES["language"]()]) is None
    assert [unit.name for unit in travelling([Lines(paths=""), STAGES["dedup_exact"](), Files()])] == ["tests.toy"]


def test_a_machine_without_the_code_has_it_once_it_is_unloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "repo", {"gm_cargo/__init__.py": "", "gm_cargo/odd.py": WORDS, "gm_cargo/words.txt": "a word"})
    write(tmp_path / "repo", {"gm_cargo_helper.py": "more = ' and more'", "alone.py": STAGE})
    write(tmp_path / "old", {"gm_cargo/__init__.py": "raise RuntimeError('an old one of the machine')"})
    odd = imported(tmp_path / "repo", "gm_cargo.odd", monkeypatch).Odd()
    stages = [odd, load_file(tmp_path / "repo/alone.py").Odd(most=3)]
    cargo = pack(stages)
    assert cargo is not None and sorted(cargo.files) == [
        f"files/{type(stages[1]).__module__}/alone.py",
        "path/gm_cargo/__init__.py",
        "path/gm_cargo/odd.py",
        "path/gm_cargo/words.txt",
        "path/gm_cargo_helper.py",
    ]
    places = [str(tmp_path / "old"), *(path for path in sys.path if "repo" not in path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", UNLOAD]
    sent = pickle.dumps((cargo, pickle.dumps(stages)))
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, env=environment, input=sent, capture_output=True, check=True)
        *names, file = done.stdout.decode().splitlines()[0].split()
        assert names == [digest(describe(stage)) for stage in stages]
        assert file.startswith(str(tmp_path / f"gristmill-{os.geteuid()}/code-{cargo.key}/path/gm_cargo"))
        assert done.stdout.decode().splitlines()[1] == "a word and more"
    (home,) = tmp_path.glob("gristmill-*")
    assert [path.name for path in home.iterdir()] == [f"code-{cargo.key}"] and home.stat().st_mode & 0o777 == 0o700


def test_files_that_travel_need_not_be_on_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"gm_files/__init__.py": "", "gm_files/odd.py": WORDS, "gm_files/words.txt": "a", "a.txt": "one\n"})
    write(tmp_path, {"gm_cargo_helper.py": ""})
    odd = imported(tmp_path, "gm_files.odd", monkeypatch).Odd()
    plan = make_plan("t", [("lines", Lines(paths="")), ("odd", odd), ("files", Files())], expand(str(tmp_path / "*.txt")))
    exam = set_exam(Task(str(tmp_path / "out"), plan.steps[0].spec, plan.steps[0].units[0], 1, 256), "feed")
    assert exam.files == (str(tmp_path / "a.txt"),) and "gm_files" in exam.code


def test_where_the_temporary_folder_is_not_the_users_alone_another_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"gristmill-{os.geteuid()}").mkdir(mode=0o755)
    cargo = pack([Lines(paths="")])
    assert cargo is not None
    monkeypatch.setattr(sys, "path", [*sys.path])
    cargo.unload()
    assert Path(sys.path[0], "tests/toy.py").is_file() and not any((tmp_path / f"gristmill-{os.geteuid()}").iterdir())
