"""Headers of archived records: WARC (ISO 28500; the drafts before it, too) and ARC (Burner and Kahle 1996, versions 1 and 2).

Reads the bytes at which a record begins; says where its block begins, how long it says it is, and what it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_LIMIT = 64 << 10
ARC_LINE = 8 << 10  # the longest header line of an ARC record
BLANK = re.compile(rb"\n\r{0,2}\n")
# It begins where blanks do: asked at each blank of a long row it would look at all the others behind it.
FOLD = re.compile(rb"(?:(?<![ \t\r])[ \t\r]*+|(?<=[ \t])\r{0,2})\n[ \t]+")
LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*(\d{1,18})[ \t\r]*(?=\n|\Z)", re.IGNORECASE)
TYPE = re.compile(rb"\nwarc-type[ \t]*:[ \t]*([a-z]+)", re.IGNORECASE)
# URL, address, date, then type (version 1) or type to filename (version 2), length. URLs of old crawls may hold blanks.
ARC = re.compile(
    rb"([a-z][a-z0-9+.-]{0,30}:[^\n]{0,7000}?) ([^ \n]+) (\d{12,18}) (?:([^\n]{0,999}?) )?(\d{1,18})[ \t]*\r?\n", re.IGNORECASE
)
# The line on which a record begins, wherever it stands.
START = re.compile(rb"WARC/\d+\.\d+[ \t]*\r{0,2}\n|" + ARC.pattern, re.IGNORECASE)
NEXT = re.compile(rb"\n(?=WARC/\d+\.\d+[ \t]*\r{0,2}\n[a-z-]+:|" + ARC.pattern + rb")", re.IGNORECASE)


@dataclass(slots=True)
class Head:
    """One header: `end` is where the block begins, `size` what the header says of its length, `raw` the header itself.

    `type` is the WARC-Type in lower case; ARC files have `response`, and `filedesc` for what describes the file.
    """

    end: int
    size: int
    type: str
    raw: bytes


@dataclass(slots=True)
class About:
    """What a header says of its record; `media` is the type of the block, of an ARC record that of its payload."""

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
    kind = "filedesc" if found[1].lower().startswith(b"filedesc:") else "response"
    return Head(found.end(), int(found[5]), kind, found[0])


def _warc(data: bytes | bytearray) -> Head | str:
    blank = BLANK.search(data, 0, HEAD_LIMIT)
    if blank is None:
        return f"damaged_record: WARC header without end in {min(len(data), HEAD_LIMIT)} bytes"
    raw = bytes(data[: blank.start()])
    size, kind = LENGTH.search(raw), TYPE.search(raw)
    if size is None:
        return "damaged_record: WARC header without a Content-Length"
    return Head(blank.end(), int(size[1]), kind[1].decode().lower() if kind else "", raw)


def about(head: Head) -> About:
    """Return what else a header says."""
    found = ARC.match(head.raw)
    if found is not None:
        return About(_text(found[1]), _text(found[3]), _text(found[4] or b"").partition(" ")[0])
    fields = read_fields(head.raw, FIELDS)

    def first(name: str) -> str | None:
        return fields[name][0] if name in fields else None

    url = (first("warc-target-uri") or "").removeprefix("<").removesuffix(">") or None
    truncated = first("warc-truncated") or ("segment" if "warc-segment-number" in fields else None)
    return About(url, first("warc-date"), first("content-type") or "", truncated)


def names(*wanted: str) -> re.Pattern[bytes]:
    """Return what finds the lines of these header fields for `read_fields`."""
    return re.compile(rb"\n(" + "|".join(wanted).encode() + rb")[ \t]*:[ \t]*([^\n]*)", re.IGNORECASE)


def read_fields(head: bytes, wanted: re.Pattern[bytes]) -> dict[str, list[str]]:
    """Return the values of the wanted fields, by name in lower case: continued lines are joined, lines without a colon passed."""
    if b"\n " in head or b"\n\t" in head:
        head = FOLD.sub(b" ", head)
    fields: dict[str, list[str]] = {}
    for name, value in wanted.findall(head):
        fields.setdefault(name.decode().lower(), []).append(_text(value.strip()))
    return fields


def _text(value: bytes) -> str:
    """Decode UTF-8, what is not as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


FIELDS = names("warc-target-uri", "warc-date", "content-type", "warc-truncated", "warc-segment-number")
