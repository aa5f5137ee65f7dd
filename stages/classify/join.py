"""The stage `join`: what others have said of documents, from tables, as columns.

Reads `url` or `id`, and the tables; adds their columns. Dropped, where that is asked for: `not_annotated`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.arguments import one_of
from gristmill.columns import append, whole
from gristmill.storage.store import InputFile, expand
from pipeline.finding import Finding, Limit
from pipeline.schema import DOCUMENT, DROP
from pipeline.stage import Map, Transform
from stages.classify.tables import TYPES, Annotations, load


@dataclass(frozen=True, kw_only=True)
class Joined:
    """One column of the tables: `type` of its values, `column`, its name there where that is another; `default` stands for null.

    Types are string, bool, float32, float64, and int8 to uint64.
    """

    type: str
    column: str | None = None
    default: bool | int | float | str | None = None

    def __post_init__(self) -> None:
        """Check the type, and that the default is of it."""
        if self.type not in TYPES:
            raise ValueError(f"type is {self.type!r}; it can be {', '.join(TYPES)}")
        try:
            pa.scalar(self.default, TYPES[self.type])
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"default is {self.default!r}, no {self.type}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Join(Map):
    """Add columns of tables to the documents whose address or id they name: scores, topics, licences that others have found.

    `tables`: files or patterns, Parquet, Arrow IPC (`.arrow`) or JSONL (`.jsonl`, `.jsonl.gz`), on any store.
    `columns`: name → its type, or what it is in the tables: `{grade: float32, topic: {column: label, type: string}}`.
    `key`: what leads to a row: `url`, compared as it is written, to the byte, or the document's `id`. `key_column`: the column of
    the tables that has it, where its name is another.
    `missing`: a document without a row has `null` in all columns (or their `default`), or is dropped (`not_annotated`). A row
    whose value is null gives the default, too.
    `duplicates`: a key that stands in two rows is an `error`, or the `first` counts, in the order of files' names and rows.

    The tables' keys and columns are held in the memory of each process: 16 bytes a row beside the values; texts of a column
    together take at most 2 GiB.
    """

    tables: str | tuple[str, ...]
    columns: dict[str, str | Joined]
    key: Literal["url", "id"] = "url"
    key_column: str | None = None
    missing: Literal["null", "drop"] = "null"
    duplicates: Literal["error", "first"] = "error"

    def __post_init__(self) -> None:
        """Check what needs no file."""
        one_of("key", self.key, ("url", "id"))
        one_of("missing", self.missing, ("null", "drop"))
        one_of("duplicates", self.duplicates, ("error", "first"))
        if not self.columns:
            raise ValueError("columns names none; give at least one with its type, such as {grade: float32}")
        for name, column in self.columns.items():
            if name in DOCUMENT.names:
                raise ValueError(
                    f"columns: documents have {name!r} already; call it otherwise: {{other: {{column: {name}, type: ...}}}}"
                )
            if isinstance(column, str) and column not in TYPES:
                raise ValueError(f"columns: {name!r} is of type {column!r}; it can be {', '.join(TYPES)}")

    def plain(self) -> dict[str, Joined]:
        """Return what each column is in the tables."""
        return {name: Joined(type=each) if isinstance(each, str) else each for name, each in self.columns.items()}

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns."""
        return {name: TYPES[each.type] for name, each in self.plain().items()}

    def measures(self) -> tuple[str, ...]:
        """Return all columns."""
        return tuple(self.columns)

    def libraries(self) -> tuple[str, ...]:
        """Return what reads the tables."""
        return ("pyarrow",)

    def files(self) -> tuple[str, ...]:
        """Return the tables' files. Raises InputError where a pattern matches none."""
        return tuple(file.uri for file in self._expanded())

    def check(self) -> None:
        """Raise InputError where the tables cannot be read."""
        self._load()

    def open(self) -> Transform:
        """Read the tables and return f(docs) → docs with the columns, and with `drop` where documents without a row go."""
        annotations, given = self._load(), self.plain()

        def join(docs: pa.Table) -> pa.Table:
            rows = annotations.find(whole(docs[self.key]))
            lacking = pa.array(rows < 0)
            places = pa.array(rows, mask=rows < 0)
            columns = {}
            for (name, each), values in zip(given.items(), annotations.columns, strict=True):
                found = values.take(places)
                default = pa.scalar(each.default, TYPES[each.type])
                columns[pa.field(name, TYPES[each.type])] = found if each.default is None else pc.fill_null(found, default)
            if self.missing == "drop":
                columns[pa.field(DROP, pa.string())] = pc.if_else(lacking, "not_annotated", pa.scalar(None, pa.string()))
            return append(docs, columns)

        return join

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return what the tables say of a document, and whether they have it; see `Stage.explain`."""
        found = [Finding(name, after[name][0].as_py()) for name in self.columns]
        if self.missing == "null":
            return found
        dropped = after[DROP][0].as_py() is not None
        where = Limit("tables", self.tables, "not among" if dropped else "among", dropped)
        return [Finding(self.key, before[self.key][0].as_py(), (where,), decisive=dropped), *found]

    def _expanded(self) -> list[InputFile]:
        return expand(self.tables)

    def _load(self) -> Annotations:
        wanted = [(each.column or name, TYPES[each.type]) for name, each in self.plain().items()]
        return load(self._expanded(), self.key_column or self.key, wanted, unique=self.duplicates == "error")
