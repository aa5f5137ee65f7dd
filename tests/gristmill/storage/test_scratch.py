"""What a process has in use stays, whoever sweeps; what a killed one left goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.storage import scratch
from gristmill.storage.local import LocalStore
from gristmill.storage.scratch import held_file, held_folder, own_folder, sweep_files, sweep_folders

WORKER = """
import sys, time
from pathlib import Path
from gristmill.storage.scratch import held_file
from gristmill.storage.local import LocalStore
store = LocalStore(sys.argv[1])
with store.scratch() as folder, held_file(Path(sys.argv[1]) / "data/ab", "x.arrow") as (path, file):
    (folder / "deep").mkdir()
    (folder / "deep" / "part").write_text("half")
    print(folder, path, sep="\\n", flush=True)
    time.sleep(600)
"""


class Worker:
    """A process that has a scratch folder and a temporary file of a store in use."""

    def __init__(self, root: Path) -> None:
        (root / "data" / "ab").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, str(root)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.paths = [Path(self.process.stdout.readline().strip()) for _ in range(2)]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker(tmp_path)
    yield started
    started.kill()


def test_a_live_process_keeps_what_it_uses_and_a_killed_one_does_not(worker: Worker, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.sweep()
    assert [folder.exists() for folder in worker.paths] == [True, True] and (worker.paths[0] / "deep" / "part").exists()
    worker.kill()
    store.put_new("data/ab/y.arrow", b"whole")
    store.sweep()
    assert [folder.exists() for folder in worker.paths] == [False, False]
    assert not list((tmp_path / "scratch").iterdir()) and store.list("data/ab") == ["y.arrow"]


def test_other_stores_of_this_process_leave_it_too(tmp_path: Path) -> None:
    with LocalStore(str(tmp_path)).scratch() as folder:
        (folder / "part").write_text("half")
        LocalStore(str(tmp_path)).sweep()
        assert (folder / "part").read_text() == "half"
    assert not list((tmp_path / "scratch").iterdir())


def test_nobody_holds_what_has_no_lock(tmp_path: Path) -> None:
    """A folder as it was named by host and process number, whose number may be another process by now, and a lock alone."""
    left = tmp_path / "scratch" / f"{os.uname().nodename}-{os.getpid()}-0123abcd"
    left.mkdir(parents=True)
    (left / "rows-0.arrow").write_bytes(b"half")
    (tmp_path / "scratch" / f".folder.{'0' * 32}").touch()
    LocalStore(str(tmp_path)).sweep()
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    "name", ["data/ab/.x.arrow", "steps/warc-x/.y.json", "builds/b/.report.html", "runs/.run-1.json", ".probe"]
)
def test_temporary_files_go_wherever_they_lie(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.{'0a' * 16}"
    others = [path.with_name(each) for each in (".hidden", "x.arrow", f".scores.{'0a' * 15}", f"plain.{'0a' * 16}")]
    path.parent.mkdir(parents=True, exist_ok=True)
    for each in (path, *others):
        each.touch()
    sweep_files(tmp_path)
    assert sorted(path.parent.iterdir()) == sorted(others)


@pytest.mark.parametrize(("age", "there"), [(0, True), (3600, True), (2 * scratch.ELSEWHERE_S, False)])
def test_a_lock_of_another_machine_is_believed_after_a_day(tmp_path: Path, age: float, there: bool) -> None:
    """Where locks are not shared between machines, one that could be taken proves nothing."""
    lock, folder = tmp_path / f".folder.{'1' * 32}", tmp_path / ("1" * 32)
    lock.write_bytes(b"another kernel")
    folder.mkdir()
    os.utime(lock, (time.time() - age,) * 2)
    sweep_folders(tmp_path)
    assert lock.exists() == folder.exists() == there


def test_sweepers_and_holders_at_once(tmp_path: Path) -> None:
    """Nothing is taken from under a holder, however the two meet."""
    ended = threading.Event()

    def sweep() -> None:
        while not ended.is_set():
            sweep_folders(tmp_path)
            sweep_files(tmp_path)

    sweepers = [threading.Thread(target=sweep) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(150):
            with held_folder(tmp_path) as folder, held_file(tmp_path, "x") as (path, file):
                (folder / "part").write_text(str(number))
                file.write(b"1")
                assert path.exists() and (folder / "part").read_text() == str(number)
    finally:
        ended.set()
        for sweeper in sweepers:
            sweeper.join()
    assert list(tmp_path.iterdir()) == []


def test_what_is_raised_while_a_file_is_held_is_passed_on_and_the_file_goes(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held_folder(tmp_path), held_file(tmp_path, "x"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_folder_in_the_temporary_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folder() as first, held_folder(first) as folder:
        assert folder.parent == first and first.parent == tmp_path and first.stat().st_mode & 0o777 == 0o700
    with own_folder() as second:
        assert second == first
    first.chmod(0o777)
    with own_folder() as fresh, held_folder(fresh) as folder:
        assert fresh != first and fresh.stat().st_mode & 0o777 == 0o700
    first.rmdir()
    first.symlink_to(tmp_path)
    with own_folder() as fresh:
        assert fresh != first and not fresh.is_symlink()
    assert sorted(tmp_path.iterdir()) == [first]
