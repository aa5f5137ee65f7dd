"""JSON Lines: one object a line, gzip, zstd or uncompressed.

Yields a row for each line that is not blank, in file order, as `rows.SCHEMA`. `offset` and `length` are the line's place in
the uncompressed stream, in bytes, without its newline. Quarantined: lines that are not UTF-8, not a JSON object, or have no
text; the rest of a file whose compression is damaged. Dropped: `empty`, `too_long`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from stages.source.lines import lines
from stages.source.rows import Row, parse_date
from stages.source.streamed import Streamed


@dataclass(frozen=True, kw_only=True)
class JsonlSource(Streamed):
    """Yield one document per line; the keys name where text, address and date are found in the object.

    Text, address and date are strings, the date ISO 8601; the latter two may be missing. `max_line_bytes` bounds memory.
    """

    text_key: str = "text"
    url_key: str = "url"
    date_key: str = "date"
    max_line_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if not 1 <= self.max_line_bytes <= 1 << 30:
            raise ValueError(f"max_line_bytes is {self.max_line_bytes}; allowed are 1 to {1 << 30} (1 GiB)")

    def rows(self, stream: BinaryIO) -> Iterator[Row]:
        """See `Streamed.rows`."""
        for offset, line, length, damage in lines(stream, self.max_line_bytes):
            if damage is not None:
                yield Row(offset, length, error=damage)
            elif length > self.max_line_bytes:
                yield Row(offset, length, drop="too_long")
            elif not line.isspace() and line:
                yield self._row(offset, line)

    def _row(self, offset: int, line: bytes) -> Row:
        row = Row(offset, len(line))
        try:
            found: Any = json.loads(line.decode())
        except UnicodeDecodeError as error:
            row.error = f"not UTF-8: {error.reason} at byte {error.start}"
            return row
        except (ValueError, RecursionError) as error:
            row.error = f"not JSON: {error}"
            return row
        if not isinstance(found, dict):
            row.error = f"not a JSON object: {type(found).__name__}"
            return row
        text = found.get(self.text_key)
        url, date = found.get(self.url_key), found.get(self.date_key)
        row.url = url if _sound(url) else None
        row.date = parse_date(date) if isinstance(date, str) else None
        if text is None:
            row.error = f"no {self.text_key!r} among the keys"
        elif not _sound(text):
            row.error = (
                f"{self.text_key!r} is not text: {type(text).__name__ if not isinstance(text, str) else 'a lone surrogate'}"
            )
        elif not text or text.isspace():
            row.drop = "empty"
        else:
            row.text = text
        return row


def _sound(value: object) -> bool:
    r"""Tell whether a JSON value is a string that UTF-8 can hold (`"\ud800"` is valid JSON, but no text)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
