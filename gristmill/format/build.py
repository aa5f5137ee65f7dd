"""How a path leads to a build: a manifest, the folder of a build, or an output folder with records of its runs.

Reads `manifest.json`, or the newest `runs/*.json` of an output folder that leads to it. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.errors import FormatError
from gristmill.format import fields
from gristmill.format import manifest as mf
from gristmill.format.manifest import Manifest
from gristmill.secrets import check_bucket
from gristmill.storage.cache import Cache
from gristmill.storage.location import LOCAL, LocalLocation, Location, RemoteLocation


def open_build(
    path: str | Path,
    kind: str | None,
    *,
    cache: Cache | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Manifest, Location]:
    """Return a build's manifest and where its files lie.

    Args:
        path: manifest.json, a build's folder, or an output folder (its newest run that made such a build), on a local disk
            (`~/` is the home folder) or as any URL that fsspec opens: `s3://`, `http://`, `memory://`, …
        kind: `tokens` or `documents`; None takes either.
        cache: where remote files are kept on this machine; `Cache()` by default.
        storage_options: of the file system behind a URL, before fsspec's configuration and the environment (AWS_*).

    Raises:
        FormatError: nothing there that leads to a manifest, or one that cannot be read.
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
        if where.is_file():
            return _at(LocalLocation(where.parent), where.name, kind)
        manifest, inner = _find(LocalLocation(where), kind)
        return manifest, LocalLocation(where / inner)
    check_bucket(text)
    return _open_remote(text.rstrip("/"), kind, cache or Cache(), storage_options or {})


def _open_remote(uri: str, kind: str | None, cache: Cache, options: Mapping[str, Any]) -> tuple[Manifest, Location]:
    if uri.endswith(".json"):
        folder, _, name = uri.rpartition("/")
        return _at(RemoteLocation(folder, cache, options), name, kind)
    place = RemoteLocation(uri, cache, options)
    manifest, inner = _find(place, kind)
    return manifest, RemoteLocation(f"{uri}/{inner}", cache, options) if inner else place


def _at(place: Location, name: str, kind: str | None) -> tuple[Manifest, Location]:
    """Open the build whose manifest is the file `name` of `place`."""
    try:
        manifest = _load(place, name)
    except FileNotFoundError as error:
        raise FormatError(f"{_named(place, name)}: no such file; give a manifest.json, a build's folder, or an output") from error
    return _of_kind(manifest, kind, _named(place, name)), place


def _find(place: Location, kind: str | None) -> tuple[Manifest, str]:
    """Return the manifest that a folder leads to, and the folder of its build in that folder ('' if it is the folder itself)."""
    try:
        return _of_kind(_load(place, mf.NAME), kind, _named(place, mf.NAME)), ""
    except FileNotFoundError:
        runs = [name for name in reversed(place.names("runs/")) if name.endswith(".json")]
    if not runs:
        raise FormatError(
            f"{place.uri}: has neither {mf.NAME} nor runs/*.json; give the folder of a build, or of a finished output"
        )
    for run in runs:
        target = fields.get(_json(place, run), "manifest", str, _named(place, run))
        try:
            manifest = _load(place, target)
        except FileNotFoundError as error:
            raise FormatError(
                f"{_named(place, run)}: names the manifest {_named(place, target)}, which is not there; copy it too"
            ) from error
        if kind in (None, manifest.kind):
            return manifest, target.rpartition("/")[0]
    raise FormatError(f"{place.uri}: none of its {len(runs)} runs made a build of kind {kind!r}")


def _of_kind(manifest: Manifest, kind: str | None, where: str) -> Manifest:
    if kind not in (None, manifest.kind):
        sink = {"tokens": "shards"}.get(str(kind), kind)
        raise FormatError(
            f"{where}: a build of kind {manifest.kind!r}; only {kind!r} can be read here (end the build with `{sink}`)"
        )
    return manifest


def _load(place: Location, name: str) -> Manifest:
    return mf.parse(_json(place, name), _named(place, name))


def _json(place: Location, name: str) -> object:
    content = place.read(name)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{_named(place, name)}: cannot be read as JSON ({error})") from error


def _named(place: Location, name: str) -> str:
    return f"{place.uri.rstrip('/')}/{name}"
