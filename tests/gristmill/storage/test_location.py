"""From a path to a build: on a disk, on two S3 servers, on a web server, in memory; and each mistake on the way named."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from gristmill.errors import FormatError
from gristmill.format.build import open_build
from gristmill.format.manifest import files
from gristmill.storage import retry
from gristmill.storage.cache import Cache
from gristmill.storage.location import LocalLocation, Location
from gristmill.storage.remote import download
from gristmill.storage.retry import Backoff
from stages.sink.documents import Documents
from stages.sink.shards import Shards
from tests.gristmill.builds import documents, publish
from tests.gristmill.storage.web import Web, serve
from tests.s3_servers import BUCKET, Faults, Proxy, use

IDS = [[5, 6, 7, 1], [8, 1], [9, 10, 1]]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with three runs: tokens, other tokens with copies for transport, and texts."""
    folder = tmp_path_factory.mktemp("output")
    publish([[documents(IDS)], [documents(IDS[:1], file="b")]], folder, run="1")
    publish([[documents(IDS[1:])]], folder, run="2", sink=Shards(zst_copies=True))
    publish([[documents(IDS)]], folder, run="3", sink=Documents())
    return folder


def _upload(output: Path, uri: str) -> None:
    fs, root = fsspec.core.url_to_fs(uri)
    for path in [*output.glob("builds/*/*"), *output.glob("runs/*")]:
        if path.is_file():
            fs.makedirs(f"{root}/{path.relative_to(output).parent}", exist_ok=True)
            fs.pipe_file(f"{root}/{path.relative_to(output)}", path.read_bytes())


@pytest.fixture(scope="module", params=["local", "file", "memory", "moto", "seaweed"])
def uri(request: pytest.FixtureRequest, output: Path) -> Iterator[str]:
    """The output at each kind of location."""
    if request.param in ("local", "file"):
        yield f"file://{output}" if request.param == "file" else str(output)
        return
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "memory":
            found = f"memory://{output.name}"
        else:
            use(patch, request.getfixturevalue("port_of")(request.param))
            found = f"s3://{BUCKET}/{output.name}"
        _upload(output, found)
        yield found


def _newest(output: Path, run: str) -> Path:
    record = json.loads((output / "runs" / f"{run}.json").read_text())
    return output / record["manifest"]


def test_every_path_leads_to_the_build(uri: str, output: Path, tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "cache")
    for kind, run in (("tokens", "2"), ("documents", "3")):
        manifest = _newest(output, run)
        inner = manifest.relative_to(output)
        for path in (uri, f"{uri}/", f"{uri}/{inner.parent}", f"{uri}/{inner}"):
            found, location = open_build(path, kind, cache=cache)
            assert found.to_json() == manifest.read_bytes()
            assert location.uri.removeprefix("file://") == f"{uri.removeprefix('file://')}/{inner.parent}"
            assert json.loads(location.read("manifest.json")) == json.loads(manifest.read_bytes())


@pytest.mark.parametrize("run", ["1", "2"])
def test_files_are_held_as_they_were_built(uri: str, run: str, output: Path, tmp_path: Path) -> None:
    manifest, location = open_build(
        f"{uri}/{_newest(output, run).relative_to(output)}", "tokens", cache=Cache(folder=tmp_path / "c")
    )
    folder = _newest(output, run).parent
    again: Location = pickle.loads(pickle.dumps(location))
    for each in (location, again):
        each.check(files(manifest), verify=True)
        each.request(files(manifest))
        for file in files(manifest):
            held = each.hold(file)
            assert held.path.read_bytes() == (folder / file.name).read_bytes()
            held.release()
            held.release()
    assert location.names("tokens-") == sorted(p.name for p in folder.glob("tokens-*"))
    assert location.names("nothing") == location.names("nowhere/") == []
    with pytest.raises(FileNotFoundError):
        location.read("nothing")


def test_nothing_leads_nowhere(uri: str) -> None:
    for path, message in [
        (f"{uri}/builds", r"builds: has neither manifest.json nor runs/\*.json; give the folder of a build"),
        (f"{uri}/nowhere", r"nowhere: (no such file or folder; give a manifest|has neither manifest.json nor)"),
        (f"{uri}/nowhere.json", r"nowhere.json: no such file"),
    ]:
        with pytest.raises(FormatError, match=message):
            open_build(path, "tokens")


def test_kinds(uri: str, output: Path) -> None:
    with pytest.raises(FormatError, match=r"a build of kind 'documents'; only 'tokens' can be read here"):
        open_build(f"{uri}/{_newest(output, '3').relative_to(output)}", "tokens")
    with pytest.raises(FormatError, match="none of its 3 runs made a build of kind 'scores'"):
        open_build(uri, "scores")
    assert open_build(uri, None)[0].kind == "documents"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{}", r"runs/4.json: 'manifest' must be text, found nothing"),
        ("{", r"runs/4.json: cannot be read as JSON"),
        pytest.param("[" * 100_000, r"runs/4.json: cannot be read as JSON", id="deep"),
        ('{"manifest": "builds/gone/manifest.json"}', "runs/4.json: names the manifest .*builds/gone.* which is not there"),
        ('{"manifest": "builds/newer/manifest.json"}', "newer/manifest.json: format version is 2; this gristmill reads 1"),
    ],
)
@pytest.mark.parametrize("scheme", ["local", "memory"])
def test_damaged_outputs(scheme: str, record: str, message: str, output: Path, tmp_path: Path) -> None:
    uri = {"local": str(tmp_path / "o"), "memory": f"memory://{tmp_path.name}"}[scheme]
    _upload(output, uri)
    content = json.loads(_newest(output, "1").read_bytes())
    fs, root = fsspec.core.url_to_fs(uri)
    fs.makedirs(f"{root}/builds/newer")
    fs.pipe_file(f"{root}/builds/newer/manifest.json", json.dumps({**content, "version": 2}).encode())
    fs.pipe_file(f"{root}/runs/4.json", record.encode())
    with pytest.raises(FormatError, match=message):
        open_build(uri, "tokens")


Damage = Callable[[Path, str], object]
DAMAGES: list[tuple[Damage, str]] = [
    (lambda folder, name: (folder / name).unlink(), "tokens-00001.arrow: missing; the manifest names 2 files, copy"),
    (lambda folder, name: (folder / name).write_bytes(b"short"), "tokens-00001.arrow: has 5 bytes, the manifest says [0-9]+; "),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
@pytest.mark.parametrize("scheme", ["local", "memory", "http"])
def test_check_names_the_file(scheme: str, damage: Damage, message: str, output: Path, tmp_path: Path) -> None:
    _upload(output, str(tmp_path / "o"))
    folder = tmp_path / "o" / _newest(output, "1").parent.relative_to(output)
    damage(folder, "tokens-00001.arrow")
    web = Web({path.name: path.read_bytes() for path in folder.iterdir()})
    with serve(web):
        uri = {"local": str(folder), "memory": f"memory://{tmp_path.name}", "http": web.url}[scheme]
        if scheme == "memory":
            fsspec.filesystem("memory").put(str(folder), uri, recursive=True)
        manifest, location = open_build(uri, "tokens", cache=Cache(folder=tmp_path / "cache"))
        with pytest.raises(FormatError, match=message):
            location.check(files(manifest), verify=False)


def test_local_hashes(output: Path, tmp_path: Path) -> None:
    _upload(output, str(tmp_path / "o"))
    manifest, location = open_build(tmp_path / "o" / _newest(output, "1").relative_to(output), "tokens")
    assert isinstance(location, LocalLocation) and location.budget is None
    location.check(files(manifest), verify=True)
    path = location.folder / "tokens-00000.arrow"
    data = bytearray(path.read_bytes())
    data[99] ^= 1
    path.write_bytes(data)
    location.check(files(manifest), verify=False)
    with pytest.raises(FormatError, match=r"tokens-00000.arrow: sha256 is [0-9a-f]{64}, the manifest says [0-9a-f]{64}"):
        location.check(files(manifest), verify=True)


def test_packed_files_alone_are_for_transport(output: Path, tmp_path: Path) -> None:
    _upload(output, str(tmp_path / "o"))
    manifest, location = open_build(tmp_path / "o" / _newest(output, "2").relative_to(output), "tokens")
    assert isinstance(location, LocalLocation)
    (location.folder / "tokens-00000.arrow").unlink()
    with pytest.raises(FormatError, match=r"missing; .* unpack tokens-00000.arrow.zst beside it"):
        location.check(files(manifest), verify=False)


def test_a_web_server_without_listings(output: Path, tmp_path: Path) -> None:
    manifest = _newest(output, "2")
    inner = f"builds/{manifest.parent.name}"
    web = Web({f"{inner}/{path.name}": path.read_bytes() for path in manifest.parent.iterdir()})
    cache = Cache(folder=tmp_path / "cache")
    with serve(web):
        for path in (f"{web.url}/{inner}", f"{web.url}/{inner}/manifest.json"):
            found, location = open_build(path, "tokens", cache=cache)
            location.check(files(found), verify=True)
            held = location.hold(files(found)[0])
            assert held.path.read_bytes() == (manifest.parent / "tokens-00000.arrow").read_bytes()
            held.release()
        with pytest.raises(FormatError, match=r"has neither manifest\.json nor runs"):
            open_build(web.url, "tokens")


def test_a_web_server_with_listings_and_without_ranges(output: Path, tmp_path: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(output))) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_address[1]}"
        manifest, location = open_build(uri, "tokens", cache=Cache(folder=tmp_path / "cache"))
        assert manifest.to_json() == _newest(output, "2").read_bytes()
        location.check(files(manifest), verify=False)
        assert location.hold(files(manifest)[0]).path.stat().st_size == files(manifest)[0].bytes
        server.shutdown()


@pytest.mark.parametrize("server", ["moto", "seaweed"])
def test_an_s3_server_in_trouble(
    server: str, output: Path, port_of: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACKOFF", Backoff(first_s=0.01, longest_s=0.05))
    monkeypatch.setattr(download, "CHUNK", 300)
    use(monkeypatch, port_of(server))
    uri = f"s3://{BUCKET}/{tmp_path.name}"
    _upload(output, uri)
    with Proxy(port_of(server), Faults(errors=0.1, burst=2, cuts=0.1, slow=0.1), seed=2) as proxy:
        use(monkeypatch, proxy.port)
        manifest, location = open_build(uri, "tokens", cache=Cache(folder=tmp_path / "cache"))
        location.check(files(manifest), verify=False)
        for file in files(manifest):
            assert hashlib.sha256(location.hold(file).path.read_bytes()).hexdigest() == file.sha256
        assert min(proxy.count.values()) > 0, proxy.count


def test_options_of_the_storage(
    output: Path, port_of: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, port_of("moto"))
    uri = f"s3://{BUCKET}/{tmp_path.name}"
    _upload(output, uri)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    options = {"endpoint_url": f"http://127.0.0.1:{port_of('moto')}", "key": "a", "secret": "b"}
    manifest, location = open_build(uri, "tokens", cache=Cache(folder=tmp_path / "cache"), storage_options=options)
    again: Location = pickle.loads(pickle.dumps(location))
    assert again.hold(files(manifest)[0]).path.is_file()


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nosuch://x: fsspec cannot open it: Protocol not known: nosuch"):
        open_build("nosuch://x", "tokens")
    script = (
        "import sys; sys.modules['s3fs'] = None\nfrom gristmill.format.build import open_build\nopen_build('s3://b/x', 'tokens')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "FormatError: s3://b/x: " in done.stderr and "pip install s3fs" in done.stderr.splitlines()[-1], done.stderr
