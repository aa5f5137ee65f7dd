"""A source whose documents are found by going through a file from its start: of lines, of text.

Yields the rows that a subclass makes of the stream, as tables of `rows.SCHEMA`; reads one document again by its address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import pyarrow as pa

from gristmill.errors import InputError
from gristmill.storage.store import InputFile
from pipeline.finding import Finding
from pipeline.stage import Source
from stages.source.rows import Row, table, tables


@dataclass(frozen=True, kw_only=True)
class Streamed(Source):
    """A source that knows how to make rows of a stream."""

    addresses_unpacked: ClassVar[bool] = True

    def rows(self, stream: BinaryIO) -> Iterator[Row]:
        """Yield the rows of one file, in their order."""
        raise NotImplementedError

    def open(self) -> Callable[[InputFile, int], Iterator[pa.Table]]:
        """Return f(file, batch_rows) → tables of `rows.SCHEMA` and `adds()`."""
        adds = self.adds()

        def read(file: InputFile, batch_rows: int) -> Iterator[pa.Table]:
            with file.open() as stream:
                yield from tables(self.rows(stream), file.name, batch_rows, adds)

        return read

    def fetch(self, file: InputFile, offset: int, length: int) -> pa.Table:
        """Read the one document at this address again; see `Source.fetch`. The file is read from its start.

        Raises:
            InputError: no document begins there.
        """
        return table([self._row_at(file, offset)], file.name, self.adds())

    def explain_record(self, file: InputFile, offset: int, length: int) -> Sequence[Finding]:
        """See `Source.explain_record`. Raises InputError as `fetch`."""
        return self.explain_row(self._row_at(file, offset))

    def explain_row(self, row: Row) -> Sequence[Finding]:
        """Return what decided on a row that `rows` gave."""
        raise NotImplementedError

    def _row_at(self, file: InputFile, offset: int) -> Row:
        with file.open() as stream:
            for row in self.rows(stream):
                if row.offset == offset:
                    return row
        raise InputError(f"{file.uri}: no document at offset {offset}; has the file changed since?")
