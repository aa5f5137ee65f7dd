"""The documents that a segment loses: where each was, at which stage, and why, as they are committed beside the others.

Reads rows of documents; returns tables as `LOST`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.schema import DROP, PARENT

LOST = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("file", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field(PARENT, pa.string()),  # of a document that was made of another
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # of the drop, or the kind of error
        pa.field("detail", pa.string(), nullable=False),  # JSON of the row's other columns, or `kind: detail`
    ]
)


def details_of(rows: pa.Table) -> list[str]:
    """Return the small columns that stages added, as JSON, for each row."""
    known = {*LOST.names, "text", "media", "date", DROP}
    names = [f.name for f in rows.schema if f.name not in known and not pa.types.is_nested(f.type)]
    return (
        [json.dumps(row, ensure_ascii=False, default=str) for row in rows.select(names).to_pylist()]
        if names
        else ["{}"] * len(rows)
    )


def lost_rows(rows: pa.Table, stage: str, reasons: Sequence[Any], details: Sequence[str]) -> pa.Table:
    """Return rows as `LOST`: for a reason each, or a kind of error, with what is known of it."""
    own = {"stage": [stage] * rows.num_rows, "reason": reasons, "detail": details}
    if PARENT not in rows.column_names:
        own[PARENT] = [None] * rows.num_rows
    columns = [pa.array(own[f.name], pa.string()) if f.name in own else rows.column(f.name) for f in LOST]
    return pa.Table.from_arrays(columns, schema=LOST)


def lost_table(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables of lost rows as one."""
    return pa.concat_tables(tables) if tables else LOST.empty_table()
