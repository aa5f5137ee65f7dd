"""How a path leads to a build: a manifest, the folder of a build, the record of a run, or an output folder with such records.

Reads `manifest.json`, or the newest `runs/*.json` of an output folder that leads to it. Writes nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from gristmill.errors import FormatError
from gristmill.format import fields
from gristmill.format import manifest as mf
from gristmill.format.manifest import Manifest
from gristmill.secrets import check_bucket
from gristmill.storage.cache import Cache
from gristmill.storage.location import LOCAL, LocalLocation, Location, RemoteLocation
from gristmill.storage.remote.folder import Options

RUNS = "runs"  # the folder of an output with a record of each run that led to a build
MANIFEST = re.compile(rf"builds/{fields.FILE.pattern}/{fields.FILE.pattern}")  # a build's, by its name in the output


def open_build(
    path: str | Path,
    kind: str | None,
    *,
    cache: Cache | None = None,
    storage_options: Options | None = None,
) -> tuple[Manifest, Location]:
    """Return a build's manifest and where its files lie.

    Args:
        path: manifest.json, a build's folder, the record of a run (`runs/*.json`), or an output folder (its newest run that made
            such a build), on a local disk (`~/` is the home folder) or as any URL that fsspec opens: `s3://`, `http://`, …
        kind: `tokens` or `documents`; None takes either.
        cache: where remote files are kept on this machine; `Cache()` by default.
        storage_options: of the file system behind a URL, before fsspec's configuration and the environment (AWS_*).

    Raises:
        FormatError: nothing there that leads to a manifest, or a record or a manifest that is damaged.
        ValueError: credentials in an S3 URL.
        OSError: the network or the disk failed.
    """
    text = str(path)
    scheme = next((scheme for scheme in LOCAL if text.startswith(scheme)), None)
    if scheme is not None or "://" not in text:
        where = Path(text.removeprefix(scheme or "")) if scheme or isinstance(path, str) else path
        if text.startswith("~/"):
            where = where.expanduser()
        if not where.exists():
            raise FormatError(f"{path}: no such file or folder; give a manifest.json, a build's folder, or an output folder")
        if where.is_file() and where.parent.name == RUNS:
            manifest, inner = _of_run(LocalLocation(where.parent.parent), f"{RUNS}/{where.name}", kind)
            return manifest, LocalLocation(where.parent.parent / inner)
        if where.is_file():
            return _at(LocalLocation(where.parent), where.name, kind)
        manifest, inner = _find(LocalLocation(where), kind)
        return manifest, LocalLocation(where / inner)
    check_bucket(text)
    return _open_remote(text.rstrip("/"), kind, cache or Cache(), storage_options or {})


def _open_remote(uri: str, kind: str | None, cache: Cache, options: Options) -> tuple[Manifest, Location]:
    if uri.endswith(".json"):
        folder, _, name = uri.rpartition("/")
        output, _, last = folder.rpartition("/")
        if last == RUNS:
            manifest, inner = _of_run(RemoteLocation(output, cache, options), f"{RUNS}/{name}", kind)
            return manifest, RemoteLocation(f"{output}/{inner}", cache, options)
        return _at(RemoteLocation(folder, cache, options), name, kind)
    location = RemoteLocation(uri, cache, options)
    manifest, inner = _find(location, kind)
    return manifest, RemoteLocation(f"{uri}/{inner}", cache, options) if inner else location


def _at(location: Location, name: str, kind: str | None) -> tuple[Manifest, Location]:
    """Open the build whose manifest is the file `name` of `location`."""
    try:
        manifest = _load(location, name)
    except FileNotFoundError as error:
        raise FormatError(
            f"{_named(location, name)}: no such file; give a manifest.json, a build's folder, or an output"
        ) from error
    return _of_kind(manifest, kind, _named(location, name)), location


def _find(location: Location, kind: str | None) -> tuple[Manifest, str]:
    """Return the manifest that a folder leads to, and the folder of its build in that folder ('' if it is the folder itself)."""
    try:
        return _of_kind(_load(location, mf.NAME), kind, _named(location, mf.NAME)), ""
    except FileNotFoundError:
        runs = [name for name in reversed(location.names(f"{RUNS}/")) if name.endswith(".json")]
    if not runs:
        raise FormatError(
            f"{location.uri}: has neither {mf.NAME} nor {RUNS}/*.json; give the folder of a build, or of a finished output"
        )
    for run in runs:
        manifest, inner = _of_run(location, run, None)
        if kind in (None, manifest.kind):
            return manifest, inner
    raise FormatError(f"{location.uri}: none of its {len(runs)} runs made a build of kind {kind!r}")


def _of_run(location: Location, run: str, kind: str | None) -> tuple[Manifest, str]:
    """Return the manifest that the record of a run in an output leads to, and the folder of its build there."""
    where = _named(location, run)
    target = fields.matching(_json(location, run), "manifest", MANIFEST, where)
    try:
        manifest = _load(location, target)
    except FileNotFoundError as error:
        raise FormatError(f"{where}: names the manifest {_named(location, target)}, which is not there; copy it too") from error
    return _of_kind(manifest, kind, where), target.rpartition("/")[0]


def _of_kind(manifest: Manifest, kind: str | None, where: str) -> Manifest:
    if kind not in (None, manifest.kind):
        sink = {"tokens": "shards"}.get(str(kind), kind)
        raise FormatError(
            f"{where}: a build of kind {manifest.kind!r}; only {kind!r} can be read here (end the build with `{sink}`)"
        )
    return manifest


def _load(location: Location, name: str) -> Manifest:
    return mf.parse(_json(location, name), _named(location, name))


def _json(location: Location, name: str) -> object:
    content = location.read(name)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{_named(location, name)}: cannot be read as JSON ({error})") from error


def _named(location: Location, name: str) -> str:
    return f"{location.uri.rstrip('/')}/{name}"
