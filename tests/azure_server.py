"""A server of Azure's blob protocol on loopback for the tests: Azurite, Microsoft's own, where it is installed.

`npm install --prefix build/azurite azurite` brings it; the tests that need it are skipped without.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_servers import free_port, wait_for

CONTAINER = "crawl"
ACCOUNT = "devstoreaccount1"
# The public key of every emulator: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
INSTALLED = Path(__file__).parents[1] / "build/azurite/node_modules/.bin"


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[int]:
    """Run the server, with a container in it; give its port."""
    command = shutil.which("azurite-blob", path=f"{INSTALLED}{os.pathsep}{os.environ.get('PATH', '')}")
    if command is None:
        pytest.skip("no azurite-blob: npm install --prefix build/azurite azurite")
    port = free_port()
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", str(folder), "--blobPort", str(port)]
    process = subprocess.Popen([command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, 60)
        _make_container(port)
        yield port
    finally:
        process.kill()
        process.wait()


def _make_container(port: int) -> None:
    """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key"""
    date, version, path = email.utils.formatdate(usegmt=True), "2021-08-06", f"/{ACCOUNT}/{CONTAINER}"
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Content-Length": "0"}
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    url = f"http://127.0.0.1:{port}{path}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)) as answer:
        assert answer.status == 201


def use_azure(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Point this process, and those it starts, to the server on `port`."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}/{ACCOUNT}")
    from gristmill.storage import azure

    azure._client.cache_clear()
