"""`sidecars`: adds per-token columns to a build of tokens that is finished: no file of it is touched.

Reads: the documents of the `tokens` source with the columns that stages added; the build's shards, for where each document lies.
Writes: a file of columns a shard and a model or policy, and last the `scores-<name>.json` of each, which makes its columns known.

A document that did not come this far (quarantined or dropped on the way) has NaN, or False, for all of its tokens.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import flat_lists, whole
from gristmill.errors import InputError
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.manifest import Manifest, Sidecar
from gristmill.format.sidecar import Added, file_name, find_sidecars, json_name
from gristmill.format.sidecar_writer import columns_batch
from gristmill.json_values import Plain
from gristmill.storage.location import Location
from gristmill.storage.store import open_read
from pipeline.lineage import Lineage
from pipeline.schema import STORED
from pipeline.stage import Assembly, Attachment, Part, Sink, Stored
from stages.sink.column_notes import agreed, bare, notes_of

SCHEME = b"scheme"
Values = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Shard:
    """A shard of the build: its record batches without their values, its documents' ids, and where they begin.

    `bounds`: int64 [documents + 1].
    """

    file: str
    batches: tuple[pa.RecordBatch, ...]
    ids: pa.StringArray
    bounds: npt.NDArray[np.int64]

    @classmethod
    def read(cls, location: Location, file: str) -> _Shard:
        with open_read(f"{location.uri}/{file}") as stream:
            reader = pa.ipc.open_file(stream)
            batches = tuple(reader.get_batch(n).select([fmt.DOC_ID, fmt.INPUT_IDS]) for n in range(reader.num_record_batches))
        lengths = [batch.column(fmt.INPUT_IDS).value_lengths().to_numpy() for batch in batches]
        ids = pa.concat_arrays([batch.column(fmt.DOC_ID) for batch in batches])
        return cls(file, batches, ids, np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64))

    def empty(self, schemas: Mapping[str, pa.Schema]) -> Values:
        """Return the columns of all files, with no value anywhere."""
        tokens = int(self.bounds[-1])
        types = {field.name: field.type.value_type for schema in schemas.values() for field in list(schema)[1:]}
        missing = {name: False if pa.types.is_boolean(kind) else np.nan for name, kind in types.items()}
        return {name: np.full(tokens, missing[name], kind.to_pandas_dtype()) for name, kind in types.items()}

    def fill(self, values: Values, table: pa.Table) -> None:
        """Put the values of documents to their places; `offset` is a document's number in the shard."""
        rows = table.column("offset").to_numpy()
        if len(self.ids) <= rows.max() or not self.ids.take(pa.array(rows)).equals(whole(table.column("id"))):
            raise InputError(
                f"sidecars: {self.file} has other documents than the source has read; was another build finished in this output? "
                "Name the folder of one in both, builds/<id>"
            )
        lengths = self.bounds[rows + 1] - self.bounds[rows]
        before = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(self.bounds[rows] - before, lengths)
        for name, column in values.items():
            given, bounds = flat_lists(table.column(name))
            assert np.array_equal(np.diff(bounds), lengths), f"sidecars: {name!r} has other lengths than the ids"
            column[places] = given

    def write(self, out: io.IOBase | Path, schema: pa.Schema, values: Values) -> None:
        """Write a file of columns with the shard's record batches."""
        begin = 0
        with pa.ipc.new_file(str(out) if isinstance(out, Path) else out, schema) as writer:
            for batch in self.batches:
                writer.write_batch(columns_batch(schema, batch, values, begin))
                begin += len(batch.column(fmt.INPUT_IDS).flatten())


def _schemas(schema: pa.Schema) -> dict[str, pa.Schema]:
    """Return the schema of each file to write, by model or policy: all per-token columns that the build has not yet."""
    found: dict[str, list[pa.Field]] = {}
    for field in schema:
        metadata = field.metadata or {}
        if fmt.column_type(field.type) and STORED not in metadata:
            assert SCHEME in metadata, f"sidecars: column {field.name!r} does not say which model or policy it is of"
            found.setdefault(metadata[SCHEME].decode(), []).append(field)
    return {name: fmt.score_schema(name, [bare(f) for f in found[name]]) for name in sorted(found)}


def _write(tables: Iterator[pa.Table], folder: Path, manifest: Manifest, location: Location) -> list[Part]:
    """Write the columns of one shard; nothing when none of its documents came this far."""
    first = next((table for table in tables if table.num_rows), None)
    if first is None:
        return []
    schemas = _schemas(first.schema)
    if not schemas:
        raise InputError(
            "sidecars: no stage added a per-token column, so there is nothing to write; put `score_lm` or `select` before it"
        )
    for name in schemas:
        _refuse_own(manifest.shards[:1], location, name)  # here too, as the end may be days away
    shard = _Shard.read(location, first.column("file")[0].as_py())
    values = shard.empty(schemas)
    for stream in ((first,), tables):
        for table in stream:
            if table.num_rows:
                shard.fill(values, table)
    parts = []
    for name, schema in schemas.items():
        kind = f"{fmt.SCORES}-{name}"
        path = folder / f"{kind}.arrow"
        shard.write(path, schema, values)
        about = notes_of(first.schema.field(column) for column in schema.names[1:])
        stats = {"name": name, "build": manifest.build, **_description(schema), "about": about}
        parts.append(Part(kind, 0, path, len(shard.bounds) - 1, stats))
    return parts


def _description(schema: pa.Schema) -> dict[str, Plain]:
    fields = list(schema)[1:]
    metadata = {f.name: {k.decode(): v.decode() for k, v in (f.metadata or {}).items()} for f in fields}
    return {"columns": {f.name: fmt.column_type(f.type) for f in fields}, "metadata": metadata}


def _schema(name: str, columns: Mapping[str, str], metadata: Mapping[str, Mapping[str, str]]) -> pa.Schema:
    """Return the schema that `_description` describes."""
    fields = [pa.field(c, pa.list_(fmt.COLUMN_TYPES[kind]), metadata=metadata[c] or None) for c, kind in columns.items()]
    return fmt.score_schema(name, fields)


@dataclass(frozen=True, kw_only=True)
class Sidecars(Sink):
    """Add the per-token columns that stages made of the documents of the `tokens` source to the build they are from.

    `build`: that build: its manifest.json, its folder, or its output. The config's `output` must be the build's own.
    """

    version: ClassVar[int] = 2

    build: str

    def needs(self) -> tuple[str, ...]:
        """See `Stage.needs`."""
        return (fmt.INPUT_IDS,)

    def home(self) -> str | None:
        """Return the output that the build lies in. Raises InputError for a build that was copied out of one."""
        folder = open_build(self.build, fmt.TOKENS)[1].uri.rstrip("/")
        output, inside, _ = folder.rpartition("/builds/")
        if not inside:
            raise InputError(
                f"sidecars: {folder!r} is not in the output that it was built in (<output>/builds/<id>); add columns there and "
                "copy them, or write them with gristmill.format.sidecar_writer"
            )
        return output

    def of_build(self) -> str:
        """Return the id of the build."""
        return open_build(self.build, fmt.TOKENS)[0].build

    def libraries(self) -> tuple[str, ...]:
        """Return what writes the files: their bytes are the build's."""
        return ("pyarrow",)

    def files(self) -> tuple[str, ...]:
        """Return the build's manifest."""
        return (f"{open_build(self.build, fmt.TOKENS)[1].uri}/{mf.NAME}",)

    def open(self) -> Callable[[Iterator[pa.Table], Path], list[Part]]:
        """Return f(tables of one shard, empty folder) → parts; memory: the ids and the columns of one shard."""
        manifest, location = open_build(self.build, fmt.TOKENS)
        return lambda tables, folder: _write(iter(tables), folder, manifest, location)

    def assemble(self, parts: Iterable[Stored], lineage: Lineage, attachments: Sequence[Attachment] = ()) -> Assembly:
        """Name the files and describe them.

        Raises:
            InputError: no document got this far; or the build has other columns of this name.
        """
        manifest, location = open_build(self.build, fmt.TOKENS)
        by_name: dict[str, dict[str, Stored]] = {}
        for part in parts:
            if part.stats["build"] != manifest.build:
                raise InputError(
                    f"sidecars: the columns were made for build {part.stats['build']}, {self.build!r} is {manifest.build} now; "
                    "name the folder of the build, builds/<id>, and run it again"
                )
            named = by_name.setdefault(part.stats["name"], {})
            assert part.input not in named, f"sidecars: two parts {part.stats['name']} of shard {part.input}"
            named[part.input] = part
        if not by_name:
            raise InputError(
                f"sidecars: none of the {manifest.documents} documents of {location.uri} has got this far; see the report"
            )
        links: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for name, stored in sorted(by_name.items()):
            sides = []
            for number, shard in enumerate(manifest.shards):
                side, content = _file(location, shard.file, number, name, stored)
                sides.append(side)
                if content is None:
                    links[side.file] = stored[shard.file].data
                else:
                    files[side.file] = content
            sizes = tuple((shard.documents, shard.tokens) for shard in manifest.shards)
            columns = sides[0].columns
            about = agreed(name, (part.stats["about"] for part in stored.values()))
            added = Added(name, manifest.order, columns, tuple(sides), sizes, f"{location.uri}/{json_name(name)}", about)
            _refuse(manifest, location, added)
            files[json_name(name)] = added.to_json()
        return Assembly(manifest.build, links, files, mf.NAME)


def _file(location: Location, file: str, number: int, name: str, stored: Mapping[str, Stored]) -> tuple[Sidecar, bytes | None]:
    """Return the entry of a shard's file of columns; and its content where no unit wrote it, as all its documents were lost."""
    part = stored.get(file)
    stats = next(iter(stored.values())).stats
    content = None
    if part is None:
        shard, schema = _Shard.read(location, file), _schema(name, stats["columns"], stats["metadata"])
        out = io.BytesIO()
        shard.write(out, schema, shard.empty({name: schema}))
        content = out.getvalue()
        sha256, size = hashlib.sha256(content).hexdigest(), len(content)
    else:
        sha256, size = part.sha256, part.bytes
    return Sidecar(file_name(name, number, sha256), sha256, size, stats["columns"]), content


def _refuse(manifest: Manifest, location: Location, added: Added) -> None:
    """Raise InputError when the build has other columns of this name."""
    _refuse_own(manifest.shards, location, added.name)
    found = find_sidecars(location).get(added.name)
    if found is not None and found.to_json() != added.to_json():
        raise InputError(
            f"sidecars: {found.where} is there already and names other columns; give the model or policy another name, or remove "
            "that file and those that it names"
        )


def _refuse_own(shards: Sequence[mf.Shard], location: Location, name: str) -> None:
    """Raise InputError when one of these shards was made with columns of this name."""
    for shard in shards:
        if name in shard.sidecars:
            raise InputError(
                f"sidecars: {location.uri} has columns of {name!r} already, in {shard.sidecars[name].file}; give another name to "
                "the model or policy"
            )
