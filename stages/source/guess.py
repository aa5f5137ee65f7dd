"""What encoding bytes are in by what they look like: NUL bytes of UTF-16 and UTF-32, escapes of ISO 2022, statistics.

Statistics are those of Firefox (chardetng, as turbohtml carries it). They always name something; a guess counts only when
something speaks for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stages.source.encodings import EAST_ASIAN, REFUSED, UTF8

if TYPE_CHECKING:
    from turbohtml.detect import EncodingMatch

LOOK = 1 << 16  # bytes that statistics look at: they take 0.3 s a MB
ESCAPES = (
    (b"\x1b$)C", "iso-2022-kr"),
    (b"\x1b$)A", REFUSED),  # ISO-2022-CN
    (b"\x1b$)G", REFUSED),
    (b"\x1b$B", "iso-2022-jp"),
    (b"\x1b$@", "iso-2022-jp"),
    (b"\x1b(J", "iso-2022-jp"),
    (b"\x1b(I", "iso-2022-jp"),
)
# Typography of windows-1252 that stands in English too: quotes, dashes, bullets, spaces, signs of money, measure and law.
TYPOGRAPHY = bytes((0x80, 0x82, 0x84, 0x85, 0x8B, *range(0x91, 0x98), 0x99, 0x9B, 0xA0, 0xA3, 0xA7, 0xA9, 0xAB, 0xAD, 0xAE))
TYPOGRAPHY += bytes((*range(0xB0, 0xB4), 0xB7, *range(0xBB, 0xBF), 0xD7))
POLISH = b"\xa3\xb3"  # Ł and ł in windows-1250 and ISO-8859-2
ASCII = bytes(range(128))
BELOW_2000 = bytes(range(0x20))
ROWS = re.compile(rb"[\x80-\xff]{8,}")
POUND = re.compile(rb"(?<![\x80-\xff])\xa3(?=[ .]?[0-9])")  # statistics alone take it for the Ł of windows-1250
HIGH = re.compile(rb"[\x80-\xff]")
# Russian words in x-mac-cyrillic: a capital at 0x80 to 0x9F, then small letters, of which я is 0xDF (0xFF in windows-1251).
MAC_WORD = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\x9f]?[\xdf\xe0-\xfe]{2,}(?![A-Za-z\x80-\xff])")
MAC_CAPITAL = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\x9f][\xdf\xe0-\xfe]")
TOP_LEVEL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*\.([a-z][a-z0-9-]*)\.?(?::\d*)?(?:[/?#]|$)", re.IGNORECASE)


def by_nuls(body: bytes) -> str | None:
    """Return UTF-16 or UTF-32 and its order of bytes for a body without a byte order mark, or None.

    ASCII, which every page has, leaves NUL bytes at every second or fourth place. The body must be well-formed in the encoding
    (a cut last character is) and have no NUL character.
    """
    places = [body[place::4].count(0) for place in range(4)]
    units = max(len(body) // 4, 1)
    if len(body) >= 4:
        for name, high in (("utf-32le", places[3]), ("utf-32be", places[0])):
            if high >= units and _whole(body, name, 4) is not None:
                return name
    odd, even = places[1] + places[3], places[0] + places[2]
    for name, ascii_, other in (("utf-16le", odd, even), ("utf-16be", even, odd)):
        if ascii_ * 100 < len(body) // 2:
            continue
        text = _whole(body, name, 2)
        # 一, the most frequent of all Chinese characters, is U+4E00.
        if text is not None and ascii_ > 3 * (other - text.count("一")) and _is_alphabetic(body, name):
            return name
    return None


def _whole(body: bytes, name: str, unit: int) -> str | None:
    """Return the text, without a cut last character, of what is well-formed and has no NUL."""
    try:
        text = body[: len(body) // unit * unit].decode(name.replace("le", "-le").replace("be", "-be"))
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return None
        text = body[: error.start].decode(name.replace("le", "-le").replace("be", "-be"))
    return None if "\0" in text else text


def _is_alphabetic(body: bytes, name: str) -> bool:
    """Return whether the high bytes of UTF-16 are those of alphabets (below U+2000), or the body could not be UTF-8 instead."""
    high = body[1::2] if name == "utf-16le" else body[::2]
    if len(high.translate(None, BELOW_2000)) * 10 <= len(high):
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return True
    return False


def by_escapes(body: bytes) -> str | None:
    """Return the ISO 2022 encoding whose escape sequence comes first in a body of seven bits, or None.

    Those of Korea and China shift with 0x0E besides.
    """
    if b"\x1b" not in body or not body.isascii():
        return None
    found = [(at, name) for escape, name in ESCAPES if (at := body.find(escape)) >= 0]
    name = min(found)[1] if found else None
    return name if name == "iso-2022-jp" or b"\x0e" in body else None


def by_statistics(body: bytes, url: str | None, truncated: bool) -> str | None:
    """Return the name of a legacy encoding that something speaks for, or None.

    The top-level domain of `url` is a hint, as it is in browsers. Asked of bytes that are not UTF-8.
    """
    from turbohtml.detect import Detection, detect

    first = HIGH.search(body)
    if first is None:
        return None
    begin = max(first.start() - 64, 0)
    sample = POUND.sub(b"GBP", body[begin : begin + LOOK])
    if not sample.translate(None, ASCII + TYPOGRAPHY.translate(None, POLISH)):
        return "windows-1252"
    host = TOP_LEVEL.match(url or "")
    options = Detection(excluded=frozenset({UTF8.upper()}), tld=host[1].lower() if host else None)
    # A cut last character rules the right encoding out. What the page declares was asked before: blanks keep the library from
    # asking again.
    cuts = range(4 if truncated or begin + LOOK < len(body) else 1)
    matches = [detect(b" " * 1024 + sample[: len(sample) - cut], options) for cut in cuts]
    match = max(matches, key=lambda found: (_name(found) in EAST_ASIAN, found.confidence))
    name = _name(match)
    if name not in EAST_ASIAN and _is_mac(sample):  # the library knows this encoding, but never names it
        return "x-mac-cyrillic"
    if not match.confidence and (name != "windows-1252" or sample.translate(None, ASCII + TYPOGRAPHY)):
        return None
    return None if _is_monotonous(sample) else name or None


def _name(match: EncodingMatch) -> str:
    return (match.encoding or "").lower()


def _is_monotonous(sample: bytes) -> bool:
    """Return whether what is not ASCII are a few bytes, again and again in long rows, as in no language."""
    rows = ROWS.findall(sample)
    return bool(rows) and len(set(b"".join(rows))) < 5


def _is_mac(sample: bytes) -> bool:
    """Return whether most of what is not ASCII are Russian words in x-mac-cyrillic, some of them with a capital."""
    letters = sum(map(len, MAC_WORD.findall(sample)))
    high = len(sample.translate(None, ASCII))
    return letters * 10 >= high * 7 and sample.count(0xDF) > sample.count(0xFF) and MAC_CAPITAL.search(sample) is not None
