"""The tables that a source yields: rows are added one by one and leave in batches bounded in rows and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from pipeline.finding import Finding, Limit, at_most
from pipeline.schema import DOCUMENT, DROP, ERROR, NOTE, document_id

BATCH_BYTES = 32 << 20
DECISIONS = (pa.field(DROP, pa.string()), pa.field(ERROR, pa.string()))
SCHEMA = pa.schema([*DOCUMENT, *DECISIONS])
NOTHING: Mapping[str, pa.DataType] = MappingProxyType({})


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
    note: str | None = None  # a line on the whole file, see `schema.NOTE`
    more: tuple[Any, ...] = ()  # values of the columns that the source adds; () where all are null
    size: int | None = None  # bytes that a limit of the source is for, where they are not `length`
    unreadable: tuple[int, int] | None = None  # of bytes that were decoded: see `charset.decoding.Decoded`
    stated: str | int | None = None  # what it was dropped for as the server states it: the HTTP status, the type


def tables(rows: Iterable[Row], file: str, batch_rows: int, adds: Mapping[str, pa.DataType] = NOTHING) -> Iterator[pa.Table]:
    """Yield the rows of input `file` as tables: at most `batch_rows` rows and about 32 MiB of text each.

    Their columns are those of `SCHEMA`, with the columns that the source `adds` before the last two.
    """
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if len(batch) == batch_rows or size >= BATCH_BYTES:
            yield table(batch, file, adds)
            batch, size = [], 0
    if batch:
        yield table(batch, file, adds)


def table(rows: list[Row], file: str, adds: Mapping[str, pa.DataType] = NOTHING) -> pa.Table:
    """Return the rows as one table, with columns as `tables` has them."""
    columns = [
        [document_id(file, row.offset) for row in rows],
        [row.url for row in rows],
        [row.date for row in rows],
        [file] * len(rows),
        [row.offset for row in rows],
        [row.length for row in rows],
        [row.media for row in rows],
        [row.text for row in rows],
        *([row.more[place] if row.more else None for row in rows] for place in range(len(adds))),
        [row.drop for row in rows],
        [row.error for row in rows],
    ]
    schema = schema_with(adds)
    note = next((row.note for row in rows if row.note is not None), None)
    if note is not None:
        schema = schema.with_metadata({NOTE: note})
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)


def size_finding(row: Row, parameter: str, limit: int) -> Finding:
    """Return the bytes of a row beside the limit for them. What is `too_long` may be read no further than the limit."""
    size = row.length if row.size is None else row.size
    if row.drop != "too_long":
        return Finding("bytes", size, (at_most(size, parameter, limit),))
    return Finding("bytes", f"{size} or more", (Limit(parameter, limit, "above", broken=True),), decisive=True)


def unreadable_findings(row: Row, max_replaced: float) -> tuple[Finding, ...]:
    """Return how many characters of a row are U+FFFD or control characters, beside the limit; nothing where none were decoded."""
    if row.unreadable is None:
        return ()
    found, characters = row.unreadable
    decisive = row.drop == "undecodable"
    allowed = f"{max_replaced:g}" + (f" of {characters} characters" if characters else "")
    limit = Limit("max_replaced", allowed, "above" if decisive else "passes", broken=decisive)
    return (Finding("unreadable_chars", found, (limit,), decisive),)


def schema_with(adds: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return `SCHEMA` with more columns."""
    return pa.schema([*DOCUMENT, *(pa.field(name, kind) for name, kind in adds.items()), *DECISIONS]) if adds else SCHEMA


def parse_date(value: str | None) -> datetime | None:
    """Return the time that an ISO 8601 string or 12 to 18 digits name (UTC where they name no zone), None when it is none."""
    try:
        if value and value.isascii() and value.isdigit():
            value = f"{value[:8]}T{value[8:14]}" if 12 <= len(value) <= 18 else None
        time = datetime.fromisoformat(value) if value else None
        return time and (time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC))
    except (ValueError, OverflowError):
        return None
