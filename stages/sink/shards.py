"""`shards`: token shards for training, with per-token scores in sidecars; the format is `gristmill/format/schema.py`.

Reads: documents with `input_ids`, whose field carries the tokenizer (`vocab_size`, `tokenizer_sha256`, and where there
are such `bos_id`, `eos_id`), and any per-token columns (lists of float16, float32 or bool), whose fields may carry their
`scheme` (the name of the sidecar) and `about` (what the manifest is to say of the column: a JSON object, equal in all shards);
`repeats`, how often an epoch reads a document, where they have it.
Writes: `tokens-NNNNN.arrow`, `scores-<scheme>-NNNNN.arrow`, `repeats-NNNNN.arrow`, and copies of these for transport if wanted;
`assemble` numbers the files of a build, puts the tokenizer's file beside them and makes the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole
from gristmill.errors import InputError
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from gristmill.format.repeats import passes_of
from gristmill.format.schema import Tokenizer
from gristmill.json_values import Plain
from pipeline.lineage import Lineage
from pipeline.schema import PARENT
from pipeline.stage import Assembly, Attachment, Part, Sink, Stored
from stages.sink.column_notes import agreed, bare, notes_of
from stages.sink.cut import cut

SCHEME = "rho1"  # of score columns whose field does not say
_COUNTS = "\0repeats"  # of rows that wait for their record batch, beside a column `repeats` that `columns` may keep


@dataclass(frozen=True)
class _Layout:
    """The files of one shard: the schema of the tokens, and of each scheme's scores; scheme → column → what is said of it.

    `repeats`: whether documents say how often an epoch reads them.
    """

    tokens: pa.Schema
    scores: Mapping[str, pa.Schema]
    tokenizer: Tokenizer
    about: Mapping[str, Mapping[str, Plain]]
    repeats: bool

    def schemas(self) -> dict[str, pa.Schema]:
        """Return kind → schema, tokens first."""
        counts = {fmt.REPEATS: fmt.repeats_schema()} if self.repeats else {}
        scores = {f"{fmt.SCORES}-{scheme}": self.scores[scheme] for scheme in sorted(self.scores)}
        return {fmt.TOKENS: self.tokens} | counts | scores


def _layout(schema: pa.Schema, columns: tuple[str, ...]) -> _Layout:
    """Read what to write from the schema of the incoming documents."""
    ids = schema.field(fmt.INPUT_IDS)
    assert pa.types.is_list(ids.type) and ids.type.value_type in fmt.ID_TYPES.values(), f"shards: input_ids is {ids.type}"
    metadata = {key.decode(): value.decode() for key, value in (ids.metadata or {}).items()}
    missing = {"vocab_size", "tokenizer_sha256"} - metadata.keys()
    assert not missing, f"shards: the field input_ids lacks metadata {sorted(missing)}"
    bos, eos = (int(metadata[key]) if key in metadata else None for key in ("bos_id", "eos_id"))
    left_out = tuple(json.loads(metadata.get("left_out", "[]")))
    tokenizer = Tokenizer(metadata["tokenizer_sha256"], int(metadata["vocab_size"]), bos, eos, left_out=left_out)
    # What every shard has anyway, and what is named twice, is written once.
    always = fmt.token_schema(ids.type.value_type, tokenizer).names
    extra = [schema.field(n) for n in dict.fromkeys(("language", PARENT, *columns)) if n in schema.names and n not in always]
    plain = [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in extra]
    schemes: dict[str, list[pa.Field]] = {}
    for field in schema:
        if fmt.column_type(field.type):
            scheme = (field.metadata or {}).get(b"scheme", SCHEME.encode()).decode()
            assert fmt.SCORES_NAME.fullmatch(scheme), f"shards: column {field.name!r} is of scheme {scheme!r}"
            assert scheme != fmt.REPEATS, f"shards: column {field.name!r} is of scheme {scheme!r}: the counts have this name"
            schemes.setdefault(scheme, []).append(field)
    scores = {scheme: fmt.score_schema(scheme, [bare(field) for field in fields]) for scheme, fields in schemes.items()}
    about = {scheme: notes_of(fields) for scheme, fields in schemes.items()}
    about[fmt.TOKENS] = notes_of(extra)
    about[fmt.REPEATS] = notes_of([schema.field(fmt.REPEATS)] if fmt.REPEATS in schema.names else [])
    return _Layout(fmt.token_schema(ids.type.value_type, tokenizer, plain), scores, tokenizer, about, fmt.REPEATS in schema.names)


def _narrow(table: pa.Table, layout: _Layout) -> pa.Table:
    """Keep only what is written, so that rows waiting for their record batch do not hold the texts."""
    sizes = pc.binary_length(table.column("text"))
    table = table.append_column(fmt.DOC_ID, table.column("id")).append_column("text_bytes", sizes)
    names = [name for schema in (layout.tokens, *layout.scores.values()) for name in schema.names]
    narrow = table.select(list(dict.fromkeys(names)))
    return narrow.append_column(_COUNTS, _counts(table)) if layout.repeats else narrow


def _counts(table: pa.Table) -> pa.ChunkedArray:
    """Return how often an epoch reads each document, as uint8. Raises InputError for what is no such number."""
    column = table.column(fmt.REPEATS)
    if not pa.types.is_integer(column.type):
        raise InputError(
            f"shards: the column {fmt.REPEATS!r} is {column.type}; it must be whole numbers, 1 to {fmt.MOST_REPEATS}"
        )
    fits = pc.and_(pc.greater_equal(column, 1), pc.less_equal(column, fmt.MOST_REPEATS)).fill_null(False)
    if not pc.all(fits, min_count=0).as_py():
        row = pc.index(fits, False).as_py()
        found = "null" if column[row].as_py() is None else column[row].as_py()
        raise InputError(
            f"shards: {fmt.REPEATS!r} of document {table.column('id')[row]} is {found}; allowed are whole numbers from 1 to "
            f"{fmt.MOST_REPEATS}: drop what no epoch is to read before `shards`, as `upsample` does"
        )
    return column.cast(pa.uint8())


def _lengths(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(pc.list_value_length(table.column(fmt.INPUT_IDS)).to_numpy(), dtype=np.int64)


def _batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """Return the columns of `schema` as one record batch with canonical buffers."""
    if schema.metadata[fmt.KIND_KEY.encode()] == fmt.REPEATS.encode():
        lengths = pc.list_value_length(table.column(fmt.INPUT_IDS)).cast(pa.int32())
        table = pa.table([table.column(_COUNTS), lengths], schema=schema)
    arrays = []
    for field in schema:
        arrays.append(fmt.exact(whole(table.column(field.name)), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _check(batches: Mapping[str, pa.RecordBatch], tokenizer: Tokenizer) -> None:
    """Assert that ids are of the vocabulary and that scores have the shape of the tokens: mistakes of earlier stages."""
    tokens = batches[fmt.TOKENS].column(fmt.INPUT_IDS)
    highest = pc.max(tokens.values).as_py()
    assert highest is None or highest < tokenizer.vocab_size, f"shards: id {highest} in a vocabulary of {tokenizer.vocab_size}"
    for kind, batch in batches.items():
        for name in batch.schema.names:
            column = batch.column(name)
            if fmt.column_type(column.type):
                assert column.null_count == 0 and column.values.null_count == 0, f"shards: nulls in {kind}: {name}"
                assert column.offsets.equals(tokens.offsets), f"shards: {kind}: {name} has other lengths than input_ids"


class _Files:
    """The open files of one part: tokens and sidecars, written record batch by record batch."""

    def __init__(self, layout: _Layout, folder: Path, number: int) -> None:
        self._layout, self._folder, self._number = layout, folder, number
        self._paths = {kind: folder / fmt.file_name(kind, number) for kind in layout.schemas()}
        self._writers = {kind: pa.ipc.new_file(str(self._paths[kind]), s) for kind, s in layout.schemas().items()}
        self._rows = self._tokens = self._text_bytes = 0
        self._languages: dict[str, list[int]] = {}  # documents, tokens, text bytes
        self._passes = np.zeros((0, 2), dtype=np.int64)

    def write(self, table: pa.Table) -> None:
        """Append one record batch to each file."""
        batches = {kind: _batch(table, schema) for kind, schema in self._layout.schemas().items()}
        _check(batches, self._layout.tokenizer)
        for kind, batch in batches.items():
            self._writers[kind].write_batch(batch)
        self._rows += table.num_rows
        self._tokens += len(batches[fmt.TOKENS].column(fmt.INPUT_IDS).values)
        self._text_bytes += pc.sum(table.column("text_bytes")).as_py()
        if "language" in table.column_names:
            self._count(table)
        if self._layout.repeats:
            self._add_passes(batches[fmt.REPEATS])

    def _add_passes(self, counts: pa.RecordBatch) -> None:
        found = np.array(passes_of(*(column.to_numpy() for column in counts.columns)), dtype=np.int64).reshape(-1, 2)
        longer, shorter = (found, self._passes) if len(found) > len(self._passes) else (self._passes, found)
        longer[: len(shorter)] += shorter
        self._passes = longer

    def _count(self, table: pa.Table) -> None:
        lengths = pa.array(_lengths(table))
        sizes = pa.table({"language": table.column("language"), "tokens": lengths, "bytes": table.column("text_bytes")})
        found = sizes.group_by("language").aggregate([([], "count_all"), ("tokens", "sum"), ("bytes", "sum")])
        for row in found.to_pylist():
            total = self._languages.setdefault(row["language"] or "unknown", [0, 0, 0])
            for i, key in enumerate(("count_all", "tokens_sum", "bytes_sum")):
                total[i] += row[key]

    def close(self) -> None:
        """Finish the files, once: closing a writer again writes its footer again."""
        while self._writers:
            self._writers.popitem()[1].close()

    def parts(self) -> list[Part]:
        """Describe the finished files."""
        stats: dict[str, dict[str, Plain]] = {
            fmt.TOKENS: {
                "tokens": self._tokens,
                "text_bytes": self._text_bytes,
                "languages": dict(sorted(self._languages.items())),
                "dtype": str(self._layout.tokens.field(fmt.INPUT_IDS).type.value_type),
                "tokenizer": {k: v for k, v in vars(self._layout.tokenizer).items() if k != "file" and v != ()},
                **({"about": notes} if (notes := self._layout.about[fmt.TOKENS]) else {}),
            }
        }
        if self._layout.repeats:
            stats[fmt.REPEATS] = {"passes": self._passes.tolist(), "about": self._layout.about[fmt.REPEATS]}
        for scheme, schema in self._layout.scores.items():
            stats[f"{fmt.SCORES}-{scheme}"] = {
                "scheme": scheme,
                "columns": {f.name: fmt.column_type(f.type) for f in list(schema)[1:]},
                "about": self._layout.about[scheme],
            }
        return [Part(kind, self._number, path, self._rows, stats[kind]) for kind, path in self._paths.items()]


def _copy(part: Part) -> Part:
    """Write the compressed copy of a finished file beside it; its bytes depend on those of the file (and the zstd library)."""
    path = part.path.with_name(part.path.name + fmt.ZST)
    with part.path.open("rb") as source, pa.CompressedOutputStream(str(path), "zstd") as out:
        while block := source.read(1 << 20):
            out.write(block)
    return Part(part.kind + fmt.ZST, part.number, path, part.rows)


def _write(tables: Iterable[pa.Table], folder: Path, limit: int, columns: tuple[str, ...]) -> list[Part]:
    """Write the documents of one shard; nothing at all when there are none."""
    source = iter(tables)
    first = next((table for table in source if table.num_rows), None)
    if first is None:
        return []
    layout = _layout(first.schema, columns)
    narrow = (_narrow(table, layout) for stream in ((first,), source) for table in stream)
    parts: list[Part] = []
    files: _Files | None = None
    current = -1
    try:
        for number, table in cut(narrow, _lengths, file=limit, batch=fmt.BATCH_TOKENS, rows=fmt.BATCH_ROWS):
            if number != current:
                parts += _finish(files)
                files, current = _Files(layout, folder, number), number
            assert files is not None
            files.write(table)
        parts += _finish(files)
    finally:
        if files is not None:
            files.close()
    return parts


def _finish(files: _Files | None) -> list[Part]:
    if files is None:
        return []
    files.close()
    return files.parts()


def _common(tokens: list[Stored], key: str) -> Any:  # noqa: ANN401  whatever the stats hold
    values = [part.stats[key] for part in tokens]
    assert all(value == values[0] for value in values), f"shards: parts of one build disagree on {key}: {values}"
    return values[0] if values else None


@dataclass(frozen=True, kw_only=True)
class Shards(Sink):
    """Write token shards: uncompressed Arrow IPC files that the reader maps into memory.

    Args:
        tokens_per_shard: a new file is begun when the running count of tokens would pass this; a longer document has a
            file of its own.
        columns: further columns to keep in the shards, beside those that every shard has
            (`gristmill.format.schema.token_schema`); `language` and `parent` are kept when they are there.
        zst_copies: write `NAME.zst` beside each file too, the whole file compressed with zstd: for transport only, the reader
            maps the files themselves.
    """

    version: ClassVar[int] = 3
    makes: ClassVar[tuple[str, ...]] = (fmt.DOC_ID, "text_bytes")

    tokens_per_shard: int = 50_000_000
    columns: tuple[str, ...] = ()
    zst_copies: bool = False

    def __post_init__(self) -> None:
        if self.tokens_per_shard < 1:
            raise ValueError(f"tokens_per_shard is {self.tokens_per_shard}; it must be at least 1")

    def needs(self) -> tuple[str, ...]:
        """See `Stage.needs`."""
        return (fmt.INPUT_IDS, *self.columns)

    def libraries(self) -> tuple[str, ...]:
        """Return what writes the files: their bytes are the build's."""
        return ("pyarrow",)

    def open(self) -> Callable[[Iterator[pa.Table], Path], list[Part]]:
        """Return f(tables of one shard, empty folder) → parts; memory is bounded by one record batch (2^24 tokens)."""

        def write(tables: Iterator[pa.Table], folder: Path) -> list[Part]:
            parts = _write(tables, folder, self.tokens_per_shard, self.columns)
            return parts + [_copy(part) for part in parts] if self.zst_copies else parts

        return write

    def assemble(self, parts: Iterable[Stored], lineage: Lineage, attachments: Sequence[Attachment] = ()) -> Assembly:
        """Number the files by (shard, part) and make the manifest; the id depends on the files' contents alone.

        Raises:
            InputError: none of the attached files is the tokenizer that made the tokens.
        """
        groups: dict[tuple[int, int], dict[str, Stored]] = {}
        for part in sorted(parts, key=lambda part: (part.shard, part.number, part.kind)):
            group = groups.setdefault((part.shard, part.number), {})
            assert part.kind not in group, f"shards: two parts {part.kind} with number {part.number} of shard {part.shard}"
            group[part.kind] = part
        named = [(fmt.file_name(kind, n), part) for n, group in enumerate(groups.values()) for kind, part in group.items()]
        shards = tuple(_shard(group, number) for number, group in enumerate(groups.values()))
        tokens = [group[fmt.TOKENS] for group in groups.values()]
        made_by = _common(tokens, "tokenizer")
        attached = None if made_by is None else _attached(attachments, made_by["sha256"])
        made_by = made_by and {**made_by, "left_out": tuple(made_by.get("left_out", ()))}
        manifest = mf.Manifest(
            kind=fmt.TOKENS,
            build=mf.build_id(fmt.TOKENS, shards),
            name=lineage.name,
            tokenizer=None if made_by is None else Tokenizer(**made_by, file=None if attached is None else attached.name),
            dtype=_common(tokens, "dtype"),
            shards=shards,
            lineage=lineage.plain(),
            about=_about(groups.values()),
        )
        files = {} if attached is None else {attached.name: attached.content}
        files[mf.NAME] = manifest.to_json()
        return Assembly(manifest.build, {name: part.data for name, part in named}, files, mf.NAME)


def _about(groups: Iterable[Mapping[str, Stored]]) -> dict[str, Mapping[str, Plain]]:
    """Return what the manifest says of the columns: sidecar → column → object; all parts of a build say the same.

    Those of the shards themselves are under `tokens`.
    """
    found: dict[str, list[Mapping[str, Plain]]] = {}
    for part in (part for group in groups for part in group.values() if "about" in part.stats):
        found.setdefault(part.stats.get("scheme", part.kind), []).append(part.stats["about"])
    agreed_on = {scheme: agreed(scheme, parts) for scheme, parts in sorted(found.items())}
    return {scheme: about for scheme, about in agreed_on.items() if about}


def _attached(attachments: Sequence[Attachment], sha256: str) -> Attachment | None:
    """Return the tokenizer's file; None if nothing is attached at all, as by ids from elsewhere."""
    found = {hashlib.sha256(each.content).hexdigest(): each for each in attachments}
    if found and sha256 not in found:
        there = ", ".join(f"{each.name} with {digest}" for digest, each in found.items())
        raise InputError(
            f"shards: the tokens were made by a tokenizer with sha256 {sha256}, found {there}; its file was changed "
            "while the build ran, put it back or run the build again"
        )
    return found.get(sha256)


def _shard(group: Mapping[str, Stored], number: int) -> mf.Shard:
    """Describe one file of tokens, its sidecars and the copies of these; `group`: kind → part."""
    copies = {kind.removesuffix(fmt.ZST): part.bytes for kind, part in group.items() if kind.endswith(fmt.ZST)}
    sidecars = {
        part.stats["scheme"]: mf.Sidecar(
            fmt.file_name(kind, number), part.sha256, part.bytes, part.stats["columns"], copies.get(kind)
        )
        for kind, part in group.items()
        if "scheme" in part.stats
    }
    part, counts = group[fmt.TOKENS], group.get(fmt.REPEATS)
    repeats = (
        None
        if counts is None
        else mf.Repeats(
            fmt.file_name(fmt.REPEATS, number),
            counts.sha256,
            counts.bytes,
            _pairs(counts.stats["passes"]),
            copies.get(fmt.REPEATS),
        )
    )
    return mf.Shard(
        file=fmt.file_name(part.kind, number),
        documents=part.rows,
        tokens=part.stats["tokens"],
        text_bytes=part.stats["text_bytes"],
        bytes=part.bytes,
        sha256=part.sha256,
        input=part.input,
        sidecars=sidecars,
        zst=copies.get(fmt.TOKENS),
        repeats=repeats,
    )


def _pairs(passes: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((documents, tokens) for documents, tokens in passes)
