"""Remote files on the disk between processes: one download each, gone on with after kills, room that is waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gristmill.storage.cache import Cache, Shelf
from gristmill.storage.file import File
from gristmill.storage.remote import fetch
from tests.gristmill.storage.cached import CHUNK, SIZE, cached, location_of, put, right, until
from tests.gristmill.storage.web import Web

pytestmark = pytest.mark.usefixtures("quick")

# Another process: holds each file, says so, and lets go when a line comes.
CHILD = f"""
import json, sys
from gristmill.storage.remote import download
from gristmill.storage.cache import Cache
from gristmill.storage.file import File
from gristmill.storage.location import RemoteLocation
download.CHUNK = {CHUNK}
url, folder, limit, files = json.loads(sys.argv[1])
location = RemoteLocation(url, Cache(folder=folder, limit_bytes=limit), {{}})
print("ready", flush=True)
for file in files:
    sys.stdin.readline()
    held = location.hold(File(*file))
    print(len(held.path.read_bytes()), flush=True)
sys.stdin.readline()
"""


class Child:
    """A process of its own that holds one file after another."""

    def __init__(self, web: Web, folder: Path, files: list[File], room: int = 100) -> None:
        given = json.dumps([web.url, str(folder), room * SIZE, [[f.name, f.bytes, f.sha256, f.zst] for f in files]])
        command = [sys.executable, "-c", CHILD, given]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_many_processes_download_each_file_once(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}", packed=number % 2 == 1) for number in range(4)]
    web.delay = 0.02
    orders = [files, files[::-1], files[2:] + files[:2]]
    with Child(web, folder, orders[0]) as a, Child(web, folder, orders[1]) as b, Child(web, folder, orders[2]) as c:
        for child in (a, b, c):
            assert child.says() == "ready"
        for child in (a, b, c):
            for _ in files:
                child.go_on()
        for child in (a, b, c):
            assert [child.says() for _ in files] == [str(SIZE)] * len(files)
        location = location_of(web, folder)
        assert all(right(location.hold(file).path, file) for file in files)
    asked = [(name, start) for name, start, _ in web.log]
    assert len(asked) == len(set(asked))
    assert {name: sum(size for n, _, size in web.log if n == name) for name, _ in asked} == {
        name: len(data) for name, data in web.files.items()
    }
    assert not list(folder.glob("??/*.*"))


@pytest.mark.parametrize("packed", [False, True])
def test_a_killed_download_is_gone_on_with(packed: bool, web: Web, folder: Path) -> None:
    file = put(web, "f", packed=packed)
    web.delay = 0.1
    location = location_of(web, folder)
    found: list[Path] = []
    with Child(web, folder, [file]) as first:
        assert first.says() == "ready"
        first.go_on()
        until(lambda: len(web.log) >= 2)
        waiting = threading.Thread(target=lambda: found.append(location.hold(file).path))
        waiting.start()  # it waits for the other process
        time.sleep(0.05)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    web.delay = 0.0
    waiting.join()
    assert right(found[0], file)
    starts = [start for _, start, _ in web.log]
    size = file.bytes if file.zst is None else file.zst
    missed = len(starts) - len(set(starts))  # the answer that was on its way when its receiver was killed
    assert missed <= 1 and sorted(set(starts)) == list(range(0, size, CHUNK)), starts


def test_room_is_waited_for_while_another_process_holds_it(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [put(web, f"f{number}") for number in range(3)]
    location = location_of(web, folder, 2)
    with Child(web, folder, files[:2]) as child:
        for _ in range(2):
            child.go_on()
        assert [child.says() for _ in range(3)] == ["ready", str(SIZE), str(SIZE)]  # it holds the first until its second came
        child.go_on()
        child.process.wait()
    with Child(web, folder, files[:1], 2) as child:
        child.go_on()
        assert [child.says(), child.says()] == ["ready", str(SIZE)]
        mine = location.hold(files[1])
        monkeypatch.setattr(fetch, "SPACE_S", 0.1)
        with pytest.raises(OSError, match=rf"no space for {SIZE} bytes of f2: limit_bytes is {2 * SIZE}, and .*raise Cache"):
            location.hold(files[2])
        monkeypatch.setattr(fetch, "SPACE_S", 20)
        threading.Timer(0.2, child.go_on).start()
        assert right(location.hold(files[2]).path, files[2])
    assert cached(folder) == {files[1].sha256, files[2].sha256}
    mine.release()


def test_a_forked_child_keeps_what_its_parent_held(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(2)]
    location = location_of(web, folder, 1)
    held = location.hold(files[0])
    location.request(files[:1])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # it has the lock of its parent, and begins threads and connections of its own
        try:
            os.close(writer)
            os.read(reader, 1)
            mine = location.hold(files[0])
            location.request(files[:1])
            os._exit(0 if right(mine.path, files[0]) else 1)
        finally:
            os._exit(2)
    held.release()
    assert not Shelf(Cache(folder=folder, limit_bytes=SIZE)).reserve(files[1], urgent=True)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)
    location.hold(files[1]).release()
    assert cached(folder) == {files[1].sha256}
