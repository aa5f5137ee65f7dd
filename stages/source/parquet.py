"""Parquet tables: one document a row.

Yields a row for each row of the table, in order, as `rows.SCHEMA`; `offset` is the row's number, `length` 0. Dropped: `empty`.
Quarantined: rows whose text is null (`null_text`) or not UTF-8 (`bad_utf8`; Parquet does not check); and as one row the file, or
what is left of it, when it is not Parquet or is damaged from there on (`damaged_parquet`), lacks the text (`no_text_column`, with
the columns that there are), or has something else there (`not_text`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.stage import Source
from pipeline.store import InputFile
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
    """

    version: ClassVar[int] = 2

    text_column: str = "text"
    url_column: str = "url"
    date_column: str = "date"

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA`."""

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(self._rows(file.uri, stream, 0), file.name, batch_rows)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one row of this number again; see `Source.fetch`.

        Raises:
            InputError: there is no such row.
        """
        with file.open() as stream:
            for row in self._rows(file.uri, stream, offset):
                if row.offset == offset:
                    return table([row], file.name)
        raise InputError(f"{file.uri}: no row {offset}; has the file changed since?")

    def _rows(self, uri: str, stream: BinaryIO, start: int) -> Iterator[Row]:
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
            wanted = (self.text_column, self.url_column, self.date_column)
            columns = [name for name in wanted if name in source.schema_arrow.names]
            for group in range(source.num_row_groups):
                facts = source.metadata.row_group(group)
                if facts.num_rows < 0:
                    raise pa.ArrowInvalid(f"row group {group} has {facts.num_rows} rows")
                if number + facts.num_rows <= start:
                    number += facts.num_rows
                    continue
                for batch in source.iter_batches(_at_once(facts), row_groups=[group], columns=columns, use_threads=False):
                    yield from self._batch(batch, number)
                    number += batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if watched.failure is not None:
                raise watched.failure from error
            yield Row(number, 0, error=f"damaged_parquet: {str(error).splitlines()[0][:200]}")

    def _wrong(self, schema: pa.Schema, uri: str) -> str | None:
        """Say why no text can be read. Raises InputError where two columns have the name of one that is read."""
        for name in (self.text_column, self.url_column, self.date_column):
            if schema.names.count(name) > 1:
                count = schema.names.count(name)
                raise InputError(f"{uri}: has {count} columns called {name!r}; rename all but one, or name another column")
        if self.text_column not in schema.names:
            more = f" and {len(schema.names) - COLUMNS} more" if len(schema.names) > COLUMNS else ""
            found = ", ".join(map(repr, schema.names[:COLUMNS])) + more
            return f"no_text_column: no {self.text_column!r} among the columns ({found or 'none'}); set text_column"
        kind = schema.field(self.text_column).type
        return None if _is_text(kind) else f"not_text: column {self.text_column!r} is {kind}, not a string"

    def _batch(self, batch: pa.RecordBatch, number: int) -> Iterator[Row]:
        texts, urls = (_strings(batch, name) for name in (self.text_column, self.url_column))
        dates = _plain(batch[self.date_column]) if self.date_column in batch.schema.names else pa.nulls(batch.num_rows)
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
            yield row


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
