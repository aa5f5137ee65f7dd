"""What is fetched ahead of its use: in its order, within the bound, and its errors where somebody waits for it."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path

import pytest

from gristmill.errors import FormatError
from gristmill.storage.cache import Cache, Shelf
from gristmill.storage.file import File
from gristmill.storage.remote.download import download
from gristmill.storage.remote.folder import Remote
from tests.gristmill.storage.cached import CHUNK, SIZE, cached, location_of, put, right, until
from tests.gristmill.storage.web import Web

pytestmark = pytest.mark.usefixtures("quick")


def test_requests_come_in_their_order(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}", CHUNK) for number in range(8)]
    location = location_of(web, folder, downloads=1)
    web.delay = 0.05
    location.request(files[:6])
    until(lambda: len(web.log) >= 1)
    location.request([files[7], files[3], files[2]])  # in place of what has not begun
    held = location.hold(files[2])  # at once, not at its turn
    assert right(held.path, files[2])
    until(lambda: {files[number].sha256 for number in (2, 3, 7)} <= cached(folder))
    names = [name for name, _, _ in web.log]
    begun = names[: names.index("f7")]
    assert begun[:1] == ["f0"] and set(begun) <= {"f0", "f1", "f2"}
    assert names.index("f7") < names.index("f3") and "f4" not in names and web.gets()["f2"] == 1
    assert names.index("f2") < names.index("f3")
    gets = len(web.log)
    location.request(files[2:4])
    assert right(location.hold(files[3]).path, files[3]) and len(web.log) == gets


def test_what_is_ahead_stays_within_the_bound(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(8)]
    location, other = location_of(web, folder, 4, downloads=2), location_of(web, folder, 4)
    shelf = Shelf(location._cache)
    used: list[File] = []
    location.request(files)
    until(lambda: len(cached(folder)) == 4)
    time.sleep(0.3)  # full: nothing that waits for its use makes room for what is used later
    assert cached(folder) == {file.sha256 for file in files[:4]}
    other.request([put(web, "g0")])  # nor for what somebody else wants ahead
    time.sleep(0.2)
    assert cached(folder) == {file.sha256 for file in files[:4]}
    del other
    for file in files:
        held = location.hold(file)
        assert right(held.path, file)
        # Not at once: a file that gets its name counts twice until what was set aside for it is gone.
        until(lambda: shelf.used() <= 4 * SIZE)
        used.append(file)
        held.release()
    assert {name: count for name, count in web.gets().items() if name != "g0"} == dict.fromkeys((f.name for f in files), 6)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_ahead_is_marked_before_it_has_its_name(
    packed: bool, web: Web, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody who needs space meets it without its mark."""
    file = put(web, "f", packed=packed)
    shelf = Shelf(Cache(folder=folder))
    shelf.prepare()
    assert shelf.reserve(file, urgent=False)
    marked: list[bool] = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        marked.append(path.stat().st_atime_ns == 0)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    with shelf.claim(file) as mine:
        assert mine
        download(Remote(web.url, {}), shelf, file, lambda: False, ahead=True)
    assert marked == [True] and right(shelf.path(file), file)


def test_a_need_comes_before_what_is_furthest_ahead(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}") for number in range(4)]
    location = location_of(web, folder, 3, downloads=1)
    location.request(files[:3])
    until(lambda: len(cached(folder)) == 3)
    until(lambda: not list(folder.glob("??/*.*")))
    until(lambda: all((folder / f.sha256[:2] / f.sha256).stat().st_atime_ns == 0 for f in files[:3]))
    location.request([])  # what nobody requests any more counts as used
    location.request(files[:3])
    until(lambda: len(location._fetcher._work()._ahead) == 3)
    held = location.hold(files[3])
    assert cached(folder) == {files[0].sha256, files[1].sha256, held.path.name}


def test_errors_in_the_background_come_out_at_hold(web: Web, folder: Path) -> None:
    files = [put(web, f"f{number}", CHUNK) for number in range(3)]
    web.files["f1"] = bytes(CHUNK)
    location = location_of(web, folder, downloads=1)
    location.request(files)
    until(lambda: len(cached(folder)) == 2)
    gets = web.gets()["f1"]
    assert gets == 2  # a second time, in case the first was bad luck
    location.request(files[1:])  # damage is not fetched again and again
    time.sleep(0.1)
    with pytest.raises(FormatError, match=f"{web.url}/f1: sha256 is"):
        location.hold(files[1])
    assert web.gets()["f1"] == gets
    web.files["f1"] = put(web, "f1", CHUNK) and web.files["f1"]
    assert right(location.hold(files[1]).path, files[1])


def test_threads_end_with_the_location(web: Web, folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name == "gristmill-download" for thread in threading.enumerate())

    gc.collect()  # locations of other tests, held by the errors they raised
    until(lambda: not threads())
    files = [put(web, f"f{number}", CHUNK) for number in range(4)]
    location = location_of(web, folder)
    location.request(files)
    until(lambda: len(cached(folder)) == 4)
    assert threads() == 4
    del location
    until(lambda: not threads())
    assert all(path.stat().st_atime_ns for path in folder.glob("??/*"))  # and nobody keeps room for it
