"""A server that takes connections and never answers is told after the first time limit, and given up after the last."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import s3fs

from gristmill.errors import StoreError, StoreRefused
from gristmill.storage import notes, retry, s3
from gristmill.storage.store import Store, open_read, open_store
from tests.s3_servers import ENVIRONMENT


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Point this process to a silent server; give the lines that are said meanwhile."""
    lines: list[str] = []
    monkeypatch.setattr(notes, "_say", lines.append)
    monkeypatch.setattr(notes, "_TOLD", {})
    monkeypatch.setattr(s3, "READ_S", 0.3)
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        for key, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}.items():
            monkeypatch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield lines
    s3fs.S3FileSystem.clear_instance_cache()


WORK: dict[str, Callable[[Store, Path], object]] = {
    "read": lambda store, file: store.read("a"),
    "put": lambda store, file: store.put_new("a", b"content"),
    "put-file": lambda store, file: store.put_new("a", file),
    "list": lambda store, file: store.list("folder"),
    "exists": lambda store, file: store.exists("a"),
    "input": lambda store, file: open_read("s3://crawl/a.warc.gz").read(),
}


@pytest.mark.parametrize("name", WORK)
def test_whatever_is_asked_the_silence_is_told_and_bounded(name: str, said: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    with pytest.raises(StoreError, match="attempt 2 of 2"):
        WORK[name](open_store("s3://crawl/out"), file)
    (line,) = said  # of two attempts: one line a minute for each bucket
    assert line.startswith("s3://crawl/") and "the server does not answer" in line and "attempt 1 of 2" in line


def test_a_process_without_credentials_says_so_at_once(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(retry, "ATTEMPTS", 10)
    s3._session.cache_clear()
    with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://crawl/out").put_new("a", b"content")
    s3._session.cache_clear()
    assert said == []


def test_a_line_about_one_subject_is_said_once_a_minute(said: list[str]) -> None:
    for every in (60.0, 60.0, 0.0):
        notes.tell("one", "a line", every)
    notes.tell("another", "another line")
    assert said == ["a line", "a line", "another line"]
