"""The tables that a source yields: rows are added one by one and leave in batches bounded in rows and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from pipeline.schema import DOCUMENT, DROP, ERROR, document_id

BATCH_BYTES = 32 << 20
SCHEMA = pa.schema([*DOCUMENT, pa.field(DROP, pa.string()), pa.field(ERROR, pa.string())])


@dataclass(slots=True)
class Row:
    """One document, or what stands in its place: `drop` or `error` says why there is no text."""

    offset: int
    length: int
    url: str | None = None
    date: datetime | None = None
    media: str = "text/plain"
    text: str = ""
    drop: str | None = None
    error: str | None = None


def tables(rows: Iterable[Row], file: str, batch_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of input `file` as tables of `SCHEMA`: at most `batch_rows` rows and about 32 MiB of text each."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if len(batch) == batch_rows or size >= BATCH_BYTES:
            yield table(batch, file)
            batch, size = [], 0
    if batch:
        yield table(batch, file)


def table(rows: list[Row], file: str) -> pa.Table:
    """Return the rows as one table of `SCHEMA`."""
    columns = [
        [document_id(file, row.offset) for row in rows],
        [row.url for row in rows],
        [row.date for row in rows],
        [file] * len(rows),
        [row.offset for row in rows],
        [row.length for row in rows],
        [row.media for row in rows],
        [row.text for row in rows],
        [row.drop for row in rows],
        [row.error for row in rows],
    ]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def parse_date(value: str | None) -> datetime | None:
    """Return the time that an ISO 8601 string names (UTC where it names no zone), None when it is none."""
    try:
        time = datetime.fromisoformat(value) if value else None
        return time and (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC))
    except (ValueError, OverflowError):
        return None
