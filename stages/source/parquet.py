"""Parquet tables: one document a row.

Yields a row for each row of the table, in order, as `rows.SCHEMA`; `offset` is the row's number, `length` 0. Quarantined:
rows whose text is null, and as one row the file when it is not Parquet or is damaged from some row on. Dropped: `empty`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.stage import Source
from pipeline.store import InputFile
from stages.source.rows import Row, parse_date, table, tables

READ_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class ParquetSource(Source):
    """Yield one document per row; the columns name where text, address and date are found.

    The text must be a string column (else the file is quarantined); address (string) and date (timestamp, date or ISO 8601
    string) may be missing.
    """

    text_column: str = "text"
    url_column: str = "url"
    date_column: str = "date"

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA`."""

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(self._rows(stream, 0), file.name, batch_rows)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one row of this number again; see `Source.fetch`.

        Raises:
            InputError: there is no such row.
        """
        with file.open() as stream:
            for row in self._rows(stream, offset):
                if row.offset == offset:
                    return table([row], file.name)
        raise InputError(f"{file.uri}: no row {offset}; has the file changed since?")

    def _rows(self, stream: BinaryIO, start: int) -> Iterator[Row]:
        """Yield the rows from the row group on that holds number `start`."""
        import pyarrow.parquet as pq

        watched = _Watched(stream)
        number = 0
        try:
            source = pq.ParquetFile(pa.PythonFile(watched, "r"))
            wrong = self._wrong(source.schema_arrow)
            if wrong is not None:
                yield Row(0, 0, error=wrong)
                return
            groups: list[int] = []
            for group in range(source.num_row_groups):
                rows = source.metadata.row_group(group).num_rows
                if rows < 0:
                    raise pa.ArrowInvalid(f"row group {group} has {rows} rows")
                if not groups and number + rows <= start:
                    number += rows
                else:
                    groups.append(group)
            columns = [
                name for name in (self.text_column, self.url_column, self.date_column) if name in source.schema_arrow.names
            ]
            for batch in source.iter_batches(READ_ROWS, row_groups=groups, columns=columns, use_threads=False):
                yield from self._batch(batch, number)
                number += batch.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            if watched.failure is not None:
                raise watched.failure from error
            yield Row(number, 0, error=f"damaged Parquet: {str(error).splitlines()[0][:200]}")

    def _wrong(self, schema: pa.Schema) -> str | None:
        if self.text_column not in schema.names:
            return f"no column {self.text_column!r}; found {', '.join(schema.names[:20])}"
        kind = schema.field(self.text_column).type
        return None if _is_string(kind) else f"column {self.text_column!r} is {kind}, not a string"

    def _batch(self, batch: pa.RecordBatch, number: int) -> Iterator[Row]:
        texts, urls = (self._strings(batch, name) for name in (self.text_column, self.url_column))
        dates = batch[self.date_column] if self.date_column in batch.schema.names else pa.nulls(batch.num_rows)
        for place, (text, url, date) in enumerate(zip(texts, urls, dates, strict=True)):
            row = Row(number + place, 0, url=url if isinstance(url, str) else None, date=_date(date))
            if text is None:
                row.error = f"{self.text_column!r} is null"
            elif isinstance(text, bytes):
                row.error = f"{self.text_column!r} is not UTF-8"
            elif not text or text.isspace():
                row.drop = "empty"
            else:
                row.text = text
            yield row

    def _strings(self, batch: pa.RecordBatch, name: str) -> list[str | bytes | None]:
        """Return a column's strings; as bytes those that are not UTF-8, which Parquet does not check."""
        if name not in batch.schema.names or not _is_string(batch.schema.field(name).type):
            return [None] * batch.num_rows
        return [_decoded(value) for value in batch[name].cast(pa.large_binary()).to_pylist()]


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


def _is_string(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string())


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _date(value: pa.Scalar) -> datetime | None:
    """Return the time in a scalar of any type: UTC where it names no zone, None where it is none that Python can hold."""
    try:
        if pa.types.is_timestamp(value.type) or pa.types.is_date(value.type):
            time: datetime | None = value.cast(pa.timestamp("s"), safe=False).as_py()
            return time and time.replace(tzinfo=UTC)
        return parse_date(value.as_py()) if _is_string(value.type) else None
    except (ValueError, OverflowError):
        return None
