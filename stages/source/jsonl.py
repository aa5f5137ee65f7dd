"""JSON Lines: one object a line, uncompressed or of any compression in `unpacked`; or the objects of a JSON array.

Yields a row for each line that is not blank, in file order, as `rows.SCHEMA`; where the file is an array of objects, for each of
its elements. `offset` and `length` are the line's place in the uncompressed stream, in bytes, without its newline. JSON is what
RFC 8259 says, so no NaN and no Infinity; a byte order mark before it is no part of it.

Dropped: `empty`, `too_long`. Quarantined: `bad_utf8`, `bad_json`, `not_object`, `no_text_key` (with the keys that there are),
`null_text`, `not_text`, `lone_surrogate` (half of a pair that UTF-16 needs for one character, which UTF-8 cannot hold),
`bad_value` (of a key that is carried); for the rest of a file `damaged_compression`, `foreign_format`, `cut_array`, `not_utf8`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, NoReturn

import pyarrow as pa

from gristmill.archives.arrays import START, elements
from gristmill.archives.lines import lines
from gristmill.archives.unpacked import ahead, unpacked
from pipeline.finding import Finding
from stages.source.carry import Carried, carried, from_json, type_of
from stages.source.rows import Row, parse_date, size_finding
from stages.source.streamed import Streamed

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # where files were put together, one stands before lines further on
HEAD = 1024  # bytes that show what a file is
ARRAY = "is a JSON array, not lines of JSON; its elements were read as lines are"
INT_DIGITS = 4000
KEYS = 20  # of an object, named in a message
# UTF-32 before UTF-16, whose mark begins its own. Without a mark: the NULs beside an ASCII bracket.
_WIDE = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"{\0": "UTF-16LE",
    b"[\0": "UTF-16LE",
    b"\0{": "UTF-16BE",
    b"\0[": "UTF-16BE",
}


@dataclass(frozen=True, kw_only=True)
class JsonlSource(Streamed):
    """Yield one document per line; the keys name where text, address and date are found in the object.

    Text, address and date are strings, the date ISO 8601; the latter two may be missing. `max_line_bytes` bounds memory.

    `carry` keeps the values of other keys as columns of a document: a list of keys, whose values become texts (what is no text
    as JSON), or a mapping of columns to types (`{score: float64, tags: list<string>}`), or to the key and the type
    (`{source_id: {column: id, type: int64}}`). A missing key is null; a value of another type is an error of its document.
    """

    version: ClassVar[int] = 2

    text_key: str = "text"
    url_key: str = "url"
    date_key: str = "date"
    max_line_bytes: int = 16 << 20
    carry: tuple[str, ...] | dict[str, str | Carried] = ()

    def __post_init__(self) -> None:
        carried(self.carry)
        if not 1 <= self.max_line_bytes <= 1 << 30:
            raise ValueError(f"max_line_bytes is {self.max_line_bytes}; allowed are 1 to {1 << 30} (1 GiB)")

    def libraries(self) -> tuple[str, ...]:
        """Return what decides how much of a damaged file can be unpacked."""
        return ("zstandard",)

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns of `carry`."""
        return {name: type_of(each.type or "string") for name, each in carried(self.carry).items()}

    def rows(self, stream: BinaryIO) -> Iterator[Row]:
        """See `Streamed.rows`."""
        carry = [(name, each.column or name, self.adds()[name]) for name, each in carried(self.carry).items()]
        head, pieces = ahead(unpacked(stream), HEAD)
        wide = next((name for mark, name in _WIDE.items() if head.startswith(mark)), None)
        if wide is not None:
            yield Row(0, 0, error=f"not_utf8: the file is {wide}; convert it first: iconv -f {wide} -t UTF-8")
            return
        start = len(BYTE_ORDER_MARK) if head.startswith(BYTE_ORDER_MARK) else 0
        is_array = START.match(head[start:].lstrip()) is not None
        find = elements if is_array else lines
        for offset, line, length, damage in find(itertools.chain([head[start:]], pieces), self.max_line_bytes, start):
            if damage is not None:
                row = Row(offset, length, error=damage)
            elif length > self.max_line_bytes:
                row = Row(offset, length, drop="too_long")
            elif not line.isspace() and line:
                row = self._row(offset, line, carry)
            else:
                continue
            row.note = ARRAY if is_array else None
            yield row

    def explain_row(self, row: Row) -> Sequence[Finding]:
        """See `Streamed.explain_row`."""
        return (size_finding(row, "max_line_bytes", self.max_line_bytes),)

    def _row(self, offset: int, line: bytes, carry: Sequence[tuple[str, str, pa.DataType]]) -> Row:
        row = Row(offset, len(line))
        try:
            found = _parsed(line.removeprefix(BYTE_ORDER_MARK).decode())
        except UnicodeDecodeError as error:
            row.error = f"bad_utf8: {error.reason} at byte {error.start}"
            return row
        except (ValueError, RecursionError) as error:
            row.error = f"bad_json: {error}" + _ADVICE.get(line.strip(), "")
            return row
        if not isinstance(found, dict):
            row.error = f"not_object: the line is {_kind(found)}"
            return row
        url, date = found.get(self.url_key), found.get(self.date_key)
        row.url = url if isinstance(url, str) and _half(url) is None else None
        row.date = parse_date(date) if isinstance(date, str) else None
        self._fill(row, found)
        row.more = tuple(_carried(row, found.get(key), name, kind) for name, key, kind in carry)
        return row

    def _fill(self, row: Row, found: dict[str, Any]) -> None:
        """Take the text of an object, or say why there is none."""
        if self.text_key not in found:
            row.error = f"no_text_key: no {self.text_key!r} among its keys ({_listed(found)}); set text_key"
            return
        text = found[self.text_key]
        if text is None:
            row.error = f"null_text: {self.text_key!r} is null"
        elif not isinstance(text, str):
            row.error = f"not_text: {self.text_key!r} is {_kind(text)}"
        elif (half := _half(text)) is not None:
            row.error = f"lone_surrogate: {self.text_key!r} has half of a character at {half}"
        elif not text or text.isspace():
            row.drop = "empty"
        else:
            row.text = text


def _carried(row: Row, value: object, name: str, kind: pa.DataType) -> Any:  # noqa: ANN401 - a value of the type
    try:
        return from_json(value, kind)
    except ValueError as error:
        row.drop, row.text, row.error = None, "", row.error or f"bad_value: {name!r}: {error}"
        return None


def _refuse(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is no number", "", 0)


_JSON = json.JSONDecoder(parse_constant=_refuse)
# Python makes no int of more than 4,300 digits (CVE-2020-10735), JSON does; nobody reads it as text, so a float will do.
_JSON_OF_LONG_NUMBERS = json.JSONDecoder(
    parse_constant=_refuse, parse_int=lambda digits: float(digits) if len(digits) > INT_DIGITS else int(digits)
)


def _parsed(text: str) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a JSON text. Raises ValueError, RecursionError."""
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _JSON_OF_LONG_NUMBERS.decode(text)


_ADVICE = {bracket: "; a value over several lines? One a line: jq -c . FILE" for bracket in (b"{", b"[")}


def _half(text: str) -> int | None:
    r"""Return where a string has a character that UTF-8 cannot hold (`"\ud800"` is valid JSON, but no text), None if nowhere."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _listed(found: dict[str, Any]) -> str:
    keys = list(found)
    return ", ".join(map(repr, keys[:KEYS])) + (f" and {len(keys) - KEYS} more" if len(keys) > KEYS else "") or "none"
