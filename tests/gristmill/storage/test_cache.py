"""Remote files on the disk: one download each, resumed after kills, within the bound, and never wrong bytes."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import FormatError
from gristmill.storage.cache import Cache, Shelf
from gristmill.storage.file import File
from gristmill.storage.location import RemoteLocation
from gristmill.storage.remote import download, fetch
from gristmill.storage.remote.folder import ATTEMPTS
from tests.gristmill.storage.web import Web, serve

CHUNK = 1 << 14
SIZE = 5 * CHUNK + 77  # of a file: six chunks

# Another process: holds each file, says so, and lets go when a line comes.
CHILD = f"""
import json, sys
from gristmill.storage.remote import download
from gristmill.cache import Cache
from gristmill.manifest import File
from gristmill.storage.location import RemoteLocation
download.CHUNK = {CHUNK}
url, folder, limit, files = json.loads(sys.argv[1])
place = RemoteLocation(url, Cache(folder=folder, limit_bytes=limit), {{}})
print("ready", flush=True)
for file in files:
    sys.stdin.readline()
    held = place.hold(File(*file))
    print(len(held.path.read_bytes()), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    monkeypatch.setattr("gristmill.storage.remote.folder.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(fetch, "LOOK_S", 0.02)
    monkeypatch.setattr(fetch, "STALLED_S", 0.1)


@pytest.fixture
def web() -> Iterator[Web]:
    with serve(Web()) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def put(web: Web, name: str, size: int = SIZE, *, packed: bool = False) -> File:
    """Serve a file of bytes that depend on its name; with `packed`, its compressed copy alone."""
    data = random.Random(name).randbytes(size // 2) + bytes(size - size // 2)
    copy = pa.compress(data, codec="zstd", asbytes=True) if packed else None
    web.files[name if copy is None else f"{name}.zst"] = data if copy is None else copy
    return File(name, size, hashlib.sha256(data).hexdigest(), None if copy is None else len(copy))


def place_of(web: Web, folder: Path, files: int = 100, **options: int) -> RemoteLocation:
    """Return a place whose cache has room for so many whole files."""
    return RemoteLocation(web.url, Cache(folder=folder, limit_bytes=files * SIZE, **options), {})


def right(path: Path, file: File) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def cached(folder: Path) -> set[str]:
    """Return the names of whole files in the cache."""
    return {path.name for path in folder.glob("??/*") if not path.suffix}


def on_disk(folder: Path) -> int:
    total = 0
    for path in list(folder.glob("??/*")):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited for 20 s"
        time.sleep(0.005)


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


# ---- several processes ----


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
        place = place_of(web, folder)
        assert all(right(place.hold(file).path, file) for file in files)
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
    place = place_of(web, folder)
    found: list[Path] = []
    with Child(web, folder, [file]) as first:
        assert first.says() == "ready"
        first.go_on()
        until(lambda: len(web.log) >= 2)
        waiting = threading.Thread(target=lambda: found.append(place.hold(file).path))
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
    place = place_of(web, folder, 2)
    with Child(web, folder, files[:2]) as child:
        for _ in range(2):
            child.go_on()
        assert [child.says() for _ in range(3)] == ["ready", str(SIZE), str(SIZE)]  # it holds the first until its second came
        child.go_on()
        child.process.wait()
    with Child(web, folder, files[:1], 2) as child:
        child.go_on()
        assert [child.says(), child.says()] == ["ready", str(SIZE)]
        mine = place.hold(files[1])
        monkeypatch.setattr(fetch, "ROOM_S", 0.1)
        with pytest.raises(OSError, match=rf"no room for the {SIZE} bytes of f2: limit_bytes is {2 * SIZE}, and .*raise Cache"):
            place.hold(files[2])
        monkeypatch.setattr(fetch, "ROOM_S", 20)
        threading.Timer(0.2, child.go_on).start()
        assert right(place.hold(files[2]).path, files[2])
    assert cached(folder) == {files[1].sha256, files[2].sha256}
    mine.release()


def test_a_forked_child_keeps_what_its_parent_held(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(2)]
    place = place_of(web, folder, 1)
    held = place.hold(files[0])
    place.request(files[:1])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # it has the lock of its parent, and begins threads and connections of its own
        try:
            os.close(writer)
            os.read(reader, 1)
            mine = place.hold(files[0])
            place.request(files[:1])
            os._exit(0 if right(mine.path, files[0]) else 1)
        finally:
            os._exit(2)
    held.release()
    assert not Shelf(Cache(folder=folder, limit_bytes=SIZE)).reserve(files[1], urgent=True)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    os.close(reader)
    place.hold(files[1]).release()
    assert cached(folder) == {files[1].sha256}


# ---- the bound ----


def test_the_longest_unused_goes_first_and_what_is_held_stays(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(6)]
    place = place_of(web, folder, 3)
    a, b, c, d, e, f = files
    held = place.hold(a)
    for file in (b, c, b, d):  # c was used longest ago when d comes
        place.hold(file).release()
    assert cached(folder) == {a.sha256, b.sha256, d.sha256}
    place.hold(e).release()
    assert cached(folder) == {a.sha256, d.sha256, e.sha256}
    held.release()  # which counts as a use
    place.hold(f).release()
    assert cached(folder) == {a.sha256, e.sha256, f.sha256}
    assert right(held.path, a)
    assert web.gets()["b"] == 0 and web.gets()["f1"] == 6  # chunks: b came once


def test_bound_under_many_threads(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(8)]
    place = place_of(web, folder, 4)
    shelf = Shelf(Cache(folder=folder, limit_bytes=4 * SIZE))
    wrong: list[str] = []
    done = threading.Event()

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            file = chance.choice(files)
            held = place.hold(file)
            if not right(held.path, file):
                wrong.append(file.name)
            held.release()

    def watch() -> None:
        while not done.wait(0.002):
            if (size := on_disk(folder)) > 4 * SIZE:
                wrong.append(f"{size} bytes")

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(3)]
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert not wrong and shelf.used() <= 4 * SIZE


def test_mistakes_of_room(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(3)]
    with pytest.raises(ValueError, match=rf"limit_bytes is {SIZE - 1}, but f0 alone has {SIZE} bytes; raise limit_bytes to"):
        RemoteLocation(web.url, Cache(folder=folder, limit_bytes=SIZE - 1), {}).check(files, verify=True)
    place = place_of(web, folder, 2)
    assert place.budget == SIZE
    held = [place.hold(file) for file in files[:2]]
    begin = time.monotonic()
    with pytest.raises(OSError, match=r"no room for .* hold fewer files at once"):  # nobody else could let go: at once
        place.hold(files[2])
    assert time.monotonic() - begin < fetch.ROOM_S / 2
    del held
    place.hold(files[2]).release()
    for wrong in ({"limit_bytes": 0}, {"downloads": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Cache(**wrong)


def test_a_full_disk_is_named(web: Web, folder: Path) -> None:
    file = put(web, "f")
    place = place_of(web, folder)
    shelf = Shelf(Cache(folder=folder))
    shelf.prepare()
    shelf.part(file).parent.mkdir()
    shelf.part(file).symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=rf"the disk is full; f needs {SIZE} bytes there, and .* limit_bytes = {100 * SIZE}"
    ) as caught:
        place.hold(file)
    assert caught.value.errno == errno.ENOSPC
    assert right(place.hold(file).path, file)


def test_only_a_folder_of_its_own_is_used(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(web, "f")
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(FormatError, match=r"cache: not a cache of gristmill .1 other entries, no gristmill-cache"):
        place_of(web, folder).hold(file)
    with pytest.raises(FormatError, match=r"thesis.tex: this process cannot write there .* name another folder"):
        place_of(web, folder / "thesis.tex").hold(file)
    monkeypatch.setenv("GRISTMILL_CACHE", str(folder / "inner"))
    held = RemoteLocation(web.url, Cache(), {}).hold(file)
    assert held.path.is_relative_to(folder / "inner" / "shards")


# ---- bytes that are not right ----


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_there(packed: bool, web: Web, folder: Path) -> None:
    file = put(web, "f", packed=packed)
    other = put(web, "g", packed=packed)
    name = "f.zst" if packed else "f"
    content = web.files[name]
    place = place_of(web, folder)

    web.files[name] = content[:-1]
    with pytest.raises(FormatError, match=rf"/{name}: has {len(content) - 1} bytes, the manifest says {len(content)}; .* up"):
        place.hold(file)
    web.files[name] = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    message = r"sha256 is [0-9a-f]{64}, the manifest says " + file.sha256
    with pytest.raises(FormatError, match=f"/{name}: ({message}|cannot be decompressed .*); the copy there is damaged, upload"):
        place.hold(file)
    del web.files[name]
    with pytest.raises(FormatError, match=f"/{name}: missing; "):
        place.hold(file)
    assert not cached(folder) and Shelf(place._cache).used() == 0
    web.files[name] = content
    assert right(place.hold(file).path, file)
    assert right(place.hold(other).path, other)


def test_copies_of_other_lengths(web: Web, folder: Path) -> None:
    file = put(web, "f", packed=True)
    place = place_of(web, folder)
    for wrong, message in ((SIZE - 1, f"has {SIZE - 1} bytes"), (SIZE + 1, f"has more than {SIZE} bytes")):
        copy = pa.compress(bytes(wrong), codec="zstd", asbytes=True)
        web.files["f.zst"] = copy
        with pytest.raises(FormatError, match=rf"f.zst: decompressed it {message}, the manifest says {SIZE}; the copy there"):
            place.hold(File("f", SIZE, file.sha256, len(copy)))


@pytest.mark.parametrize("left", [b"something else", bytes(SIZE + 5)])
def test_a_wrong_part_is_thrown_away(left: bytes, web: Web, folder: Path) -> None:
    file = put(web, "f")
    place = place_of(web, folder)
    shelf = Shelf(place._cache)
    shelf.prepare()
    assert shelf.reserve(file, urgent=True)
    shelf.part(file).write_bytes(left)
    assert right(place.hold(file).path, file)


def test_a_file_cut_short_in_the_cache_comes_again(web: Web, folder: Path) -> None:
    file = put(web, "f")
    place = place_of(web, folder)
    held = place.hold(file)
    held.release()
    held.path.write_bytes(b"short")
    assert right(place.hold(file).path, file)


# ---- the network ----


def test_what_passes_is_waited_for(web: Web, folder: Path) -> None:
    file = put(web, "f")
    web.failures, web.cuts = 3, 2
    assert right(place_of(web, folder).hold(file).path, file)
    assert (web.failures, web.cuts) == (0, 0)


def test_what_lasts_is_named(web: Web, folder: Path) -> None:
    file = put(web, "f")
    place = place_of(web, folder)
    web.failures = 1000
    with pytest.raises(ConnectionError, match=rf"{web.url}/f: .*503.* \(attempt {ATTEMPTS} of {ATTEMPTS}\)"):
        place.hold(file)
    web.status = 403
    with pytest.raises(ConnectionError, match=rf"{web.url}/f: .*403.* \(attempt 1 of"):
        place.hold(file)
    web.failures = 0
    gone = RemoteLocation(f"http://127.0.0.1:{web.port - 1 if web.port > 1024 else 1024}", Cache(folder=folder), {})
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:\d+/f: .*Connect"):
        gone.hold(file)
    assert right(place.hold(file).path, file)


def test_a_server_without_ranges(web: Web, folder: Path) -> None:
    web.ranges = False
    file = put(web, "f")
    assert right(place_of(web, folder).hold(file).path, file)
    assert len(web.log) == 1


# ---- ahead of use ----


def test_requests_come_in_their_order(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}", CHUNK) for number in range(8)]
    place = place_of(web, folder, downloads=1)
    web.delay = 0.05
    place.request(files[:6])
    until(lambda: len(web.log) >= 1)
    place.request([files[7], files[3], files[2]])  # in place of what has not begun
    held = place.hold(files[2])  # at once, not at its turn
    assert right(held.path, files[2])
    until(lambda: len(cached(folder)) >= 4)
    names = [name for name, _, _ in web.log]
    begun = names[: names.index("f7")]
    assert begun[:1] == ["f0"] and set(begun) <= {"f0", "f1", "f2"}
    assert names.index("f7") < names.index("f3") and "f4" not in names and web.gets()["f2"] == 1
    assert names.index("f2") < names.index("f3")
    gets = len(web.log)
    place.request(files[2:4])
    assert right(place.hold(files[3]).path, files[3]) and len(web.log) == gets


def test_what_is_ahead_stays_within_the_bound(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(8)]
    place, other = place_of(web, folder, 4, downloads=2), place_of(web, folder, 4)
    shelf = Shelf(place._cache)
    used: list[File] = []
    place.request(files)
    until(lambda: len(cached(folder)) == 4)
    time.sleep(0.3)  # full: nothing that waits for its use makes room for what is used later
    assert cached(folder) == {file.sha256 for file in files[:4]}
    other.request([put(web, "g0")])  # nor for what somebody else wants ahead
    time.sleep(0.2)
    assert cached(folder) == {file.sha256 for file in files[:4]}
    del other
    for file in files:
        held = place.hold(file)
        assert right(held.path, file) and shelf.used() <= 4 * SIZE
        used.append(file)
        held.release()
    assert {name: count for name, count in web.gets().items() if name != "g0"} == dict.fromkeys((f.name for f in files), 6)


def test_a_need_takes_the_place_of_what_is_furthest_ahead(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(4)]
    place = place_of(web, folder, 3, downloads=1)
    place.request(files[:3])
    until(lambda: len(cached(folder)) == 3)
    until(lambda: not list(folder.glob("??/*.*")))
    until(lambda: all((folder / f.sha256[:2] / f.sha256).stat().st_atime_ns == 0 for f in files[:3]))
    place.request([])  # what nobody requests any more counts as used
    place.request(files[:3])
    until(lambda: len(place._fetcher._work()._ahead) == 3)
    held = place.hold(files[3])
    assert cached(folder) == {files[0].sha256, files[1].sha256, held.path.name}


def test_errors_in_the_background_come_out_at_hold(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}", CHUNK) for number in range(3)]
    web.files["f1"] = bytes(CHUNK)
    place = place_of(web, folder, downloads=1)
    place.request(files)
    until(lambda: len(cached(folder)) == 2)
    gets = web.gets()["f1"]
    assert gets == 2  # a second time, in case the first was bad luck
    place.request(files[1:])  # damage is not fetched again and again
    time.sleep(0.1)
    with pytest.raises(FormatError, match=f"{web.url}/f1: sha256 is"):
        place.hold(files[1])
    assert web.gets()["f1"] == gets
    web.files["f1"] = put(web, "f1", CHUNK) and web.files["f1"]
    assert right(place.hold(files[1]).path, files[1])


def test_threads_end_with_the_place(web: Web, folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name == "gristmill-download" for thread in threading.enumerate())

    gc.collect()  # places of other tests, held by the errors they raised
    until(lambda: not threads())
    files = [put(web, f"f{number}", CHUNK) for number in range(4)]
    place = place_of(web, folder)
    place.request(files)
    until(lambda: len(cached(folder)) == 4)
    assert threads() == 4
    del place
    until(lambda: not threads())
    assert all(path.stat().st_atime_ns for path in folder.glob("??/*"))  # and nobody keeps room for it
