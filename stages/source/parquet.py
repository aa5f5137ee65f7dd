"""Parquet tables: one document a row.

Yields a row for each row of the table, in order, as `rows.SCHEMA`; `offset` is the row's number, `length` 0. Dropped: `empty`.
Quarantined: rows whose text is null (`null_text`) or not UTF-8 (`bad_utf8`; Parquet does not check); and as one row the file, or
what is left of it, when it is not Parquet or is damaged from there on (`damaged_parquet`), lacks the text (`no_text_column`, with
the columns that there are), or has something else there (`not_text`); and rows with a value that does not fit (`bad_value`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, ClassVar, Self

import pyarrow as pa

from gristmill.errors import InputError
from gristmill.storage.store import InputFile, expand
from pipeline.stage import Source
from stages.source.carry import Carried, carried, from_arrow, name_of, type_of
from stages.source.rows import Row, parse_date, table, tables

READ_ROWS = 1024  # at once, fewer where texts are long
READ_BYTES = 32 << 20  # of texts at once, by their mean size in the row group
BUFFER = 1 << 20  # bytes read at once of a column: without it pyarrow holds the whole chunk of a row group, however large
COLUMNS = 20  # of a table, named in a message


@dataclass(frozen=True, kw_only=True)
class ParquetSource(Source):
    """Yield one document per row; the columns name where text, address and date are found.

    The text is a column of strings, or of bytes that are UTF-8, as Arrow has them: plain, large, as a view, as a dictionary.
    Address (alike) and date (timestamp, date or ISO 8601 string) may be missing.

    `carry` keeps other columns: a list of them, with the types that they have in the first file (structs and the like as JSON);
    or a mapping of columns to types (`{score: float64, tags: list<string>}`), or to the name that a column has in the files and
    the type (`{source_id: {column: id}}`). In a file without the column it is null; a value of another type is an error of its
    document.
    """

    version: ClassVar[int] = 2

    text_column: str = "text"
    url_column: str = "url"
    date_column: str = "date"
    carry: tuple[str, ...] | dict[str, str | Carried] = ()

    def __post_init__(self) -> None:
        carried(self.carry)

    def resolved(self) -> Self:
        """See `Source.resolved`: every column that is carried has its type. Raises InputError where the first file lacks one."""
        given = carried(self.carry)
        if all(each.type is not None for each in given.values()):
            return self
        file = expand(self.paths)[0]
        there = _schema(file)
        typed: dict[str, str | Carried] = {}
        for name, each in given.items():
            column = each.column or name
            if each.type is None and column not in there.names:
                raise InputError(f"{file.uri}: has no column {column!r} to carry; it has {_listed(there.names)}")
            typed[name] = Carried(column=each.column, type=each.type or name_of(there.field(column).type))
        return dataclasses.replace(self, carry=typed)

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns of `carry`. Raises InputError where the first file lacks one."""
        return {name: type_of(each.type or "") for name, each in carried(self.resolved().carry).items()}

    def libraries(self) -> tuple[str, ...]:
        """Return what reads the tables."""
        return ("pyarrow",)

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA` and `adds()`."""
        adds = self.adds()

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(self._rows(file.uri, stream, 0, adds), file.name, batch_rows, adds)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one row of this number again; see `Source.fetch`.

        Raises:
            InputError: there is no such row.
        """
        adds = self.adds()
        with file.open() as stream:
            for row in self._rows(file.uri, stream, offset, adds):
                if row.offset == offset:
                    return table([row], file.name, adds)
        raise InputError(f"{file.uri}: no row {offset}; has the file changed since?")

    def _rows(self, uri: str, stream: BinaryIO, start: int, adds: Mapping[str, pa.DataType]) -> Iterator[Row]:
        """Yield the rows from the row group on that holds number `start`."""
        import pyarrow.parquet as pq

        watched = _Watched(stream)
        number = 0
        try:
            source = pq.ParquetFile(pa.PythonFile(watched, "r"), buffer_size=BUFFER, pre_buffer=False)
            wrong = self._wrong(source.schema_arrow, uri)
            if wrong is not None:
                yield Row(0, 0, error=wrong)
                return
            columns = [name for name in dict.fromkeys(self._read()) if name in source.schema_arrow.names]
            for group in range(source.num_row_groups):
                facts = source.metadata.row_group(group)
                if facts.num_rows < 0:
                    raise pa.ArrowInvalid(f"row group {group} has {facts.num_rows} rows")
                if number + facts.num_rows <= start:
                    number += facts.num_rows
                    continue
                for batch in source.iter_batches(_at_once(facts), row_groups=[group], columns=columns, use_threads=False):
                    yield from self._batch(batch, number, adds)
                    number += batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if watched.failure is not None:
                raise watched.failure from error
            yield Row(number, 0, error=f"damaged_parquet: {str(error).splitlines()[0][:200]}")

    def _read(self) -> list[str]:
        """Return the names of the columns that are read."""
        more = (each.column or name for name, each in carried(self.carry).items())
        return [self.text_column, self.url_column, self.date_column, *more]

    def _wrong(self, schema: pa.Schema, uri: str) -> str | None:
        """Say why no text can be read. Raises InputError where two columns have the name of one that is read."""
        for name in self._read():
            if schema.names.count(name) > 1:
                count = schema.names.count(name)
                raise InputError(f"{uri}: has {count} columns called {name!r}; rename all but one, or name another column")
        if self.text_column not in schema.names:
            return f"no_text_column: no {self.text_column!r} among the columns ({_listed(schema.names)}); set text_column"
        kind = schema.field(self.text_column).type
        return None if _is_text(kind) else f"not_text: column {self.text_column!r} is {kind}, not a string"

    def _batch(self, batch: pa.RecordBatch, number: int, adds: Mapping[str, pa.DataType]) -> Iterator[Row]:
        texts, urls = (_strings(batch, name) for name in (self.text_column, self.url_column))
        dates = _plain(batch[self.date_column]) if self.date_column in batch.schema.names else pa.nulls(batch.num_rows)
        more = [_carried(batch, each.column or name, adds[name]) for name, each in carried(self.carry).items()]
        for place, (text, url, date) in enumerate(zip(texts, urls, dates, strict=True)):
            row = Row(number + place, 0, url=url if isinstance(url, str) else None, date=_date(date))
            if text is None:
                row.error = f"null_text: {self.text_column!r} is null"
            elif isinstance(text, UnicodeDecodeError):
                row.error = f"bad_utf8: {self.text_column!r} has {text.reason} at byte {text.start}"
            elif not text or text.isspace():
                row.drop = "empty"
            else:
                row.text = text
            row.more = tuple(column[place] for column in more)
            wrong = [f"{name!r}: {value}" for name, value in zip(adds, row.more, strict=True) if isinstance(value, ValueError)]
            if wrong:
                row.drop, row.text, row.more = None, "", ()
                row.error = row.error or f"bad_value: {wrong[0]}"
            yield row


def _carried(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> list[Any]:
    """Return the values of a column as `from_arrow` does, nulls where it is missing."""
    return from_arrow(_plain(batch[name]), kind) if name in batch.schema.names else [None] * batch.num_rows


def _schema(file: InputFile) -> pa.Schema:
    """Return the schema of a table. Raises InputError where the file is none."""
    import pyarrow.parquet as pq

    with file.open() as stream:
        watched = _Watched(stream)
        try:
            return pq.read_schema(pa.PythonFile(watched, "r"))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if watched.failure is not None:
                raise watched.failure from error
            raise InputError(f"{file.uri}: no Parquet table to take the types of `carry` from; name them there") from error


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - COLUMNS} more" if len(names) > COLUMNS else ""
    return ", ".join(map(repr, names[:COLUMNS])) + more or "none"


class _Watched:
    """A file that remembers the store's error: pyarrow raises OSError for damaged data too."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.closed = False
        self.failure: OSError | None = None

    def read(self, count: int = -1) -> bytes:
        """Read as the file does."""
        try:
            return self._file.read(count)
        except OSError as error:
            self.failure = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as the file does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Tell as the file does."""
        return self._file.tell()

    def close(self) -> None:
        """Leave closing to whoever opened the file."""


def _at_once(group: Any) -> int:  # noqa: ANN401 - pyarrow has no types for mypy
    """Return how many rows of a row group are about READ_BYTES, by its uncompressed size."""
    return int(max(1, min(READ_ROWS, READ_BYTES * group.num_rows // max(1, group.total_byte_size))))


def _is_text(kind: pa.DataType) -> bool:
    """Tell whether a column may hold texts: strings or bytes in any of Arrow's layouts, or nothing but nulls."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.null())


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _strings(batch: pa.RecordBatch, name: str) -> list[str | UnicodeDecodeError | None]:
    """Return a column's strings, with the error for those that are not UTF-8; nulls for a column that has no strings."""
    if name not in batch.schema.names or not _is_text(batch.schema.field(name).type):
        return [None] * batch.num_rows
    return [_decoded(value) for value in _plain(batch[name]).cast(pa.large_binary()).to_pylist()]


def _decoded(value: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return error


def _date(value: pa.Scalar) -> datetime | None:
    """Return the time in a scalar of any type: UTC where it names no zone, None where it is none that Python can hold."""
    try:
        if pa.types.is_timestamp(value.type) or pa.types.is_date(value.type):
            time: datetime | None = value.cast(pa.timestamp("s"), safe=False).as_py()
            return time and time.replace(tzinfo=UTC)
        return parse_date(value.as_py()) if _is_text(value.type) and not isinstance(value.as_py(), bytes) else None
    except (ValueError, OverflowError):
        return None
