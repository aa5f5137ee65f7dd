"""Per-token columns that were added to a finished build: losses of another model, masks of another policy.

Reads: `scores-<name>.json` in the build's folder, which names a file of columns for each shard; `sidecar_writer.py` writes these.
Writes: nothing. `find_sidecars` finds them, `with_sidecars` takes them for part of the manifest.

The value of token t belongs to t as the target, predicted from those before it; the first token of a document has none: NaN,
or False.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gristmill.errors import FormatError
from gristmill.format import fields
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from gristmill.format.manifest import Manifest, Sidecar
from gristmill.json_values import Plain
from gristmill.storage.location import Location

_NAME = re.compile(rf"{fmt.SCORES}-({fmt.SCORES_NAME.pattern})\.json")


@dataclass(frozen=True)
class Added:
    """Columns added to a build: what its `scores-<name>.json` says.

    Attributes:
        name: of the model or policy.
        order: `Manifest.order` of the build that they were made for.
        columns: name → type (a key of `format.COLUMN_TYPES`).
        files: one a shard, in order.
        sizes: (documents, tokens) of each.
        where: the path of the file, for messages.
        about: column → what its maker says of it, as plain data.
    """

    name: str
    order: str
    columns: Mapping[str, str]
    files: tuple[Sidecar, ...]
    sizes: tuple[tuple[int, int], ...]
    where: str
    about: Mapping[str, Plain] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the bytes of the file; equal columns give equal bytes."""
        shards = [
            {"file": file.file, "bytes": file.bytes, "sha256": file.sha256, "documents": documents, "tokens": tokens}
            for file, (documents, tokens) in zip(self.files, self.sizes, strict=True)
        ]
        content = {
            "format": mf.FORMAT,
            "version": fmt.VERSION,
            "kind": fmt.SCORES,
            "name": self.name,
            "order": self.order,
            "columns": self.columns,
            "about": self.about,
            "shards": shards,
        }
        return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_name(name: str) -> str:
    """Return the name of the file that makes the columns of a model or policy known."""
    return f"{fmt.SCORES}-{name}.json"


def file_name(name: str, shard: int, sha256: str) -> str:
    """Return the name of a shard's file of added columns: by content, so that what a killed writer left is never in the way."""
    return fmt.file_name(f"{fmt.SCORES}-{name}", shard).replace(".arrow", f"-{sha256[:12]}.arrow")


# ---- reading ----


def find_sidecars(location: Location) -> dict[str, Added]:
    """Return what was added to a build, by name of the model or policy.

    Raises:
        FormatError: one of the files is none, or of another version.
    """
    found = {}
    for file in location.names(f"{fmt.SCORES}-"):
        match = _NAME.fullmatch(file)
        if match:
            where = f"{location.uri.rstrip('/')}/{file}"
            found[match[1]] = parse(location.read(file), match[1], where)
    return found


def parse(data: bytes, name: str, where: str) -> Added:
    """Check the bytes of a `scores-<name>.json`; `where` begins the messages of errors. Raises FormatError."""
    try:
        content = json.loads(data)
    except ValueError as error:
        raise FormatError(f"{where}: cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(content, dict) or (content.get("format"), content.get("kind")) != (mf.FORMAT, fmt.SCORES):
        raise FormatError(f"{where}: names no per-token columns (no 'format': '{mf.FORMAT}' and 'kind': '{fmt.SCORES}')")
    if content.get("version") != fmt.VERSION:
        raise FormatError(f"{where}: format version is {content.get('version')!r}; this gristmill reads {fmt.VERSION}")
    if fields.get(content, "name", str, where) != name:
        raise FormatError(f"{where}: 'name' is {content['name']!r}, expected {name!r}; the file was renamed")
    columns = mf.columns(fields.get(content, "columns", dict, where), f"{where}: columns")
    shards = [(each, f"{where}: shards[{n}]") for n, each in enumerate(fields.get(content, "shards", list, where))]
    return Added(
        name=name,
        order=fields.get(content, "order", str, where),
        columns=columns,
        files=tuple(
            Sidecar(
                file=fields.matching(each, "file", fields.FILE, at),
                sha256=fields.matching(each, "sha256", fields.SHA256, at),
                bytes=fields.get(each, "bytes", int, at),
                columns=columns,
            )
            for each, at in shards
        ),
        sizes=tuple((fields.get(each, "documents", int, at), fields.get(each, "tokens", int, at)) for each, at in shards),
        where=where,
        about={} if fields.absent(content, "about") else mf.about(content["about"], f"{where}: about"),
    )


def with_sidecars(manifest: Manifest, added: Mapping[str, Added]) -> Manifest:
    """Return the manifest with the added columns among the sidecars of its shards, and with what is said of them.

    `build` and `order` stay what they are.

    Raises:
        FormatError: columns of another build's tokens, of other lengths, or of a name that the build has already.
    """
    for name, found in sorted(added.items()):
        _check(manifest, found)
        merged = (
            replace(shard, sidecars={**shard.sidecars, name: side})
            for shard, side in zip(manifest.shards, found.files, strict=True)
        )
        about = {**manifest.about, name: found.about} if found.about else manifest.about
        manifest = replace(manifest, shards=tuple(merged), about=about)
    return manifest


def _check(manifest: Manifest, found: Added) -> None:
    if found.order != manifest.order:
        raise FormatError(
            f"{found.where}: was made for tokens of order {found.order}, those of this build are {manifest.order}; "
            "move it, and the files that it names, to the build that they belong to"
        )
    expected = tuple((shard.documents, shard.tokens) for shard in manifest.shards)
    if len(found.sizes) != len(expected):
        raise FormatError(f"{found.where}: has {len(found.sizes)} files, the build has {len(expected)} shards; make it again")
    for shard, side, size, wanted in zip(manifest.shards, found.files, found.sizes, expected, strict=True):
        if size != wanted:
            raise FormatError(
                f"{found.where}: {side.file} has {size[1]} values in {size[0]} documents, {shard.file} has {wanted[1]} tokens in "
                f"{wanted[0]}; make it again"
            )
        if found.name in shard.sidecars:
            raise FormatError(
                f"{found.where}: the build has columns of {found.name!r} already, in {shard.sidecars[found.name].file}; "
                "remove this file, or make it again under another name"
            )
