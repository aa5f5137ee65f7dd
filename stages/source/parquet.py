"""Parquet tables: one document a row.

Yields a row for each row of the table, in order, as `rows.SCHEMA`; `offset` is the row's number, `length` 0. Quarantined:
rows whose text is null, and as one row the file when it is not Parquet or is damaged from some row on. Dropped: `empty`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

import pyarrow as pa

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
            ValueError: there is no such row.
        """
        with file.open() as stream:
            for row in self._rows(stream, offset):
                if row.offset == offset:
                    return table([row], file.name)
        raise ValueError(f"{file.uri}: no row {offset}")

    def _rows(self, stream: BinaryIO, start: int) -> Iterator[Row]:
        """Yield the rows from the row group on that holds number `start`."""
        import pyarrow.parquet as pq

        watched = _Watched(stream)
        number = 0
        try:
            table_file = pq.ParquetFile(pa.PythonFile(watched, "r"))
            groups = range(table_file.num_row_groups)
            sizes = [table_file.metadata.row_group(group).num_rows for group in groups]
            while number < len(sizes) and start >= sum(sizes[: number + 1]):
                number += 1
            kept, number = list(groups)[number:], sum(sizes[:number])
            columns = [
                name for name in (self.text_column, self.url_column, self.date_column) if name in table_file.schema_arrow.names
            ]
            wrong = self._wrong(table_file.schema_arrow)
            if wrong is not None:
                yield Row(0, 0, error=wrong)
                return
            for batch in table_file.iter_batches(READ_ROWS, row_groups=kept, columns=columns, use_threads=False):
                yield from self._batch(batch, number)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            if watched.failure is not None:
                raise watched.failure from error
            yield Row(number, 0, error=f"damaged Parquet: {str(error).splitlines()[0][:200]}")

    def _wrong(self, schema: pa.Schema) -> str | None:
        if self.text_column not in schema.names:
            return f"no column {self.text_column!r}; found {', '.join(schema.names[:20])}"
        kind = schema.field(self.text_column).type
        return None if kind in (pa.string(), pa.large_string()) else f"column {self.text_column!r} is {kind}, not a string"

    def _batch(self, batch: pa.RecordBatch, number: int) -> Iterator[Row]:
        nothing = [None] * batch.num_rows
        texts, urls, dates = (
            batch[name].to_pylist() if name in batch.schema.names else nothing
            for name in (self.text_column, self.url_column, self.date_column)
        )
        for place, (text, url, date) in enumerate(zip(texts, urls, dates, strict=True)):
            row = Row(number + place, 0, url=url if isinstance(url, str) else None, date=_date(date))
            if text is None:
                row.error = f"{self.text_column!r} is null"
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


def _date(value: Any) -> datetime | None:  # noqa: ANN401 - whatever type the column has
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return parse_date(value) if isinstance(value, str) else None
