"""What encoding bytes are in by what they look like: NUL bytes of UTF-16 and UTF-32, escapes of ISO 2022, statistics.

Statistics are those of Firefox (chardetng, as turbohtml carries it). They always name something; a guess counts only when
something speaks for it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from gristmill.charset.encodings import EAST_ASIAN, REFUSED, REPLACEMENT, UTF8, read

if TYPE_CHECKING:
    from turbohtml.detect import Detection, EncodingMatch

LOOK = 1 << 15  # bytes that statistics look at: they take 0.3 s a MB
FAR = 1 << 22  # bytes in which those are looked for
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
BOUNDARY = re.compile(rb"[\n >]")  # no trail byte of any encoding
STRAY = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\xff](?![A-Za-z\x80-\xff])")
EAST = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
TOUCHING = re.compile(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][A-Za-z]")
MARKUP = re.compile(rb"<(?:html|head|body|div|/?p>|!doctype|!--)", re.IGNORECASE)
POUND = re.compile(rb"(?<![\x80-\xff])\xa3(?=[ .]?[0-9])")  # statistics alone take it for the Ł of windows-1250
LONG_ASCII = re.compile(rb"[\0-\x7f]{256,}")
# Russian words in x-mac-cyrillic: a capital at 0x80 to 0x9F, then small letters, of which я is 0xDF (0xFF in windows-1251).
MAC_WORD = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\x9f]?[\xdf\xe0-\xfe]{2,}(?![A-Za-z\x80-\xff])")
MAC_CAPITAL = re.compile(rb"(?<![A-Za-z\x80-\xff])[\x80-\x9f][\xdf\xe0-\xfe]")
TOP_LEVEL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*\.([a-z][a-z0-9-]*)\.?(?::\d*)?(?:[/?#]|$)", re.IGNORECASE)


def by_nuls(body: bytes) -> str | None:
    """Return UTF-16 or UTF-32 and its order of bytes for a body without a byte order mark, or None.

    ASCII, which every page has, leaves NUL bytes at every second or fourth place. The body must be well-formed in the encoding
    (a cut last character is), without a NUL character and without the markup of an encoding of bytes.
    """
    places = [body[place::4].count(0) for place in range(4)]
    units = max(len(body) // 4, 1)
    if len(body) >= 4:
        for name, high in (("utf-32le", places[3]), ("utf-32be", places[0])):
            if high >= units and _whole(body, name, 4) is not None:
                return name
    if MARKUP.search(body):
        return None
    odd, even = places[1] + places[3], places[0] + places[2]
    for name, zeros, others in (("utf-16le", odd, even), ("utf-16be", even, odd)):
        text = _whole(body, name, 2) if zeros else None
        if text is not None and (_is_east_asian(body, text) or (zeros > 3 * others and _is_alphabetic(body, name, zeros))):
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


def _is_east_asian(body: bytes, text: str) -> bool:
    """Return whether what UTF-16 says beyond ASCII is nearly all East Asian, and the bytes are not ASCII."""
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    return len(body.translate(None, ASCII)) * 8 >= beyond and len(EAST.findall(text)) * 100 >= beyond * 97 and beyond > 0


def _is_alphabetic(body: bytes, name: str, zeros: int) -> bool:
    """Return whether the high bytes of UTF-16 are those of alphabets (below U+2000), or the body could not be UTF-8 instead."""
    high = body[1::2] if name == "utf-16le" else body[::2]
    if len(high.translate(None, BELOW_2000)) * 10 <= len(high):
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return zeros * 50 >= len(high)
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
    from turbohtml.detect import Detection

    sample = _sample(body)
    if sample.isascii():
        return None
    whole = len(sample) < LOOK and not truncated
    if _is_monotonous(sample):
        return None
    if not sample.translate(None, ASCII + TYPOGRAPHY.translate(None, POLISH)):
        return "windows-1252"
    host = TOP_LEVEL.match(url or "")
    options = Detection(excluded=frozenset({UTF8.upper()}), tld=host[1].lower() if host else None)
    # A cut last character rules the right encoding out.
    matches = [_detect(sample[: len(sample) - cut], options) for cut in range(1 if whole else 4)]
    match = max(matches, key=lambda found: (_name(found) in EAST_ASIAN, found.confidence))
    name = _name(match)
    if name not in EAST_ASIAN and _is_mac(sample):  # the library knows this encoding, but never names it
        return "x-mac-cyrillic"
    better = _by_parts(sample, options)
    if better is not None and better != name:
        return better
    if not match.confidence and (name != "windows-1252" or sample.translate(None, ASCII + TYPOGRAPHY)):
        return None
    return name or None


def _sample(body: bytes) -> bytes:
    """Return what is not ASCII with what stands about it, up to LOOK bytes, at the end of which a character may be cut."""
    sample = LONG_ASCII.sub(lambda found: found[0][:64] + b" " + found[0][-64:], body[:FAR])
    return POUND.sub(b"GBP", sample)[:LOOK]


def _by_parts(sample: bytes, options: Detection) -> str | None:
    """Return the encoding of most parts of a sample, if the whole has a byte that it does not read.

    One bad byte rules an encoding out, but of one part alone.
    """
    votes: Counter[str] = Counter()
    for part in _parts(STRAY.sub(b"", sample)):
        match = _detect(part, options)
        if match.confidence:
            votes[_name(match)] += len(part.translate(None, ASCII))
    if not votes:
        return None
    name, count = votes.most_common(1)[0]
    bad = read(name, sample).count(REPLACEMENT)
    return name if bad and count * 10 >= votes.total() * 7 else None


def _parts(sample: bytes) -> list[bytes]:
    """Cut a sample into up to eight parts with bytes beyond ASCII, where no character can be cut."""
    places = [place.end() for place in BOUNDARY.finditer(sample)]
    wanted = [len(sample) * part // 8 for part in range(1, 8)]
    cuts = sorted({places[at] for at in (bisect_left(places, want) for want in wanted) if at < len(places)})
    parts = [sample[begin:end] for begin, end in pairwise((0, *cuts, len(sample)))]
    return [part for part in parts if not part.isascii()]


def _detect(sample: bytes, options: Detection) -> EncodingMatch:
    from turbohtml.detect import detect

    # What the page declares was asked before: blanks keep the library from asking again.
    return detect(b" " * 1024 + sample, options)


def _name(match: EncodingMatch) -> str:
    return (match.encoding or "").lower()


def _is_monotonous(sample: bytes) -> bool:
    """Return whether what is not ASCII are a few bytes again and again, in long rows or as words, as in no language."""
    rows = b"".join(ROWS.findall(sample))
    if rows and len(set(rows)) < 5:
        return True
    high = sample.translate(None, ASCII + TYPOGRAPHY)
    return len(high) >= 20 and len(set(high)) < 5 and TOUCHING.search(sample) is None


def _is_mac(sample: bytes) -> bool:
    """Return whether most of what is not ASCII are Russian words in x-mac-cyrillic, some of them with a capital."""
    letters = sum(map(len, MAC_WORD.findall(sample)))
    high = len(sample.translate(None, ASCII))
    return letters * 10 >= high * 7 and sample.count(0xDF) > sample.count(0xFF) and MAC_CAPITAL.search(sample) is not None
