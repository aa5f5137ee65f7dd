"""What `buckets` sends through the exchange: different scores with what lies on them, then edges by group.

Reads columns of scores and groups, gives Arrow tables. A row is a score of a group, with its documents and their bytes; sums are
of whole numbers, so neither the split into tables nor the order of shards shows. In the metadata of all tables is what the makers
of the scores note of them (`MODELS`): a JSON object, column → object or null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import whole
from gristmill.errors import InputError
from gristmill.json_values import Plain
from gristmill.selection.quantiles import LARGEST, Ints, Ranks, Singles, ranks_of, scores_of

ROWS = pa.schema(
    [
        ("key", pa.uint64()),  # the score's rank, spread over 64 bits
        ("score", pa.uint8()),  # the number of its column
        ("group", pa.string()),
        ("documents", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
MODELS = b"models"
ALL = ""  # the group that has all documents; that of others is a JSON list
MIX = 0x9E3779B97F4A7C15  # an odd constant that spreads the bits of a product; it can be undone
MIX_BACK = pow(MIX, -1, 2**64)


@dataclass(frozen=True)
class Groups:
    """Which group each row is of: `names` [groups], JSON lists of the values of the columns, and `codes` [rows] in them."""

    names: Sequence[str]
    codes: Ints


@dataclass(frozen=True)
class Counted:
    """The different scores of a column in one group, ascending, with the documents that have each, and their bytes of text."""

    scores: Singles
    documents: Ints
    bytes: Ints


def groups_of(docs: pa.Table, by: Sequence[str]) -> Groups:
    """Return the groups of documents by these columns; without any all are in `ALL`. Null is a value."""
    names, codes = [ALL], np.zeros(docs.num_rows, np.int64)
    for column in by:
        coded = whole(docs[column].cast(pa.string())).dictionary_encode(null_encoding="encode")
        values = coded.dictionary.to_pylist() or [None]
        used, codes = np.unique(codes * len(values) + coded.indices.to_numpy(), return_inverse=True)
        parts = [(names[code // len(values)], values[code % len(values)]) for code in used.tolist()]
        names = [json.dumps([*json.loads(name or "[]"), value], ensure_ascii=False) for name, value in parts]
    return Groups(names, codes)


def values_of(docs: pa.Table, column: str) -> Singles:
    """Return the scores of documents: float32 [rows], NaN where there is none, cut at ±`LARGEST`."""
    scores = docs[column]
    kind = scores.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(f"buckets: scores: column {column!r} is {kind}; it must be of numbers")
    with np.errstate(over="ignore"):
        found = scores.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy().astype(np.float32)
    return np.asarray(np.clip(found, -LARGEST, LARGEST), np.float32)


def notes_of(schema: pa.Schema, scores: Sequence[str]) -> dict[str, Plain]:
    """Return what the makers of columns note of them: column → object, or null."""
    found = {name: (schema.field(name).metadata or {}).get(b"about") for name in scores}
    return {name: note and json.loads(note) for name, note in found.items()}


def rows_of(docs: pa.Table, scores: Sequence[str], by: Sequence[str], mantissa_bits: int) -> pa.Table:
    """Return a row for each score, group and value of a table of documents."""
    groups, sizes = groups_of(docs, by), sizes_of(docs)
    schema = ROWS.with_metadata({MODELS: json.dumps(notes_of(docs.schema, scores), sort_keys=True)})
    names = pa.array(groups.names, pa.string())
    tables = [schema.empty_table()]
    for number, column in enumerate(scores):
        values = values_of(docs, column)
        there = ~np.isnan(values)
        both = (groups.codes[there].astype(np.uint64) << np.uint64(32)) | ranks_of(values[there], mantissa_bits)
        found, places, documents = np.unique(both, return_inverse=True, return_counts=True)
        totals = np.zeros(len(found), np.int64)
        np.add.at(totals, places, sizes[there])
        keys = (found & np.uint64(0xFFFFFFFF)) * np.uint64(MIX)
        named = names.take(pa.array((found >> np.uint64(32)).astype(np.int64)))
        columns = [keys, np.full(len(found), number, np.uint8), named, documents.astype(np.int64), totals]
        tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(tables).combine_chunks()


def add_up(rows: pa.Table) -> pa.Table:
    """Return one row a score, group and value."""
    added = rows.group_by(["key", "score", "group"], use_threads=False).aggregate([("documents", "sum"), ("bytes", "sum")])
    return added.rename_columns(ROWS.names).cast(rows.select(ROWS.names).schema).combine_chunks()


def counted(tables: Sequence[pa.Table], number: int) -> dict[str, Counted]:
    """Return what was counted of the column of this number: group → its scores, and all together under `ALL`."""
    rows = pa.concat_tables([table.filter(pc.equal(table["score"], number)) for table in tables]).combine_chunks()
    ranks = (rows["key"].to_numpy() * np.uint64(MIX_BACK)).astype(np.uint32)
    documents, sizes = rows["documents"].to_numpy(), rows["bytes"].to_numpy()
    coded = whole(rows["group"]).dictionary_encode()
    codes = coded.indices.to_numpy()
    found = {ALL: _added(ranks, documents, sizes)}
    order = np.argsort(codes, kind="stable")
    names = coded.dictionary.to_pylist()
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        mine = order[starts[code] : starts[code + 1]]
        found[name] = _added(ranks[mine], documents[mine], sizes[mine])
    return found


def sizes_of(docs: pa.Table) -> Ints:
    """Return the UTF-8 bytes of each text: int64 [rows]."""
    return np.asarray(pc.binary_length(docs["text"]).to_numpy(), np.int64)


def _added(ranks: Ranks, documents: Ints, sizes: Ints) -> Counted:
    different, places = np.unique(ranks, return_inverse=True)
    totals = [np.zeros(len(different), np.int64) for _ in range(2)]
    for total, each in zip(totals, (documents, sizes), strict=True):
        np.add.at(total, places, each)
    return Counted(scores_of(different), *totals)
