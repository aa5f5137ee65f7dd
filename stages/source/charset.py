"""Bytes of a page to text: strictly, by what the page says of itself before what it looks like.

Candidates in order (WHATWG HTML, "determining the character encoding"): byte order mark, charset of the HTTP header,
`<meta charset>` or XML declaration in the first 1,024 bytes, UTF-8, statistical detection (resiliparse). The first that decodes
every byte wins. Labels mean what the WHATWG Encoding standard says: `latin1` is windows-1252, `gb2312` is GB 18030.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PRESCAN = 1024  # bytes, as browsers do
META = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.+-]+)", re.IGNORECASE)
XML = re.compile(rb"^\s*<\?xml[^>]{0,256}?encoding\s*=\s*[\"']([A-Za-z0-9_:.+-]+)")
MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le"}
# Python's codecs of these names are narrower than the standard's.
WIDER = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "euc-kr": "cp949",
    "big5": "big5hkscs",
    "iso8859-11": "cp874",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What bytes say: their text and the encoding that it was read in, or no text and the reason (`undecodable`)."""

    text: str | None
    encoding: str | None = None
    drop: str | None = None


def decode(body: bytes, declared: str | None, markup: bool, *, truncated: bool = False) -> Decoded:
    """Return the text of `body` without its byte order mark, or why there is none.

    `declared` is the charset of the HTTP header; with `markup` the body is asked too. `truncated` says that the body is known
    to end too early.
    """
    for codec in _candidates(body, declared, markup):
        try:
            return Decoded(text=body.decode(codec).removeprefix("\ufeff"), encoding=codec)
        except UnicodeDecodeError:
            continue
    return Decoded(text=None, drop="undecodable")


def _candidates(body: bytes, declared: str | None, markup: bool) -> Iterator[str]:
    from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

    for mark, codec in MARKS.items():
        if body.startswith(mark):
            yield codec
    labels = [declared] if declared else []
    if markup:
        head = body[:PRESCAN]
        labels += [match[1].decode("ascii") for match in (META.search(head), XML.search(head)) if match]
    for position, label in enumerate(labels):
        named: str | None = map_encoding_to_html5(label, fallback_utf8=False)
        if named and named.startswith("utf-16") and (position > 0 or not declared):
            named = "utf-8"  # the declaration was read as ASCII, so it cannot be true
        if named:
            yield WIDER.get(named, named)
    yield "utf-8"
    looks: str | None = detect_encoding(body)
    if looks:
        yield WIDER.get(looks, looks)
