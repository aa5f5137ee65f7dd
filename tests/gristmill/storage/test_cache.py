"""Remote files on the disk: within the bound, and never wrong bytes, whatever the server and the network do."""

from __future__ import annotations

import errno
import random
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import FormatError
from gristmill.storage import retry
from gristmill.storage.cache import Cache, Shelf
from gristmill.storage.file import File
from gristmill.storage.location import RemoteLocation
from gristmill.storage.remote import fetch
from tests.gristmill.storage.cached import SIZE, cached, location_of, on_disk, put, right
from tests.gristmill.storage.web import Web

pytestmark = pytest.mark.usefixtures("quick")

# ---- the bound ----


def test_the_longest_unused_goes_first_and_what_is_held_stays(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(6)]
    location = location_of(web, folder, 3)
    a, b, c, d, e, f = files
    held = location.hold(a)
    for file in (b, c, b, d):  # c was used longest ago when d comes
        location.hold(file).release()
    assert cached(folder) == {a.sha256, b.sha256, d.sha256}
    location.hold(e).release()
    assert cached(folder) == {a.sha256, d.sha256, e.sha256}
    held.release()  # which counts as a use
    location.hold(f).release()
    assert cached(folder) == {a.sha256, e.sha256, f.sha256}
    assert right(held.path, a)
    assert web.gets()["b"] == 0 and web.gets()["f1"] == 6  # chunks: b came once


def test_bound_under_many_threads(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(8)]
    location = location_of(web, folder, 4)
    shelf = Shelf(Cache(folder=folder, limit_bytes=4 * SIZE))
    wrong: list[str] = []
    done = threading.Event()

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(12):
            file = chance.choice(files)
            held = location.hold(file)
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


def test_mistakes_of_room(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SPACE_S", 3600.0)  # nothing here waits for space: the test would not end
    files = [put(web, f"f{number}") for number in range(3)]
    with pytest.raises(ValueError, match=rf"limit_bytes is {SIZE - 1}, but f0 alone has {SIZE} bytes; raise limit_bytes to"):
        RemoteLocation(web.url, Cache(folder=folder, limit_bytes=SIZE - 1), {}).check(files, verify=True)
    location = location_of(web, folder, 2)
    assert location.budget == SIZE
    held = [location.hold(file) for file in files[:2]]
    with pytest.raises(OSError, match=r"no space for .* hold fewer files at once"):  # nobody else could let go: at once
        location.hold(files[2])
    del held
    location.hold(files[2]).release()
    for wrong in ({"limit_bytes": 0}, {"downloads": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Cache(**wrong)


def test_a_full_disk_is_named(web: Web, folder: Path) -> None:
    file = put(web, "f")
    location = location_of(web, folder)
    shelf = Shelf(Cache(folder=folder))
    shelf.prepare()
    shelf.part(file).parent.mkdir()
    shelf.part(file).symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=rf"the disk is full; f needs {SIZE} bytes there, and .* limit_bytes = {100 * SIZE}"
    ) as caught:
        location.hold(file)
    assert caught.value.errno == errno.ENOSPC
    assert right(location.hold(file).path, file)


def test_only_a_folder_of_its_own_is_used(web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(web, "f")
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(FormatError, match=r"cache: not a cache of gristmill .1 other entries, no gristmill-cache"):
        location_of(web, folder).hold(file)
    with pytest.raises(FormatError, match=r"thesis.tex: this process cannot write there .* name another folder"):
        location_of(web, folder / "thesis.tex").hold(file)
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
    location = location_of(web, folder)

    web.files[name] = content[:-1]
    with pytest.raises(FormatError, match=rf"/{name}: has {len(content) - 1} bytes, the manifest says {len(content)}; .* up"):
        location.hold(file)
    web.files[name] = content[:100] + bytes([content[100] ^ 1]) + content[101:]
    message = r"sha256 is [0-9a-f]{64}, the manifest says " + file.sha256
    with pytest.raises(FormatError, match=f"/{name}: ({message}|cannot be decompressed .*); the copy there is damaged, upload"):
        location.hold(file)
    del web.files[name]
    with pytest.raises(FormatError, match=f"/{name}: missing; "):
        location.hold(file)
    assert not cached(folder) and Shelf(location._cache).used() == 0
    web.files[name] = content
    assert right(location.hold(file).path, file)
    assert right(location.hold(other).path, other)


def test_copies_of_other_lengths(web: Web, folder: Path) -> None:
    file = put(web, "f", packed=True)
    location = location_of(web, folder)
    for wrong, message in ((SIZE - 1, f"has {SIZE - 1} bytes"), (SIZE + 1, f"has more than {SIZE} bytes")):
        copy = pa.compress(bytes(wrong), codec="zstd", asbytes=True)
        web.files["f.zst"] = copy
        with pytest.raises(FormatError, match=rf"f.zst: decompressed it {message}, the manifest says {SIZE}; the copy there"):
            location.hold(File("f", SIZE, file.sha256, len(copy)))


@pytest.mark.parametrize("left", [b"something else", bytes(SIZE + 5)])
def test_a_wrong_part_is_thrown_away(left: bytes, web: Web, folder: Path) -> None:
    file = put(web, "f")
    location = location_of(web, folder)
    shelf = Shelf(location._cache)
    shelf.prepare()
    assert shelf.reserve(file, urgent=True)
    shelf.part(file).write_bytes(left)
    assert right(location.hold(file).path, file)


def test_a_file_cut_short_in_the_cache_comes_again(web: Web, folder: Path) -> None:
    file = put(web, "f")
    location = location_of(web, folder)
    held = location.hold(file)
    held.release()
    held.path.write_bytes(b"short")
    assert right(location.hold(file).path, file)


# ---- the network ----


def test_what_passes_is_waited_for(web: Web, folder: Path) -> None:
    file = put(web, "f")
    web.failures, web.cuts = 3, 2
    assert right(location_of(web, folder).hold(file).path, file)
    assert (web.failures, web.cuts) == (0, 0)


def test_what_lasts_is_named(web: Web, folder: Path) -> None:
    file = put(web, "f")
    location = location_of(web, folder)
    web.failures = 1000
    with pytest.raises(ConnectionError, match=rf"{web.url}/f: .*503.* \(attempt {retry.ATTEMPTS} of {retry.ATTEMPTS}\)"):
        location.hold(file)
    web.status = 403
    with pytest.raises(ConnectionError, match=rf"{web.url}/f: .*403.* \(attempt 1 of"):
        location.hold(file)
    web.failures = 0
    gone = RemoteLocation(f"http://127.0.0.1:{web.port - 1 if web.port > 1024 else 1024}", Cache(folder=folder), {})
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:\d+/f: .*Connect"):
        gone.hold(file)
    assert right(location.hold(file).path, file)


def test_a_server_without_ranges(web: Web, folder: Path) -> None:
    web.ranges = False
    file = put(web, "f")
    assert right(location_of(web, folder).hold(file).path, file)
    assert len(web.log) == 1
