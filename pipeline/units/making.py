"""Documents made of others: from the rows that a FlatMap returns to documents with ids, parents and addresses.

Reads the table that the stage was given and what it returned; returns documents, with decisions in `drop` / `error`. What it
says of parents is checked, since a wrong parent would lead from a token to the wrong record.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import without
from gristmill.errors import UnitFailed
from pipeline.schema import DROP, ERROR, ITSELF, PARENT, PARENT_ROW, made_id
from pipeline.stage import Making

OPTIONAL = ("media", ITSELF, DROP, ERROR)  # columns that what a FlatMap returns may have, beside those that it must have


def made_of(given: pa.Table, rows: pa.Table, name: str, stage: Making) -> pa.Table:
    """Return what a FlatMap made as documents: with the columns that it was given, its own, and `parent`.

    Args:
        given: the documents that it was given.
        rows: what it returned, see `Making`.
        name: of the stage, for errors.
        stage: the stage.

    Raises:
        UnitFailed: the rows are not as `Making` says; no document is at fault.
    """
    odd = _odd_columns(rows, stage) or _odd_parents(rows, given.num_rows) or _odd_texts(rows)
    if odd is not None:
        raise UnitFailed(f"stage {name!r} breaks its contract: {odd} (pipeline.stage.Making says what it returns)")
    parents = rows.column(PARENT_ROW).to_numpy()
    own = [column for column in rows.column_names if column not in (PARENT_ROW, ITSELF, DROP, ERROR)]
    carried = without(given, own).take(pa.array(parents))
    columns = {field.name: (field, carried.column(field.name)) for field in carried.schema}
    for column in own:
        kept = column in given.column_names and column not in stage.adds()
        field = (given if kept else rows).schema.field(column)
        columns[column] = (field, _filled(rows.column(column), given, parents, column) if kept else rows.column(column))
    ids, of = _ids(given, parents, _lost(rows), _itself(rows))
    columns["id"], columns[PARENT] = (given.schema.field("id"), ids), (pa.field(PARENT, pa.string()), of)
    columns |= {
        column: (pa.field(column, pa.string()), rows.column(column)) for column in (DROP, ERROR) if column in rows.column_names
    }
    order = dict.fromkeys((*given.column_names, *columns))
    return pa.Table.from_arrays([columns[name][1] for name in order], schema=pa.schema([columns[name][0] for name in order]))


def _odd_columns(rows: pa.Table, stage: Making) -> str | None:
    """Return in words which column is missing, should not be there, or is of another type."""
    needed = (PARENT_ROW, "text", *stage.adds())
    missing = [column for column in needed if column not in rows.column_names]
    if missing:
        return f"it does not give column {missing[0]!r}; it gives {', '.join(rows.column_names)}"
    twice = [column for column in dict.fromkeys(rows.column_names) if rows.column_names.count(column) > 1]
    if twice:
        return f"it has column {twice[0]!r} twice"
    beyond = [column for column in rows.column_names if column not in (*needed, *OPTIONAL)]
    if beyond:
        return f"it gives column {beyond[0]!r}; it may give {', '.join((*needed, *OPTIONAL))}"
    kinds = {"text": pa.string(), **dict.fromkeys(OPTIONAL, pa.string()), ITSELF: pa.bool_()}
    odd = [field for field in rows.schema if field.type != kinds.get(field.name, field.type)]
    return f"its column {odd[0].name!r} is {odd[0].type}, expected {kinds[odd[0].name]}" if odd else None


def _odd_parents(rows: pa.Table, given: int) -> str | None:
    """Return in words why the rows are not those of all parents, in their order."""
    column = rows.column(PARENT_ROW)
    if column.type != pa.int64() or column.null_count:
        return f"{PARENT_ROW} is {column.type} with {column.null_count} nulls, expected int64 without"
    parents = column.to_numpy()
    outside = parents[(parents < 0) | (parents >= given)]
    if len(outside):
        return f"{PARENT_ROW} is {outside[0]}, there are {given} documents, numbered from 0"
    if np.any(np.diff(parents) < 0):
        return f"{PARENT_ROW} goes back from {parents[np.argmax(np.diff(parents) < 0)]}; rows stand in the order of their parents"
    twice = np.flatnonzero(np.bincount(parents[_itself(rows)], minlength=given) > 1)
    if len(twice):
        return f"document {twice[0]} of {given} has several rows that are {ITSELF}"
    without = np.flatnonzero(np.bincount(parents, minlength=given) == 0)
    if len(without):
        return (
            f"document {without[0]} of {given} has no row; where nothing is made there is one with a reason in {DROP} or {ERROR}"
        )
    return None


def _odd_texts(rows: pa.Table) -> str | None:
    """Return in words where a document that is kept has no text or media."""
    kept = rows.filter(pa.array(~_lost(rows)))
    for column in ("text", "media"):
        if column in rows.column_names and kept.column(column).null_count:
            return f"{column} of {kept.column(column).null_count} documents is null; it may be in rows with a reason alone"
    return None


def _lost(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows have a reason to be dropped or quarantined."""
    lost = np.zeros(rows.num_rows, np.bool_)
    for column in (DROP, ERROR):
        if column in rows.column_names:
            lost |= pc.is_valid(rows.column(column)).to_numpy()
    return lost


def _itself(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows are the parent and not made of it."""
    if ITSELF not in rows.column_names:
        return np.zeros(rows.num_rows, np.bool_)
    return np.asarray(pc.fill_null(rows.column(ITSELF), False).to_numpy(), np.bool_)


def _filled(values: pa.ChunkedArray, given: pa.Table, parents: npt.NDArray[np.int64], column: str) -> pa.Array:
    """Return a column of every document; rows with a reason and no value have the parent's, so that they can be reported."""
    empty = pc.is_null(values).combine_chunks()
    whole = values.combine_chunks()
    return pc.replace_with_mask(
        whole, empty, given.column(column).take(pa.array(parents[empty.to_numpy(zero_copy_only=False)])).combine_chunks()
    )


def _ids(
    given: pa.Table, parents: npt.NDArray[np.int64], lost: npt.NDArray[np.bool_], itself: npt.NDArray[np.bool_]
) -> tuple[pa.Array, pa.Array]:
    """Return `id` and `parent` of each row: the parent's own where it is that, or its only row has a reason: nothing is made."""
    names = given.column("id").to_pylist()
    before = given.column(PARENT).to_pylist() if PARENT in given.column_names else [None] * given.num_rows
    first = np.searchsorted(parents, np.arange(given.num_rows))
    same = itself | (lost & (np.bincount(parents, minlength=given.num_rows)[parents] == 1))
    numbers = np.arange(len(parents)) - first[parents]
    ids, of = [], []
    for row, number, kept in zip(parents.tolist(), numbers.tolist(), same.tolist(), strict=True):
        ids.append(names[row] if kept else made_id(names[row], number))
        of.append(before[row] if kept else names[row])
    return pa.array(ids, pa.string()), pa.array(of, pa.string())
