"""The documents of a finished build of tokens: for adding columns to it, such as the losses of another model.

Reads the token shards of a build, and the per-token columns beside them that are asked for. Yields a row for each row of a shard,
in order: `file` is the shard's name and `offset` the row's number; `id`, `url`, `date`, `language` and whatever else the shard
keeps of a document are as there, and so is `repeats`, where the build says how often an epoch reads each; `text` is empty, since
shards keep none. Columns that are only read carry the metadata
`stored`, so that the `sidecars` sink does not write them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.errors import InputError, StoreError
from gristmill.format import schema as fmt
from gristmill.format.build import open_build
from gristmill.format.manifest import Manifest
from gristmill.format.sidecar import find_sidecars, json_name, with_sidecars
from gristmill.storage.location import Location
from gristmill.storage.matching import literal
from gristmill.storage.store import InputFile
from pipeline.schema import DOCUMENT, STORED
from pipeline.stage import Source
from stages.source.shard_files import ShardFile, shard_file

_OWN = {fmt.DOC_ID: "id", "url": "url", "date": "date"}
_REPLACED = ("file", "offset", "length")


@dataclass(frozen=True, kw_only=True)
class TokensSource(Source):
    """Yield the documents of a build of tokens with their `input_ids`.

    `paths`: the build: its manifest.json, its folder, or an output (its newest build of tokens). `columns`: per-token columns to
    read too, such as `ref_loss.base`.
    """

    paths: str
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.paths, str):
            raise ValueError(f"paths must name one build of tokens, found a list of {len(self.paths)}")

    def patterns(self) -> tuple[str, ...]:
        """Return the shards of the build. Raises FormatError when there is none."""
        manifest, location = _open(self.paths)
        return tuple(literal(f"{location.uri}/{shard.file}") for shard in manifest.shards)

    def of_build(self) -> str:
        """Return the id of the build."""
        return _open(self.paths)[0].build

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return what the shards have beyond every document's columns, and the per-token columns asked for."""
        return {field.name: field.type for field in self.schema() if field.name not in DOCUMENT.names}

    def schema(self) -> pa.Schema:
        """Return the schema of the tables. Raises InputError when a column that is asked for is not there."""
        manifest, location = _open(self.paths)
        if not manifest.shards:
            return DOCUMENT
        shard = manifest.shards[0]
        there = {name for side in shard.sidecars.values() for name in side.columns}
        for name in self.columns:
            if name not in there:
                known = ", ".join(sorted(there)) or "none"
                raise InputError(f"{location.uri} has no per-token column {name!r}; it has {known}")
        uri = f"{location.uri}/{shard.file}"
        return next(self._tables(InputFile(shard.file, uri, shard.bytes, ""), manifest)).schema

    def files(self) -> tuple[str, ...]:
        """Return what says which build this is, and which files its columns are in."""
        manifest, location = _open(self.paths)
        names = [name for name, columns in _sides(manifest, 0).items() if set(columns) & set(self.columns)]
        there = set(location.names(f"{fmt.SCORES}-"))
        return tuple(f"{location.uri}/{name}" for name in ("manifest.json", *sorted({json_name(n) for n in names} & there)))

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(shard, batch_rows) → tables."""
        builds: dict[str, Manifest] = {}  # read once a process

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            folder = _folder(file)
            if folder not in builds:
                builds[folder] = _open(folder)[0]
            for table in self._tables(file, builds[folder]):
                for start in range(0, table.num_rows, batch_rows):
                    yield table.slice(start, batch_rows)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Return row `offset` of the shard. Raises InputError when there is none."""
        first = 0
        for table in self._tables(file, _open(_folder(file))[0]):
            if offset < first + table.num_rows:
                return table.slice(offset - first, 1)
            first += table.num_rows
        raise InputError(f"{file.uri}: has {first} documents, there is no document {offset}; was the build replaced?")

    def _tables(self, file: InputFile, manifest: Manifest) -> Iterator[pa.Table]:
        """Yield an empty table, and when the files are found to be what the manifest says, a table a record batch."""
        folder, _, name = file.uri.rpartition("/")
        with ExitStack() as stack:
            opened = [stack.enter_context(each) for each in self._files(folder, name, manifest)]
            shard, *sides = opened
            counts = next((side for side in sides if fmt.REPEATS in side.schema.names), None)
            more = [(side, column) for side in sides for column in self.columns if column in side.schema.names]
            none = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in shard.schema], schema=shard.schema)
            fields = [side.schema.field(column) for side, column in more]
            first = _table(none, name, 0, [(field, pa.array([], field.type)) for field in fields], file.uri)
            yield first if counts is None else _repeated(first, counts.schema.empty_table().to_batches(), counts.uri)
            for each in opened:
                each.verify()
                if each.batches != shard.batches:
                    raise InputError(f"{each.uri}: {each.batches} record batches, {file.uri} has {shard.batches}; make it again")
            row = 0
            for number in range(shard.batches):
                batch = shard.batch(number)
                beside = {side.uri: side.batch(number) for side in sides}
                columns = [(field, beside[side.uri].column(column)) for field, (side, column) in zip(fields, more, strict=True)]
                table = _table(batch, name, row, columns, file.uri)
                yield table if counts is None else _repeated(table, [beside[counts.uri]], counts.uri)
                row += batch.num_rows

    def _files(self, folder: str, name: str, manifest: Manifest) -> Iterator[AbstractContextManager[ShardFile]]:
        """Yield what opens the shard, then its counts, then its sidecars that have columns asked for."""
        shard = next(shard for shard in manifest.shards if shard.file == name)
        yield shard_file(f"{folder}/{name}", shard.sha256, fmt.TOKENS, ())
        if shard.repeats is not None:
            yield shard_file(f"{folder}/{shard.repeats.file}", shard.repeats.sha256, fmt.REPEATS, ())
        for side in shard.sidecars.values():
            columns = [column for column in self.columns if column in side.columns]
            if columns:
                yield shard_file(f"{folder}/{side.file}", side.sha256, fmt.SCORES, columns)


def _folder(file: InputFile) -> str:
    return file.uri.rpartition("/")[0]


def _open(path: str) -> tuple[Manifest, Location]:
    """Return the build with all that was added to it."""
    try:
        manifest, location = open_build(path, fmt.TOKENS)
        return with_sidecars(manifest, find_sidecars(location)), location
    except PermissionError as error:
        raise InputError(str(error)) from error
    except ConnectionError as error:
        raise StoreError(str(error)) from error


def _sides(manifest: Manifest, shard: int) -> dict[str, Mapping[str, str]]:
    """Return the per-token columns by the name of the model or policy: name → type."""
    return {name: side.columns for name, side in manifest.shards[shard].sidecars.items()} if manifest.shards else {}


def _fields(schema: pa.Schema) -> list[pa.Field]:
    """Return the fields of the shard's own columns as the pipeline has them, those that it makes anew left out."""
    facts = schema.metadata
    keys = {"vocab_size": fmt.VOCABULARY_KEY, "tokenizer_sha256": fmt.TOKENIZER_KEY, "bos_id": fmt.BOS_KEY, "eos_id": fmt.EOS_KEY}
    ids = {key: facts[name.encode()] for key, name in keys.items() if name.encode() in facts}
    fields = []
    for field in schema:
        if field.name == fmt.INPUT_IDS:
            fields.append(pa.field(field.name, pa.list_(field.type.value_type), metadata=ids))
        elif field.name not in _REPLACED:
            fields.append(field.with_name(_OWN.get(field.name, field.name)))
    return fields


def _table(batch: pa.RecordBatch, file: str, row: int, more: list[tuple[pa.Field, pa.Array]], where: str) -> pa.Table:
    """Return a record batch of the shard, whose first row has the number `row`, as documents."""
    rows = batch.num_rows
    given: dict[str, tuple[pa.Field, pa.Array]] = {}
    for field in _fields(batch.schema):
        name = next((there for there, here in _OWN.items() if here == field.name), field.name)
        column = batch.column(name)
        given[field.name] = (field, _plain(column, field.type) if field.name == fmt.INPUT_IDS else column)
    made = {
        "file": pa.array([file], pa.string()).take(pa.array([0] * rows, pa.int32())),
        "offset": pa.array(range(row, row + rows), pa.int64()),
        "length": pa.array([0] * rows, pa.int64()),
        "media": pa.array(["text/plain"], pa.string()).take(pa.array([0] * rows, pa.int32())),
        "text": pa.array([""] * rows, pa.string()),
    }
    fields = [(field, made.get(field.name, given.get(field.name, (None, None))[1])) for field in DOCUMENT]
    fields += [pair for name, pair in given.items() if name not in DOCUMENT.names]
    for field, column in more:
        if not column.offsets.equals(batch.column(fmt.INPUT_IDS).offsets):
            raise InputError(f"{where}: its column {field.name!r} is for documents of other lengths; make the column again")
        plain = pa.field(field.name, pa.list_(field.type.value_type), metadata={**(field.metadata or {}), STORED: b"true"})
        fields.append((plain, _plain(column, plain.type)))
    return pa.table([column for _, column in fields], schema=pa.schema([field for field, _ in fields]))


def _repeated(table: pa.Table, counts: Sequence[pa.RecordBatch], where: str) -> pa.Table:
    """Return the documents with how often an epoch reads each."""
    found = pa.Table.from_batches(counts, schema=fmt.repeats_schema())
    if found[fmt.REPEATS].null_count:
        raise InputError(f"{where}: has nulls, which no build has; copy it again")
    if found.num_rows != table.num_rows or not pc.list_value_length(table[fmt.INPUT_IDS]).equals(found[fmt.LENGTH]):
        raise InputError(f"{where}: is for documents of other lengths; copy the build again")
    return table.append_column(pa.field(fmt.REPEATS, pa.uint8()), found[fmt.REPEATS])


def _plain(column: pa.ListArray, kind: pa.DataType) -> pa.ListArray:
    return pa.ListArray.from_arrays(column.offsets, column.values, type=kind)
