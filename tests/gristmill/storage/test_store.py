"""One contract over every store: local disk, moto's server, SeaweedFS, Azurite where it is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import InputError, StoreRefused
from gristmill.storage.matching import literal
from gristmill.storage.store import Store, expand, open_store, probe
from tests.azure_server import CONTAINER, use_azure
from tests.s3_servers import BUCKET, Faults, Proxy, use


@pytest.fixture(params=["local", "moto", "seaweed", "azurite"])
def store(
    request: pytest.FixtureRequest, port_of: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "azurite":
        use_azure(monkeypatch, port_of(request.param))
        return open_store(f"az://{CONTAINER}/{tmp_path.name}")
    use(monkeypatch, port_of(request.param))
    return open_store(f"s3://{BUCKET}/{tmp_path.name}")


def test_put_new_never_overwrites(store: Store, tmp_path: Path) -> None:
    assert store.put_new("a/b.bin", b"first")
    assert not store.put_new("a/b.bin", b"second")
    other = tmp_path / "other"
    other.write_bytes(b"third")
    assert not store.put_new("a/b.bin", other)
    assert store.read("a/b.bin") == b"first"


def test_one_of_many_racing_writers_wins(store: Store) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        if store.put_new("race", f"{number}".encode() * 1000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("race") == f"{won[0]}".encode() * 1000


def test_listing_reading_and_linking(store: Store, tmp_path: Path) -> None:
    assert store.list("nowhere") == []
    assert not store.exists("x/1")
    with pytest.raises(FileNotFoundError):
        store.read("x/1")
    for number in range(3):
        store.put_new(f"x/{number}", b"content")
    store.put_new("x/deeper/4", b"")
    assert store.list("x") == ["0", "1", "2"]
    store.link_new("x/1", "y/linked")
    store.link_new("x/1", "y/linked")
    assert store.read("y/linked") == b"content"


def test_sizes_folders_and_removal(store: Store) -> None:
    """What was removed can be put anew, with other content; what is not there has no size, and no harm is done to remove it."""
    assert store.size("z/a") is None and store.sizes("z") == {} and list(store.folders("z")) == []
    store.put_new("z/a", b"12345")
    store.put_new("z/deep/b", b"1")
    store.put_new("z/deeper/c/d", b"")
    assert (store.size("z/a"), store.size("z/deep/b"), store.size("z/deep")) == (5, 1, None)
    assert store.sizes("z") == {"a": 5} and list(store.folders("z")) == ["deep", "deeper"]
    assert not store.put_new("z/a", b"other")
    store.remove("z/a")
    store.remove("z/a")
    assert not store.exists("z/a") and store.put_new("z/a", b"other") and store.read("z/a") == b"other"


def test_a_build_that_runs_is_seen_by_others_while_it_does(store: Store) -> None:
    other = open_store(store.root)
    assert not other.live()
    with pytest.raises(KeyError), store.alive():
        assert len(other.live()) == len(store.live()) == 1
        other.sweep()
        assert len(other.live()) == 1
        raise KeyError
    assert not other.live()


def test_scratch_is_empty_and_goes(store: Store) -> None:
    with store.scratch() as folder, store.scratch() as another:
        assert folder != another and not list(folder.iterdir())
        (folder / "part").write_text("half")
        open_store(store.root).sweep()
        assert (folder / "part").exists() and another.exists()
    assert not folder.exists() and not another.exists()


def test_arrow_reads_one_batch_of_a_stored_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    batches = [pa.record_batch({"n": pa.array(range(i * 10, i * 10 + 10))}) for i in range(5)]
    with pa.ipc.new_file(path, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    store.put_new("t.arrow", path)
    with store.open("t.arrow") as file:
        assert pa.ipc.open_file(file).get_batch(3).equals(batches[3])


def test_large_files_are_put_whole_and_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In three parts on S3, where parts of 5 MiB are the least; s3fs takes ten times that, for files from 100 MiB on."""
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (12 << 12))
    assert store.put_new("large", path)
    assert not store.put_new("large", path)
    assert store.read("large") == path.read_bytes()


def test_probe_accepts(store: Store) -> None:
    probe(store)
    probe(store)


def test_inputs_are_found_and_read(store: Store) -> None:
    for name in ("in/a/1.txt", "in/a/2.txt", "in/b/3.txt"):
        store.put_new(name, name.encode())
    found = expand(f"{store.root}/in/*/*.txt")
    assert [file.name for file in found] == ["a/1.txt", "a/2.txt", "b/3.txt"]
    with found[1].open() as stream:
        assert stream.read() == b"in/a/2.txt"
    assert [file.name for file in expand(f"{store.root}/in/b/3.txt")] == ["3.txt"]


ODD = ["q?x", "br[1]", "a*b", "sp ace", "ha#sh", "50%25", "ünï", "a+b&c=d", "semi;colon"]


@pytest.mark.parametrize("name", ODD)
def test_names_with_characters_that_mean_something_elsewhere(name: str, store: Store, tmp_path: Path) -> None:
    odd = open_store(f"{store.root}/{name}")
    probe(odd)
    assert odd.put_new(f"{name}/1", b"content") and not odd.put_new(f"{name}/1", b"other")
    path = tmp_path / "file"
    path.write_bytes(b"of a file")
    assert odd.put_new(f"{name}/2", path)
    odd.link_new(f"{name}/1", f"links/{name}")
    assert odd.read(f"links/{name}") == b"content" and odd.exists(f"links/{name}")
    assert odd.list(name) == ["1", "2"] and odd.list("links") == [name]
    with odd.open(f"{name}/2") as file:
        assert file.read() == b"of a file"
    assert [file.name for file in expand(f"{store.root}/{literal(name)}/{literal(name)}/1")] == ["1"]
    found = expand(f"{store.root}/{literal(name)}/**")
    assert [file.name for file in found] == sorted([f"{name}/1", f"{name}/2", f"links/{name}", "probe"])
    with found[0].open() as stream:
        assert stream.read() in (b"content", b"of a file")
    if "*" not in name:
        assert [file.name for file in expand(f"{store.root}/{name}/{name}/1")] == ["1"]


def test_a_folder_where_a_file_is_meant_is_said(store: Store) -> None:
    store.put_new("in/a/1.txt", b"x")
    with pytest.raises(InputError, match=r"is a folder; give its files, such as '.*/in/a/\*.txt'"):
        expand(f"{store.root}/in/a")
    with pytest.raises(InputError, match="pattern matches no file"):
        expand(f"{store.root}/in/b*/1.txt")
    with pytest.raises(InputError, match="file does not exist"):
        expand(f"{store.root}/in/a/2.txt")


def test_a_server_that_ignores_the_condition_is_refused(port_of: Callable[[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(port_of("moto"), Faults(unconditional=True)) as proxy:
        use(monkeypatch, proxy.port)
        with pytest.raises(StoreRefused, match="does not honour conditional writes"):
            probe(open_store(f"s3://{BUCKET}/ignored"))


def test_what_is_small_costs_one_request(port_of: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is paid for, and waited for."""
    with Proxy(port_of("moto"), Faults()) as proxy:
        use(monkeypatch, proxy.port)
        store = open_store(f"s3://{BUCKET}/{tmp_path.name}")
        works: list[Callable[[], object]] = [
            lambda: store.put_new("a", b"content"),
            lambda: store.put_new("empty", b""),
            lambda: store.read("a"),
            lambda: store.read("empty"),
            lambda: store.size("a"),
            lambda: store.sizes(""),
        ]
        for number, work in enumerate(works):
            before = proxy.count["passed"]
            work()
            assert proxy.count["passed"] == before + 1, number


def test_a_bucket_that_is_not_there_is_refused(port_of: Callable[[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, port_of("moto"))
    with pytest.raises(StoreRefused, match="bucket does not exist"):
        probe(open_store("s3://no-such-bucket-here/x"))


def test_a_file_as_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreRefused, match="is a file"):
        probe(open_store(str(tmp_path / "file")))
