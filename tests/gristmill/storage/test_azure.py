"""Azure's mistakes, silence and faults, as the store tells them. Most of these tests need no Azure."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gristmill.errors import StoreError, StoreRefused
from gristmill.storage import azure, notes, retry
from gristmill.storage.store import Store, expand, open_read, open_store
from tests.azure_server import CONTAINER, use_azure
from tests.s3_servers import Faults, Proxy, free_port


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Point this process to a server that takes connections and never answers; give the lines that are said meanwhile."""
    lines: list[str] = []
    monkeypatch.setattr(notes, "_say", lines.append)
    monkeypatch.setattr(notes, "_TOLD", {})
    monkeypatch.setattr(azure, "READ_S", 0.2)
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        use_azure(monkeypatch, silent.getsockname()[1])
        yield lines
    azure._client.cache_clear()


WORK: dict[str, Callable[[Store, Path], object]] = {
    "read": lambda store, file: store.read("a"),
    "put": lambda store, file: store.put_new("a", b"content"),
    "put-file": lambda store, file: store.put_new("a", file),
    "list": lambda store, file: store.list("folder"),
    "exists": lambda store, file: store.exists("a"),
    "remove": lambda store, file: store.remove("a"),
    "input": lambda store, file: open_read("az://crawl/a.warc.gz"),
}


@pytest.mark.parametrize("name", WORK)
def test_whatever_is_asked_the_silence_is_told_and_bounded(name: str, said: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    with pytest.raises(StoreError, match="attempt 2 of 2") as caught:
        WORK[name](open_store("az://crawl/out"), file)
    assert "\n" not in str(caught.value)
    (line,) = said  # of two attempts: one line a minute for each container
    assert line.startswith("az://crawl/") and "the server does not answer" in line and "attempt 1 of 2" in line


@pytest.fixture
def slow_port() -> Iterator[int]:
    """A server that takes 6 MB in about 0.6 s and then says that they are stored."""
    size = 6 << 20
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        server.bind(("127.0.0.1", 0))
        server.listen(5)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                left = size
                while left > 0:
                    left -= len(connection.recv(1 << 18))
                    threading.Event().wait(0.025)
                connection.sendall(b'HTTP/1.1 201 Created\r\nContent-Length: 0\r\nETag: "x"\r\n\r\n')

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def test_what_takes_long_to_send_is_given_the_time(slow_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's limit for an answer begins with the request."""
    use_azure(monkeypatch, slow_port)
    monkeypatch.setattr(azure, "READ_S", 0.3)
    monkeypatch.setattr(azure, "SENT", 1 << 17)
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    assert open_store("az://crawl/out").put_new("a", bytes(6 << 20))


def test_without_an_account_or_a_credential_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    use_azure(monkeypatch, free_port())
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_IDENTITY_ENDPOINT", f"http://127.0.0.1:{free_port()}/identity")  # of the machine; none here
    monkeypatch.setattr(retry, "BACKOFF", retry.Backoff(first_s=0.01, longest_s=0.01))
    azure._client.cache_clear()
    with pytest.raises(StoreRefused, match=r"az://crawl/out/a: no credentials .* set AZURE_STORAGE_ACCOUNT_KEY \(or AZURE_STOR"):
        open_store("az://crawl/out").put_new("a", b"content")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    azure._client.cache_clear()
    with pytest.raises(StoreRefused, match=r"az://crawl: .*Account must be specified; set AZURE_STORAGE_ACCOUNT_NAME"):
        open_store("az://crawl/out").put_new("a", b"content")


@pytest.mark.parametrize("uri", ["az://me:secret@crawl/x", "az://Crawl/x", "az:///x"])
def test_what_is_no_container_is_refused_and_no_secret_told(uri: str) -> None:
    with pytest.raises(StoreRefused, match=r"is no name of a container .* write az://CONTAINER/PREFIX") as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreRefused, match="is no name of a container"):
        expand(f"{uri}/*.warc.gz")


def test_more_than_azure_commits_at_once_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, azure.LARGEST + 1)
    with pytest.raises(
        StoreRefused, match=r"az://crawl/out/a: has 5242880001 bytes, and Azure commits at most 5242880000 at once"
    ):
        open_store("az://crawl/out").put_new("a", large)


def test_mistakes_on_a_server(azurite_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_azure(monkeypatch, azurite_port)
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    nowhere = open_store("az://no-such-container/x")
    for work in (lambda: nowhere.put_new("a", b""), lambda: nowhere.read("a"), lambda: nowhere.list("a")):
        with pytest.raises(StoreRefused, match="the container does not exist; create it first"):
            work()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "AAAA")
    azure._client.cache_clear()
    with pytest.raises(StoreRefused, match=r"az://crawl/x/a: access denied .* check the AZURE_STORAGE_"):
        open_store(f"az://{CONTAINER}/x").put_new("a", b"content")


def test_a_server_in_trouble(azurite_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors, cuts and slow answers; a put that was cut after it was stored is seen as stored."""
    monkeypatch.setattr(retry, "BACKOFF", retry.Backoff(first_s=0.01, longest_s=0.05))
    monkeypatch.setattr(azure, "AHEAD", 1000)
    with Proxy(azurite_port, Faults(errors=0.1, burst=2, cuts=0.1, slow=0.05), seed=3) as proxy:
        use_azure(monkeypatch, proxy.port)
        store = open_store(f"az://{CONTAINER}/{tmp_path.name}")
        for number in range(15):
            store.put_new(f"in/{number:02}", f"{number}".encode() * 2000)
            assert not store.put_new(f"in/{number:02}", b"other")
        assert store.list("in") == [f"{number:02}" for number in range(15)]
        for file in expand(f"{store.root}/in/*"):
            with file.open() as stream:
                parts = list(iter(lambda: stream.read(777), b""))
            assert b"".join(parts) == f"{int(file.name)}".encode() * 2000
        store.link_new("in/07", "out/7")
        store.remove("in/07")
        assert store.read("out/7") == b"7" * 2000 and not store.exists("in/07")
        assert min(proxy.count.values()) > 0, proxy.count
