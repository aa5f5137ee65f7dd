"""`documents`: the finished corpus as texts, for people and for tools that tokenize themselves.

Reads: documents with whatever columns the stages added. Writes: `documents-NNNNN.arrow`, Arrow IPC files with
zstd-compressed buffers that pyarrow, polars and `datasets` read; `assemble` numbers them and makes the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole
from gristmill.format import manifest as mf
from gristmill.format import schema as fmt
from pipeline.lineage import Lineage
from pipeline.stage import Assembly, Attachment, Part, Sink, Stored
from stages.sink.column_notes import agreed, bare, notes_of
from stages.sink.cut import cut

BATCH_BYTES = 1 << 25  # of text in a record batch: what one thread of a reader decompresses at a time
BATCH_ROWS = 1 << 16


def _text_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    return np.asarray(pc.binary_length(table.column("text")).to_numpy(), dtype=np.int64)


def _batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows as one record batch with canonical buffers."""
    arrays = [fmt.exact(whole(table.column(field.name)), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _write(tables: Iterable[pa.Table], folder: Path, limit: int) -> list[Part]:
    """Write the documents of one shard; nothing at all when there are none."""
    parts: list[Part] = []
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    writer: pa.ipc.RecordBatchFileWriter | None = None
    schema: pa.Schema | None = None
    try:
        for number, table in cut(tables, _text_bytes, file=limit, batch=BATCH_BYTES, rows=BATCH_ROWS):
            if number == len(parts):
                if writer is not None:
                    writer.close()
                schema, notes = fmt.document_schema(list(map(bare, table.schema))), notes_of(table.schema)
                path = folder / fmt.file_name(fmt.DOCUMENTS, number)
                writer = pa.ipc.new_file(str(path), schema, options=options)
                parts.append(Part(fmt.DOCUMENTS, number, path, 0, {"text_bytes": 0, **({"about": notes} if notes else {})}))
            assert writer is not None and schema is not None
            writer.write_batch(_batch(table, schema))
            done = parts[number]
            size = done.stats["text_bytes"] + int(_text_bytes(table).sum())
            parts[number] = Part(done.kind, number, done.path, done.rows + table.num_rows, {**done.stats, "text_bytes": size})
    finally:
        if writer is not None:
            writer.close()
    return parts


@dataclass(frozen=True, kw_only=True)
class Documents(Sink):
    """Write the documents as texts with all their columns.

    Args:
        bytes_per_shard: a new file is begun when the running size of the texts (UTF-8, before compression) would pass this;
            a longer document has a file of its own.
    """

    version: ClassVar[int] = 3

    bytes_per_shard: int = 268_435_456

    def __post_init__(self) -> None:
        if self.bytes_per_shard < 1:
            raise ValueError(f"bytes_per_shard is {self.bytes_per_shard}; it must be at least 1")

    def libraries(self) -> tuple[str, ...]:
        """Return what writes the files: their bytes are the build's."""
        return ("pyarrow",)

    def open(self) -> Callable[[Iterator[pa.Table], Path], list[Part]]:
        """Return f(tables of one shard, empty folder) → parts; memory is bounded by one record batch (32 MiB of text)."""
        return lambda tables, folder: _write(tables, folder, self.bytes_per_shard)

    def assemble(self, parts: Iterable[Stored], lineage: Lineage, attachments: Sequence[Attachment] = ()) -> Assembly:
        """Number the files by (shard, part) and make the manifest; the id depends on the files' contents alone."""
        stored = sorted(parts, key=lambda part: (part.shard, part.number))
        assert len({(part.shard, part.number) for part in stored}) == len(stored), "documents: two parts of one place"
        shards = tuple(_shard(part, number) for number, part in enumerate(stored))
        notes = [part.stats.get("about", {}) for part in stored] or [{}]
        manifest = mf.Manifest(
            kind=fmt.DOCUMENTS,
            build=mf.build_id(fmt.DOCUMENTS, shards),
            name=lineage.name,
            tokenizer=None,
            dtype=None,
            shards=shards,
            lineage=lineage.plain(),
            about={fmt.DOCUMENTS: about} if (about := agreed(fmt.DOCUMENTS, notes)) else {},
        )
        links = {shard.file: part.data for shard, part in zip(shards, stored, strict=True)}
        return Assembly(manifest.build, links, {mf.NAME: manifest.to_json()}, mf.NAME)


def _shard(part: Stored, number: int) -> mf.Shard:
    return mf.Shard(
        file=fmt.file_name(fmt.DOCUMENTS, number),
        documents=part.rows,
        tokens=0,
        text_bytes=part.stats["text_bytes"],
        bytes=part.bytes,
        sha256=part.sha256,
        input=part.input,
    )
