"""Headers of archived records: WARC (ISO 28500; the drafts before it, too) and ARC (Burner and Kahle 1996, versions 1 and 2).

Reads the bytes at which a record begins; says where its block begins, how long it says it is, and what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_LIMIT = 64 << 10
ARC_LINE = 8 << 10  # the longest header line of an ARC record
BLANK = re.compile(rb"\n\r{0,2}\n")
LENGTH = re.compile(r"[ \t]*(\d{1,18})[ \t]*")
# URL, address, date, then type (version 1) or type to filename (version 2), length. URLs of old crawls may hold blanks.
ARC = re.compile(
    rb"([a-z][a-z0-9+.-]{0,30}:[^\n]{0,7000}?) ([^ \n]+) (\d{12,18}) (?:([^\n]{0,999}?) )?(\d{1,18})[ \t]*\r?\n", re.IGNORECASE
)
# The line on which a record begins, wherever it stands.
START = re.compile(rb"WARC/\d+\.\d+[ \t]*\r{0,2}\n|" + ARC.pattern, re.IGNORECASE)
NEXT = re.compile(rb"\n(?=WARC/\d+\.\d+[ \t]*\r{0,2}\n[a-z-]+:|" + ARC.pattern + rb")", re.IGNORECASE)


@dataclass(slots=True)
class Head:
    """One header: `end` is where the block begins, `size` what the header says of its length.

    `type` is the WARC-Type in lower case; ARC files have `response`, and `filedesc` for what describes the file. `media` is the
    block's type: of an ARC record that of its payload.
    """

    end: int
    size: int
    type: str
    url: str | None = None
    date: str | None = None
    media: str = ""
    truncated: str | None = None


def begins(data: bytes | bytearray, at: int = 0) -> bool:
    """Tell whether a record begins there."""
    return data.startswith(b"WARC/", at) or START.match(data, at) is not None


def parse(data: bytes | bytearray) -> Head | str:
    """Return the header at the beginning of `data`, or what is wrong with it (`kind: detail`)."""
    if data[:5].upper() == b"WARC/":
        return _warc(data)
    found = ARC.match(data, 0, ARC_LINE)
    if found is None:
        return f"damaged_record: no WARC or ARC record begins with {bytes(data[:16])!r}"
    url, _, date, media, size = (_text(part or b"") for part in found.groups())
    kind = "filedesc" if url.lower().startswith("filedesc:") else "response"
    return Head(found.end(), int(size), kind, url, date, media.partition(" ")[0])


def _warc(data: bytes | bytearray) -> Head | str:
    blank = BLANK.search(data, 0, HEAD_LIMIT)
    if blank is None:
        return f"damaged_record: WARC header without end in {min(len(data), HEAD_LIMIT)} bytes"
    fields = read_fields(bytes(data[: blank.start()]))
    size = LENGTH.fullmatch((fields.get("content-length") or [""])[0])
    if size is None:
        return "damaged_record: WARC header without a Content-Length"

    def first(name: str) -> str | None:
        return fields[name][0].strip() if name in fields else None

    url = (first("warc-target-uri") or "").removeprefix("<").removesuffix(">") or None
    truncated = first("warc-truncated") or ("segment" if "warc-segment-number" in fields else None)
    kind = (first("warc-type") or "").lower()
    return Head(blank.end(), int(size[1]), kind, url, first("warc-date"), first("content-type") or "", truncated)


def read_fields(head: bytes) -> dict[str, list[str]]:
    """Return the header lines behind the first, by name in lower case: continued lines joined, those without a colon left out."""
    fields: dict[str, list[str]] = {}
    values: list[str] = []
    for line in head.split(b"\n")[1:]:
        if line[:1] in (b" ", b"\t"):
            if values:
                values[-1] += " " + _text(line.strip())
            continue
        name, colon, value = line.partition(b":")
        if colon:
            values = fields.setdefault(_text(name.strip()).lower(), [])
            values.append(_text(value.strip()))
    return fields


def _text(value: bytes) -> str:
    """Decode UTF-8, what is not as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
