"""Builds for the tests of the reader: documents from plain lists, through the real sinks, laid out as the machine does."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.format import schema as fmt
from gristmill.format.manifest import Manifest, parse
from pipeline.lineage import Lineage
from pipeline.schema import DOCUMENT, document_id
from pipeline.stage import Assembly, Attachment, Sink, Stored
from stages.sink.shards import Shards

EOS = 1
TOKENIZER = "ab" * 32


def documents(
    ids: Sequence[Sequence[int]],
    *,
    file: str = "crawl-0.warc.gz",
    scores: Mapping[str, Sequence[Sequence[float]]] | None = None,
    schemes: Mapping[str, str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    kind: pa.DataType | None = None,
    vocab_size: int = 1000,
    tokenizer: str = TOKENIZER,
    languages: Sequence[str] = ("en",),
    repeats: Sequence[int] | None = None,
) -> pa.Table:
    """Return documents with these ids, as the stages hand them to the sink; row n has the text of n letters.

    `types`: of the values of the columns in `scores`, float16 where it does not say. `tokenizer`: sha256 of its file.
    `languages`: of the rows, in turn. `repeats`: how often an epoch reads each.
    """
    rows = len(ids)
    metadata = {"vocab_size": str(vocab_size), "tokenizer_sha256": tokenizer, "eos_id": str(EOS)}
    columns: dict[str, tuple[pa.Field, pa.Array]] = {
        "id": (DOCUMENT.field("id"), pa.array([document_id(file, row) for row in range(rows)], pa.string())),
        "url": (
            DOCUMENT.field("url"),
            pa.array([None if row % 3 == 2 else f"http://host/{row}" for row in range(rows)], pa.string()),
        ),
        "date": (
            DOCUMENT.field("date"),
            pa.array([None if row % 4 == 1 else 10**9 + row for row in range(rows)], DOCUMENT.field("date").type),
        ),
        "file": (DOCUMENT.field("file"), pa.array([file] * rows, pa.string())),
        "offset": (DOCUMENT.field("offset"), pa.array(range(rows), pa.int64())),
        "length": (DOCUMENT.field("length"), pa.array([7] * rows, pa.int64())),
        "media": (DOCUMENT.field("media"), pa.array(["text/html"] * rows, pa.string())),
        "text": (DOCUMENT.field("text"), pa.array(["é" * (row % 50) for row in range(rows)], pa.string())),
        "language": (
            pa.field("language", pa.string()),
            pa.array([languages[row % len(languages)] for row in range(rows)], pa.string()),
        ),
    }
    list_type = pa.list_(kind or pa.uint16())
    columns["input_ids"] = (pa.field("input_ids", list_type, metadata=metadata), pa.array(list(ids), list_type))
    for name, values in (scores or {}).items():
        scheme = (schemes or {}).get(name)
        value = (types or {}).get(name, pa.float16())
        field = pa.field(name, pa.list_(value), metadata=None if scheme is None else {"scheme": scheme})
        rows_of = [np.asarray(row, dtype=value.to_pandas_dtype()) for row in values]
        columns[name] = (field, pa.array(rows_of, field.type))
    if repeats is not None:
        columns["repeats"] = (pa.field("repeats", pa.uint8()), pa.array(repeats, pa.uint8()))
    return pa.table([array for _, array in columns.values()], schema=pa.schema([field for field, _ in columns.values()]))


def publish(
    shards: Sequence[Iterable[pa.Table]],
    output: Path,
    *,
    sink: Sink | None = None,
    batch_tokens: int | None = None,
    run: str = "0001",
    attachments: Sequence[Attachment] = (),
) -> Assembly:
    """Run the sink on each shard's tables and lay the build out in `output`: data/, builds/<id>/, runs/<run>.json."""
    sink = sink or Shards()
    write = sink.open()
    stored = []
    (output / "data").mkdir(parents=True, exist_ok=True)
    for number, tables in enumerate(shards):
        folder = output / "work" / run / str(number)
        folder.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            if batch_tokens is not None:
                patch.setattr(fmt, "BATCH_TOKENS", batch_tokens)
            parts = write(iter(tables), folder)
        for part in parts:
            sha256 = hashlib.sha256(part.path.read_bytes()).hexdigest()
            size = part.path.stat().st_size
            os.replace(part.path, output / "data" / sha256)
            stats = json.loads(json.dumps(part.stats))
            stored.append(
                Stored(number, f"shard-{number}", part.kind, part.number, f"data/{sha256}", sha256, size, part.rows, stats)
            )
    assembly = sink.assemble(iter(stored[::-1]), Lineage(name="test", inputs=(), stages=()), attachments)
    _link(assembly, output, run)
    return assembly


def _link(assembly: Assembly, output: Path, run: str) -> None:
    folder = output / "builds" / assembly.id
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in assembly.links.items():
        (folder / name).unlink(missing_ok=True)
        os.link(output / data, folder / name)
    for name, content in assembly.files.items():
        (folder / name).write_bytes(content)
    record: dict[str, Any] = {"build": assembly.id, "manifest": f"builds/{assembly.id}/{assembly.manifest}"}
    (output / "runs").mkdir(exist_ok=True)
    (output / "runs" / f"{run}.json").write_text(json.dumps(record))


def folder_of(assembly: Assembly, output: Path) -> Path:
    """Return the folder of a published build."""
    return output / "builds" / assembly.id


def manifest_of(assembly: Assembly) -> Manifest:
    """Return the manifest of an assembled build."""
    return parse(json.loads(assembly.files[assembly.manifest]), assembly.manifest)
