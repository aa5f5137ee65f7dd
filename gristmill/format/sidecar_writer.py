"""Adds per-token columns to a finished build: from any model or policy, without touching a file that is there.

Reads: the build's manifest and its token shards. Writes: beside these, a file of columns a shard
(`scores-<name>-NNNNN-<hash>.arrow`), and last `scores-<name>.json`, which names them all and makes them known at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.errors import FormatError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.column import open_mapped
from gristmill.format.manifest import Shard, Sidecar
from gristmill.format.sidecar import Added, file_name, find_sidecars, json_name
from gristmill.json_values import Plain
from gristmill.storage.location import LocalLocation

Values = npt.NDArray[Any] | Sequence[npt.ArrayLike]


class SidecarWriter:
    """Adds the per-token columns of one model or policy to a build on a local disk.

    >>> with SidecarWriter("build/demo", "small-30m", {"ref_loss": "float16"}) as writer:  # doctest: +SKIP
    ...     for shard in range(len(writer.manifest.shards)):
    ...         ids, bounds = writer.read(shard)
    ...         writer.write(shard, {"ref_loss": losses(ids, bounds)})

    All columns appear at once when the block ends without an exception; until then, and after a kill, there is nothing to
    be seen. Several may write to one build at a time, under different names.

    Args:
        build: its manifest.json, its folder, or an output folder (the newest build of tokens).
        name: of the model or policy: small letters, digits, `-` and `_`.
        columns: name → type: `float16`, `float32` or `bool`.
        metadata: of a column, for people, such as `{"ref_loss": {"unit": "nats"}}`; part of the files' bytes.
        about: of a column, what a manifest is to say of it (`Manifest.about`): an object of plain data, such as
            `{"ref_loss": {"path": "models/small-30m", "window": 2048}}`.

    Raises:
        ValueError: a name, type or `about` that cannot be.
        FormatError: no build of tokens on a local disk; or it has other columns under this name.
    """

    def __init__(
        self,
        build: str | Path,
        name: str,
        columns: Mapping[str, str],
        *,
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        about: Mapping[str, Mapping[str, Plain]] | None = None,
    ) -> None:
        self.name = name
        self._schema = _schema(name, columns, metadata or {})
        self._about = _about(columns, about or {})
        self._columns = dict(columns)
        self.manifest, location = open_build(build, fmt.TOKENS)
        if not isinstance(location, LocalLocation):
            raise FormatError(f"{build}: columns are added on a local disk; copy the build there, and what is made back to it")
        self._folder = location.folder
        self._written: dict[int, Sidecar] = {}
        self._refuse(location)
        self._scratch = _scratch(self._folder, name)

    def _refuse(self, location: LocalLocation) -> None:
        """Raise FormatError when the work would be for nothing."""
        for shard in self.manifest.shards:
            if self.name in shard.sidecars:
                raise FormatError(f"{location.uri}: has columns of {self.name!r} already, in {shard.sidecars[self.name].file}")
        found = find_sidecars(location).get(self.name)
        if found is not None and (found.order, found.columns) != (self.manifest.order, self._columns):
            raise FormatError(
                f"{found.where}: is there already, with columns {found.columns} for tokens of order {found.order}; "
                "take another name, or remove it and the files that it names"
            )

    def __enter__(self) -> SidecarWriter:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Make the columns known; leave nothing behind when there was an exception."""
        try:
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def read(self, shard: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Return the tokens of a shard, uint16 or uint32 [tokens], and where its documents begin, int64 [documents + 1]."""
        batches = self._batches(self.manifest.shards[shard])
        columns = [batch.column(fmt.INPUT_IDS) for batch in batches]
        ids = [column.flatten().to_numpy() for column in columns]
        lengths = [column.value_lengths().to_numpy() for column in columns]
        bounds = np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)
        return np.concatenate([np.zeros(0, dtype=self.manifest.dtype), *ids]), bounds

    def write(self, shard: int, values: Mapping[str, Values]) -> None:
        """Write the columns of one shard; shards may come in any order.

        Args:
            shard: its number in the manifest.
            values: column → one array of the column's type with a value a token, or a sequence with one array (or list) a
                document. The value of token t belongs to t as the target; that of a document's first token is NaN (False).

        Raises:
            ValueError: missing or unknown columns, other lengths or another type, a value at a document's first token.
        """
        entry = self.manifest.shards[shard]
        if values.keys() != self._columns.keys():
            raise ValueError(f"{entry.file}: columns {sorted(values)} were given, expected {sorted(self._columns)}")
        batches = self._batches(entry)
        lengths = np.concatenate([batch.column(fmt.INPUT_IDS).value_lengths().to_numpy() for batch in batches])
        flat = {
            name: _flat(values[name], np.dtype(kind), lengths, f"{entry.file}: column {name!r}")
            for name, kind in self._columns.items()
        }
        temporary = self._scratch / str(shard)
        with temporary.open("wb") as out:
            with pa.ipc.new_file(out, self._schema) as writer:
                begin = 0
                for batch in batches:
                    writer.write_batch(columns_batch(self._schema, batch, flat, begin))
                    begin += len(batch.column(fmt.INPUT_IDS).flatten())
            out.flush()
            os.fsync(out.fileno())
        with temporary.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        self._written[shard] = Sidecar(file_name(self.name, shard, sha256), sha256, temporary.stat().st_size, self._columns)

    def _batches(self, shard: Shard) -> list[pa.RecordBatch]:
        path = self._folder / shard.file
        _, reader, _ = open_mapped(path, fmt.TOKENS)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        found = (sum(batch.num_rows for batch in batches), sum(len(batch.column(fmt.INPUT_IDS).flatten()) for batch in batches))
        if found != (shard.documents, shard.tokens):
            raise FormatError(
                f"{path}: has {found[1]} tokens in {found[0]} documents, the manifest says {shard.tokens} in {shard.documents}"
            )
        return batches

    def _publish(self) -> None:
        """Link the files to their names, then the one that makes them known; nothing is ever overwritten."""
        shards = self.manifest.shards
        missing = [shard.file for number, shard in enumerate(shards) if number not in self._written]
        if missing:
            raise ValueError(f"columns of {self.name!r}: nothing was written for {len(missing)} shards, such as {missing[0]}")
        files = tuple(self._written[number] for number in range(len(shards)))
        target = self._folder / json_name(self.name)
        sizes = tuple((shard.documents, shard.tokens) for shard in shards)
        content = Added(self.name, self.manifest.order, self._columns, files, sizes, str(target), self._about).to_json()
        with (self._scratch / target.name).open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        for number, side in enumerate(files):
            _link(self._scratch / str(number), self._folder / side.file)
        if not _link(self._scratch / target.name, target) and target.read_bytes() != content:
            raise FormatError(f"{target}: is there already and names other columns; take another name, or remove it first")


def write_sidecar(
    build: str | Path,
    name: str,
    columns: Mapping[str, str],
    score: Callable[[npt.NDArray[Any], npt.NDArray[np.int64]], Mapping[str, Values]],
    *,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    about: Mapping[str, Mapping[str, Plain]] | None = None,
) -> None:
    """Add the columns that `score(ids, bounds)` returns for each shard; see `SidecarWriter` for arguments and errors."""
    with SidecarWriter(build, name, columns, metadata=metadata, about=about) as writer:
        for shard in range(len(writer.manifest.shards)):
            writer.write(shard, score(*writer.read(shard)))


def _schema(name: str, columns: Mapping[str, str], metadata: Mapping[str, Mapping[str, str]]) -> pa.Schema:
    if not fmt.SCORES_NAME.fullmatch(name):
        raise ValueError(f"name {name!r} must match {fmt.SCORES_NAME.pattern}: it becomes part of file names")
    unknown = {column: kind for column, kind in columns.items() if kind not in fmt.COLUMN_TYPES}
    if unknown or not columns or fmt.DOC_ID in columns:
        raise ValueError(
            f"columns {dict(columns)}: give at least one, not called {fmt.DOC_ID}, of type {', '.join(fmt.COLUMN_TYPES)}"
        )
    if metadata.keys() - columns.keys():
        raise ValueError(f"metadata is given for {sorted(metadata.keys() - columns.keys())}, which are not among the columns")
    types = {column: pa.list_(fmt.COLUMN_TYPES[kind]) for column, kind in columns.items()}
    return fmt.score_schema(name, [pa.field(column, kind, metadata=metadata.get(column)) for column, kind in types.items()])


def _about(columns: Mapping[str, str], about: Mapping[str, Mapping[str, Plain]]) -> dict[str, Plain]:
    """Return a copy as JSON has it."""
    if about.keys() - columns.keys():
        raise ValueError(f"about is given for {sorted(about.keys() - columns.keys())}, which are not among the columns")
    for column, said in about.items():
        if not isinstance(said, Mapping):
            raise ValueError(f"about {column!r} is {type(said).__name__}; it must be a mapping of plain data")
    try:
        return dict(json.loads(json.dumps(about, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"about cannot be written as JSON: {error}; give text, finite numbers, lists and mappings") from error


def _flat(values: Values, kind: np.dtype[Any], lengths: npt.NDArray[np.int32], where: str) -> npt.NDArray[Any]:
    """Return one array with a value a token, checked."""
    if isinstance(values, np.ndarray):
        flat = values
        if flat.shape != (int(lengths.sum()),):
            raise ValueError(f"{where}: values have shape {flat.shape}, expected one for each of {int(lengths.sum())} tokens")
    else:
        rows = [row if isinstance(row, np.ndarray) else np.asarray(row, dtype=kind) for row in values]
        if len(rows) != len(lengths):
            raise ValueError(f"{where}: values of {len(rows)} documents were given, the shard has {len(lengths)}")
        for number, (row, length) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            if row.shape != (length,):
                raise ValueError(f"{where}, document {number}: values have shape {row.shape}, it has {length} tokens")
        flat = np.concatenate(rows) if rows else np.zeros(0, dtype=kind)
    if flat.dtype != kind:
        raise ValueError(f"{where}: values are {flat.dtype}, expected {kind}; convert them with .astype({str(kind)!r})")
    _check_firsts(flat, lengths, where)
    return np.ascontiguousarray(flat)


def _check_firsts(flat: npt.NDArray[Any], lengths: npt.NDArray[np.int32], where: str) -> None:
    """Raise ValueError when a document's first token has a value: most likely all are shifted by one."""
    rows = np.flatnonzero(lengths)
    firsts = flat[(np.cumsum(lengths, dtype=np.int64) - lengths)[rows]]
    wrong = np.flatnonzero(firsts if firsts.dtype == np.bool_ else ~np.isnan(firsts))
    if len(wrong):
        raise ValueError(
            f"{where}, document {rows[wrong[0]]}: its first token has {firsts[wrong[0]]}, expected "
            f"{'False' if firsts.dtype == np.bool_ else 'nan'}: a value belongs to the token that is predicted, not to the one "
            "before it"
        )


def columns_batch(schema: pa.Schema, tokens: pa.RecordBatch, flat: Mapping[str, npt.NDArray[Any]], begin: int) -> pa.RecordBatch:
    """Return the columns of the tokens' record batch, whose first token has the number `begin`, with the same offsets."""
    ids = tokens.column(fmt.INPUT_IDS)
    offsets = np.append(np.int32(0), np.cumsum(ids.value_lengths().to_numpy(), dtype=np.int32))
    arrays = [fmt.exact(tokens.column(fmt.DOC_ID), pa.string())]
    for field in list(schema)[1:]:
        values = flat[field.name][begin : begin + int(offsets[-1])]
        data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
        child = pa.Array.from_buffers(field.type.value_type, len(values), [None, pa.py_buffer(data)])
        arrays.append(pa.Array.from_buffers(field.type, len(ids), [None, pa.py_buffer(offsets)], children=[child]))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _scratch(folder: Path, name: str) -> Path:
    """Make a hidden folder beside the files, after removing those of writers on this machine that are no more."""
    host = socket.gethostname()
    for left in folder.glob(f".{fmt.SCORES}-*.{host}-*"):
        try:
            os.kill(int(left.name.rsplit("-", 2)[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue
    place = folder / f".{fmt.SCORES}-{name}.{host}-{os.getpid()}-{secrets.token_hex(4)}"
    place.mkdir()
    return place
