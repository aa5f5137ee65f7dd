"""Arrow schemas of documents, and the check made at every boundary.

A document is a row. From the source on it has the columns of `DOCUMENT`; stages add more. Two reserved columns carry
decisions out of a source, a map or a flat map and never travel further: `drop` (a snake_case reason) and `error` (why the row is
quarantined). The machine removes and counts those rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import without

DROP = "drop"
ERROR = "error"
PARENT = "parent"  # of a document that a FlatMap made: the id of the one it was made of; null in all others
PARENT_ROW = "parent_row"  # in what a FlatMap returns: the row of the parent in the table it was given
ITSELF = "itself"  # there too: whether a row is the parent and not made of it

NOTE = b"note"  # in the metadata of a source's table: one line on its file that a person should know, though it is read
STORED = b"stored"  # in the metadata of a per-token column that a finished build has already: it is read, not to be written again

DOCUMENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # 32 hex digits: document_id(file, offset)
        pa.field("url", pa.string()),
        pa.field("date", pa.timestamp("s", tz="UTC")),
        pa.field("file", pa.string(), nullable=False),  # name of the input file, relative to its pattern's fixed part
        pa.field("offset", pa.int64(), nullable=False),  # bytes on disk (WARC members), bytes unpacked (lines), or row number
        pa.field("length", pa.int64(), nullable=False),  # bytes of the raw record, as `offset` counts them; 0 where it has none
        pa.field("media", pa.string(), nullable=False),  # what `text` holds: text/html or text/plain
        pa.field("text", pa.string(), nullable=False),  # valid UTF-8
    ]
)


ADDRESS = ("id", "file", "offset", "length")  # what a document is known by, which no stage changes


def document_id(file: str, offset: int) -> str:
    """Return the 32 hex digits that name the document at `offset` of input `file`: blake2b-128 of the address."""
    return hashlib.blake2b(f"{file}\n{offset}".encode(), digest_size=16).hexdigest()


def made_id(parent: str, number: int) -> str:
    """Return the 32 hex digits that name document `number` (from 0) of those made of another: blake2b-128 of both.

    No other document has them: what `document_id` hashes ends in a line of digits alone.
    """
    return hashlib.blake2b(f"{parent}\n#{number}".encode(), digest_size=16).hexdigest()


def undecided(table: pa.Table) -> pa.Table:
    """Return the table without the reserved columns."""
    return without(table, (DROP, ERROR))


def undeclared(before: pa.Schema, after: pa.Schema, adds: Mapping[str, pa.DataType]) -> list[str]:
    """Return in words how the schema that a stage made of another breaks its contract, `adds()`; nothing where it does not.

    A stage keeps the columns that it is given, of their types, and adds those that it declares, of the types declared there;
    `drop` and `error` are no matter of schemas.
    """
    given = {field.name: field.type for field in before}
    found = {field.name: field.type for field in after if field.name not in (DROP, ERROR)}
    expected = {**given, **adds}
    names = [field.name for field in after]
    odd = [f"it has column {name!r} twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    odd += [f"it lost column {name!r}" for name in given if name not in found]
    odd += [f"it did not add column {name!r}, which it declares" for name in adds if name not in found and name not in given]
    odd += [f"it added column {name!r}, which it does not declare" for name in found if name not in expected]
    odd += [
        f"its column {name!r} is {kind}, expected {expected[name]}"
        for name, kind in found.items()
        if name in expected and kind != expected[name]
    ]
    return odd


def odd_documents(table: pa.Table, given: pa.Table | None = None) -> str | None:
    """Return in words which document of a table is not as documents are; None when all are.

    Args:
        table: documents, with decisions in `drop` and `error` perhaps: those that are decided on may lack all but their address.
        given: the table of as many documents that a stage made it of, whose `ADDRESS` it keeps.
    """
    names = [field.name for field in DOCUMENT if not field.nullable and table.column_names.count(field.name) == 1]
    changed = _changed(table, given, [name for name in ADDRESS if name in names]) if given is not None else None
    if changed is not None:
        return changed
    for name in names:
        if table.column(name).null_count:
            empty = pc.is_null(table.column(name))
            for fate in (DROP, ERROR):
                if fate in table.column_names and name not in ADDRESS:
                    empty = pc.and_(empty, pc.is_null(table.column(fate)))
            row = pc.index(empty, pa.scalar(True)).as_py()
            if row >= 0:
                return f"{name!r} of {_row_in_words(table, row)} is null"
    return None


def _changed(table: pa.Table, given: pa.Table, names: Sequence[str]) -> str | None:
    """Return in words the first value in which two tables differ in columns that are of one type in both."""
    for name in names:
        new, old = table.column(name), given.column(name)
        if new.type == old.type and not new.equals(old):
            row = next(row for row, pair in enumerate(zip(new.to_pylist(), old.to_pylist(), strict=True)) if pair[0] != pair[1])
            return f"it changes {name!r} of {_row_in_words(given, row)} from {old[row].as_py()!r} to {new[row].as_py()!r}"
    return None


def _row_in_words(table: pa.Table, row: int) -> str:
    """Return which document a row is, in words."""
    file, offset = (table.column(name)[row].as_py() for name in ("file", "offset"))
    return f"row {row} (document {table.column('id')[row].as_py()}, {file!r} at {offset})"


def check(table: pa.Table, required: pa.Schema | Mapping[str, pa.DataType], where: str) -> None:
    """Assert that `table` has every required column with its type, and no null where the schema forbids it.

    Raises:
        AssertionError: naming `where`, the column, what was found and what was expected. It is a bug of a stage, never
            of the data.
    """
    fields = required if isinstance(required, pa.Schema) else pa.schema(list(required.items()))
    for field in fields:
        index = table.schema.get_field_index(field.name)
        assert index >= 0, f"{where}: no column {field.name!r}; found {table.column_names}"
        found = table.schema.field(index).type
        assert found == field.type, f"{where}: column {field.name!r} is {found}, expected {field.type}"
        nulls = table.column(index).null_count
        assert field.nullable or nulls == 0, f"{where}: column {field.name!r} has {nulls} nulls"
