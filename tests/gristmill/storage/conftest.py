"""Servers that many tests of the storages use, started when the first asks for them, and quick waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gristmill.storage import retry
from gristmill.storage.remote import download, fetch
from tests.azure_server import azurite
from tests.gristmill.storage.cached import CHUNK
from tests.gristmill.storage.web import Web, serve
from tests.s3_servers import moto, seaweed


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    with moto() as port:
        yield port


@pytest.fixture(scope="session")
def seaweed_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as port:
        yield port


@pytest.fixture(scope="session")
def azurite_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with azurite(tmp_path_factory.mktemp("azurite")) as port:
        yield port


@pytest.fixture(scope="session")
def port_of(request: pytest.FixtureRequest) -> Callable[[str], int]:
    """Return the port of a server by its name: `moto`, `seaweed` or `azurite`."""
    return lambda name: request.getfixturevalue(f"{name}_port")


@pytest.fixture
def web() -> Iterator[Web]:
    with serve(Web()) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks small and waits short."""
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    monkeypatch.setattr(retry, "BACKOFF", retry.Backoff(first_s=0.01, longest_s=0.05))
    monkeypatch.setattr(fetch, "LOOK_S", 0.02)
    monkeypatch.setattr(fetch, "STALLED_S", 0.1)
