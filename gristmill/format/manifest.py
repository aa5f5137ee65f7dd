"""The manifest of a build: which files it has, their hashes, the tokenizer, and where it all came from.

Reads: the JSON of a `manifest.json`; `place.py` finds it. Writes: `Manifest.to_json` gives the bytes; a sink hands them to the
machine. The build's id is a hash over its files, so it says nothing of names, machines or times; `lineage` is carried along
and does not influence it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from gristmill.errors import FormatError
from gristmill.format import fields
from gristmill.format import schema as fmt
from gristmill.format.schema import Tokenizer
from gristmill.json_values import Plain, shown
from gristmill.storage.file import File

NAME = "manifest.json"
FORMAT = "gristmill"


@dataclass(frozen=True)
class Sidecar:
    """A file of per-token columns beside one token shard; `columns`: name → type (a key of `format.COLUMN_TYPES`)."""

    file: str
    sha256: str
    bytes: int
    columns: Mapping[str, str]
    zst: int | None = None


@dataclass(frozen=True)
class Repeats:
    """A file of counts beside one token shard: how often an epoch reads each of its documents.

    `passes`: (documents, tokens) of those that are read at least once, at least twice, …, up to the highest count.
    """

    file: str
    sha256: str
    bytes: int
    passes: tuple[tuple[int, int], ...]
    zst: int | None = None


@dataclass(frozen=True)
class Shard:
    """One file of tokens (or of texts, where `tokens` is 0), in the order of the stream; `input` is the shard it came from.

    `repeats`: None where an epoch reads each document once.
    """

    file: str
    documents: int
    tokens: int
    text_bytes: int
    bytes: int
    sha256: str
    input: str
    sidecars: Mapping[str, Sidecar] = field(default_factory=dict)
    zst: int | None = None
    repeats: Repeats | None = None

    @property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """See `Repeats.passes`; one pass over all where there are no counts."""
        return ((self.documents, self.tokens),) if self.repeats is None else self.repeats.passes


@dataclass(frozen=True)
class Manifest:
    """A build. `kind` is `tokens` or `documents`; `tokenizer` and `dtype` are None for texts and for builds without a token.

    `about`: sidecar → column → what its maker says of it (a model's file, a policy's threshold), as plain data; without
    influence on the id.
    """

    kind: str
    build: str
    name: str
    tokenizer: Tokenizer | None
    dtype: str | None
    shards: tuple[Shard, ...]
    lineage: Mapping[str, Plain]
    about: Mapping[str, Mapping[str, Plain]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say which build it is, without its shards."""
        counts = f"{len(self.shards):,} shards, {self.documents:,} documents, {self.tokens:,} tokens"
        counts += f" ({self.epoch_tokens:,} an epoch, with repeats)" if len(self.passes) > 1 else ""
        return f"Manifest({self.name!r}, build {self.build} of {self.kind}: {counts})"

    @property
    def order(self) -> str:
        """Fingerprint of the documents in their order, 32 hex digits: the id that a build without sidecars and copies has."""
        return _digest(self.kind, self.shards, everything=False)

    @property
    def documents(self) -> int:
        """Documents in all shards."""
        return sum(shard.documents for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Tokens in all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the texts behind all shards."""
        return sum(shard.text_bytes for shard in self.shards)

    @property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """(documents, tokens) of each pass of an epoch: of those that are read at least once, at least twice, …"""
        most = max((len(shard.passes) for shard in self.shards), default=0)
        every = [[shard.passes[k] for shard in self.shards if k < len(shard.passes)] for k in range(most)]
        return tuple((sum(documents for documents, _ in each), sum(tokens for _, tokens in each)) for each in every)

    @property
    def epoch_tokens(self) -> int:
        """Tokens that an epoch reads: those of each document as often as it is repeated."""
        return sum(tokens for _, tokens in self.passes)

    def to_json(self) -> bytes:
        """Return the bytes of manifest.json; equal manifests give equal bytes."""
        tokenizer = None if self.tokenizer is None else {k: v for k, v in vars(self.tokenizer).items() if v != ()}
        content = {
            "format": FORMAT,
            "version": fmt.VERSION,
            "kind": self.kind,
            "build": self.build,
            "order": self.order,
            "name": self.name,
            "tokenizer": tokenizer,
            "dtype": self.dtype,
            "totals": self._totals(),
            "shards": [_shard_entry(shard) for shard in self.shards],
            "lineage": self.lineage,
            "about": self.about,
        }
        return (json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def _totals(self) -> dict[str, int]:
        return {"documents": self.documents, "tokens": self.tokens, "text_bytes": self.text_bytes}


def build_id(kind: str, shards: Iterable[Shard]) -> str:
    """Return the id of a build, 32 hex digits: sha256 over the format's version and each file's kind and sha256.

    In manifest order, and within a shard the main file (of `kind`), its counts, then its sidecars sorted by scheme; the size of
    a copy for transport follows its file. So builds of one id have the same files.
    """
    return _digest(kind, shards, everything=True)


def _digest(kind: str, shards: Iterable[Shard], *, everything: bool) -> str:
    digest = hashlib.sha256(f"{FORMAT} {fmt.VERSION}\n".encode())
    for shard in shards:
        named: list[tuple[str, Shard | Repeats | Sidecar]] = [(kind, shard)]
        if shard.repeats is not None:
            named.append((fmt.REPEATS, shard.repeats))
        if everything:
            named += [(f"{fmt.SCORES}-{scheme}", side) for scheme, side in sorted(shard.sidecars.items())]
        for name, file in named:
            digest.update(f"{name} {file.sha256}\n".encode())
            if everything and file.zst is not None:
                digest.update(f"zst {file.zst}\n".encode())
    return digest.hexdigest()[:32]


def _shard_entry(shard: Shard) -> dict[str, Plain]:
    """Return what the manifest says of a shard and the files beside it."""
    repeats = {} if shard.repeats is None else {"repeats": _entry(shard.repeats)}
    return {**_entry(shard), **repeats, "sidecars": {name: _entry(side) for name, side in shard.sidecars.items()}}


def _entry(file: Shard | Repeats | Sidecar) -> dict[str, Plain]:
    """Return what the manifest says of a file; `zst` and `repeats` only where there are such files."""
    return {key: value for key, value in vars(file).items() if key not in ("zst", "repeats") or value is not None}


# ---- reading ----


def parse(content: object, where: str) -> Manifest:
    """Check the decoded JSON of a manifest and return it as dataclasses; `where` begins the messages of errors."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{where}: not a manifest of a build (no 'format': '{FORMAT}')")
    if content.get("version") != fmt.VERSION:
        raise FormatError(f"{where}: format version is {content.get('version')!r}; this gristmill reads {fmt.VERSION}")
    fields.required(content, "order", where)
    tokenizer = content.get("tokenizer")
    lineage = fields.get(content, "lineage", dict, where)
    shards = fields.get(content, "shards", list, where)
    manifest = Manifest(
        kind=fields.get(content, "kind", str, where),
        build=fields.get(content, "build", str, where),
        name=fields.get(content, "name", str, where),
        tokenizer=None if tokenizer is None else _tokenizer(tokenizer, f"{where}: tokenizer"),
        dtype=None if content.get("dtype") is None else fields.get(content, "dtype", str, where),
        shards=tuple(_shard(shard, f"{where}: shards[{number}]") for number, shard in enumerate(shards)),
        lineage=lineage,
        about=_about(content, where),
    )
    if len({shard.repeats is None for shard in manifest.shards}) > 1:
        raise FormatError(f"{where}: some shards have 'repeats' and others have none; the manifest was changed")
    totals = fields.get(content, "totals", dict, where)
    if totals != manifest._totals():
        raise FormatError(f"{where}: totals are {totals}, but the shards add up to {manifest._totals()}")
    expected = build_id(manifest.kind, manifest.shards)
    if manifest.build != expected:
        raise FormatError(
            f"{where}: the build is named {manifest.build}, but its files make {expected}; the manifest was changed"
        )
    if fields.get(content, "order", str, where) != manifest.order:
        raise FormatError(f"{where}: order is {content['order']}, but its files make {manifest.order}; the manifest was changed")
    return manifest


def files(manifest: Manifest) -> list[File]:
    """Return all files of a build in manifest order: a shard, its counts, then its sidecars by scheme."""
    found = []
    for shard in manifest.shards:
        found.append(File(shard.file, shard.bytes, shard.sha256, shard.zst))
        if shard.repeats is not None:
            found.append(File(shard.repeats.file, shard.repeats.bytes, shard.repeats.sha256, shard.repeats.zst))
        found.extend(File(side.file, side.bytes, side.sha256, side.zst) for _, side in sorted(shard.sidecars.items()))
    return found


def _tokenizer(content: object, where: str) -> Tokenizer:
    found = Tokenizer(
        sha256=fields.get(content, "sha256", str, where),
        vocab_size=fields.get(content, "vocab_size", int, where),
        bos_id=fields.number(content, "bos_id", where),
        eos_id=fields.number(content, "eos_id", where),
    )
    fields.required(content, "file", where)
    file = None if fields.absent(content, "file") else fields.matching(content, "file", fields.FILE, where)
    names = () if fields.absent(content, "left_out") else tuple(fields.get(content, "left_out", list, where))
    return replace(found, file=file, left_out=tuple(map(str, names)))


def _shard(content: object, where: str) -> Shard:
    sidecars = fields.get(content, "sidecars", dict, where)
    shard = Shard(
        file=fields.matching(content, "file", fields.FILE, where),
        documents=fields.get(content, "documents", int, where),
        tokens=fields.get(content, "tokens", int, where),
        text_bytes=fields.get(content, "text_bytes", int, where),
        bytes=fields.get(content, "bytes", int, where),
        sha256=fields.matching(content, "sha256", fields.SHA256, where),
        input=fields.get(content, "input", str, where),
        sidecars={scheme: _sidecar(side, f"{where}.sidecars[{scheme!r}]") for scheme, side in sidecars.items()},
        zst=fields.number(content, "zst", where),
    )
    return (
        shard
        if fields.absent(content, "repeats")
        else replace(shard, repeats=_repeats(fields.get(content, "repeats", dict, where), shard, where))
    )


def _repeats(content: object, shard: Shard, where: str) -> Repeats:
    """Check what is said of a shard's counts: the first pass is all of it, and each has no more than the one before."""
    where = f"{where}.repeats"
    passes = fields.get(content, "passes", list, where)
    pairs = [tuple(each) for each in passes if isinstance(each, list) and [type(n) for n in each] == [int, int]]
    falling = all(before[0] >= after[0] > 0 and before[1] >= after[1] >= 0 for before, after in pairwise(pairs))
    if (
        len(pairs) != len(passes)
        or pairs[:1] != [(shard.documents, shard.tokens)]
        or not falling
        or len(pairs) > fmt.MOST_REPEATS
    ):
        raise FormatError(
            f"{where}: 'passes' is {shown(passes)}; it must be 1 to {fmt.MOST_REPEATS} pairs of documents and tokens that never "
            f"rise, the first of them {[shard.documents, shard.tokens]}"
        )
    return Repeats(
        file=fields.matching(content, "file", fields.FILE, where),
        sha256=fields.matching(content, "sha256", fields.SHA256, where),
        bytes=fields.get(content, "bytes", int, where),
        passes=tuple((documents, tokens) for documents, tokens in pairs),
        zst=fields.number(content, "zst", where),
    )


def _sidecar(content: object, where: str) -> Sidecar:
    return Sidecar(
        file=fields.matching(content, "file", fields.FILE, where),
        sha256=fields.matching(content, "sha256", fields.SHA256, where),
        bytes=fields.get(content, "bytes", int, where),
        columns=columns(fields.get(content, "columns", dict, where), f"{where}: columns"),
        zst=fields.number(content, "zst", where),
    )


def _about(content: object, where: str) -> dict[str, dict[str, Plain]]:
    """Return what is said of columns; nothing in builds from before there was such a key."""
    if fields.absent(content, "about"):
        return {}
    found = fields.get(content, "about", dict, where)
    return {sidecar: about(each, f"{where}: about[{sidecar!r}]") for sidecar, each in found.items()}


def about(content: object, where: str) -> dict[str, Plain]:
    """Check what is said of the columns of a sidecar: column → object. Raises FormatError."""
    if not isinstance(content, dict) or not all(isinstance(each, dict) for each in content.values()):
        raise FormatError(f"{where}: must be an object with an object for each column, found {repr(content)[:60]}")
    return content


def columns(content: Mapping[str, object], where: str) -> dict[str, str]:
    """Check the types of per-token columns, name → type. Raises FormatError."""
    unknown = {name: kind for name, kind in content.items() if kind not in list(fmt.COLUMN_TYPES)}
    if unknown:
        raise FormatError(f"{where}: found {unknown}; the types of per-token columns are {', '.join(fmt.COLUMN_TYPES)}")
    return {name: str(kind) for name, kind in content.items()}
