"""Bytes of a page to text, as browsers read them (WHATWG Encoding), where the page can be believed.

What is asked, in order: byte order mark; NUL bytes of UTF-16 and UTF-32; charset of the HTTP header; `<meta>` or XML declaration
(see `prescan`); UTF-8; escapes and statistics (see `guess`). U+FFFD stands for bytes that the encoding does not have.

Judgements that browsers do not make, because servers and editors are often wrong about text that is sound:

- Bytes that are UTF-8 with characters beyond ASCII win over a label of a single-byte encoding (Apache's default charset), also
  with a bad one among ten. By chance such bytes are no UTF-8. They lose to an East Asian label that reads all of them.
- A label is not believed when much of what is not ASCII cannot be read by it: for UTF-8, more errors than characters; for the
  others, more than one error in ten characters. Then the next is asked. If nothing speaks for any, the label is taken after all.
- Nothing is made up: statistics name an encoding only where the bytes speak for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gristmill.charset.encodings import EAST_ASIAN, REFUSED, REPLACEMENT, UTF8, WIDE, named, read
from gristmill.charset.guess import by_escapes, by_nuls, by_statistics
from gristmill.charset.prescan import late, may_declare, prescan

MAX_REPLACED = 0.05  # share of a text's characters
MARKS = {
    b"\xef\xbb\xbf": UTF8,
    b"\xff\xfe\x00\x00": "utf-32le",  # as UTF-16, which browsers take it for, the text would begin with a NUL
    b"\x00\x00\xfe\xff": "utf-32be",
    b"\xff\xfe": "utf-16le",
    b"\xfe\xff": "utf-16be",
}
# What is ASCII without these says the same in every encoding: NUL of UTF-16, escapes of ISO 2022 and of HZ.
SHIFTS = (b"\0", b"\x1b", b"~{")
# U+FFFD, and what no text has: "binary data bytes" of WHATWG MIME Sniffing, DEL, C1 controls without the line end U+0085.
UNREADABLE = re.compile("[\0-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f\ufffd]")

CUT_ESCAPE = re.compile("\ufffd[$(\ufffd]?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """What bytes say: their text and the encoding that it was read in, or no text and the reason (`undecodable`).

    `encoding` is the name that the standard gives it, in lower case. `unreadable`: how many of so many `characters` are U+FFFD or
    no text, counted where there may be any; both are 0 where there are none.
    """

    text: str | None
    encoding: str
    drop: str | None = None
    unreadable: int = 0
    characters: int = 0


@dataclass(frozen=True)
class _Reading:
    """A body read in one encoding."""

    name: str
    body: bytes

    @cached_property
    def text(self) -> str:
        return read(self.name, self.body)

    @cached_property
    def errors(self) -> int:
        """How often U+FFFD stands for bytes."""
        found = self.text.count(REPLACEMENT)
        return found - self.body.count(REPLACEMENT.encode()) if self.name == UTF8 else found

    @cached_property
    def characters(self) -> int:
        """How many characters beyond ASCII were read."""
        return len(self.text) - len(self.text.encode("ascii", "ignore")) - self.errors

    @property
    def is_certain(self) -> bool:
        return self.errors * 10 <= self.characters

    @property
    def is_believable(self) -> bool:
        if self.name == UTF8:
            return self.errors <= max(1, self.characters)
        if self.name in WIDE:  # almost any bytes are characters of it; a text has spaces or line ends too
            return self.errors <= 1 and b"\0" in self.body and "\0" not in self.text
        return self.errors <= 1 or self.is_certain


def decode(
    body: bytes,
    declared: str | None,
    markup: bool,
    *,
    truncated: bool = False,
    max_replaced: float = MAX_REPLACED,
    url: str | None = None,
) -> Decoded:
    """Return the text of `body` without its byte order mark, or why there is none.

    Args:
        body: the bytes.
        declared: the charset of the HTTP header.
        markup: whether the body is asked too what it is.
        truncated: the body is known to end too early: what is left of a character at its end is left out.
        max_replaced: the share of U+FFFD and control characters up to which a text is one; a single one never matters.
        url: where the body was found: the top-level domain is a hint where nothing is declared.
    """
    sound = _sound(body, truncated)
    if sound is not None and sound.isascii() and not any(shift in body for shift in SHIFTS):
        return Decoded(text=sound, encoding=UTF8)
    header = named(declared) if declared else None
    name, text = _marked(body) or _chosen(body, sound, header, markup, url, truncated)
    text = text.removeprefix("\ufeff")
    if truncated:
        text = CUT_ESCAPE.sub("", text) if name == "iso-2022-jp" else text.removesuffix(REPLACEMENT)
    if text is sound and "\0" not in text and REPLACEMENT not in text:
        return Decoded(text=text, encoding=name)
    content = text.strip("\0")  # NULs pad pages
    found = len(content) - len(UNREADABLE.sub("", content))
    if _is_unreadable(found, content, max_replaced) or (content == "" and text != ""):
        return Decoded(text=None, encoding=name, drop="undecodable", unreadable=found, characters=len(content))
    return Decoded(text=text, encoding=name, unreadable=found, characters=len(content))


def check_share(max_replaced: float) -> None:
    """Raise ValueError for a bound that is no share."""
    if not 0 <= max_replaced <= 1:
        raise ValueError(f"max_replaced is {max_replaced}; allowed are shares of a text's characters, 0 to 1")


def _sound(body: bytes, truncated: bool) -> str | None:
    """Return the text of UTF-8 without an error but a cut last character; None for anything else."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            return None
        text = body[: error.start].decode()
        # One stray byte at the end of ASCII is no evidence of UTF-8.
        return text + REPLACEMENT if truncated or not text.isascii() else None


def _marked(body: bytes) -> tuple[str, str] | None:
    for mark, name in MARKS.items():
        if body.startswith(mark):
            return name, read(name, body)
    return None


def _declared(body: bytes, header: str | None, markup: bool) -> Iterator[str]:
    """Yield the encodings that are declared, first of all by the header. Nothing is asked before it is needed."""
    if header is not None:
        yield header
    within = prescan(body) if markup else None
    if markup and header is None:
        within = late(body) or within  # an element that is met in parsing corrects what only looked like one
    if within is not None:
        yield within


def _chosen(
    body: bytes, sound: str | None, header: str | None, markup: bool, url: str | None, truncated: bool
) -> tuple[str, str]:
    """Return the encoding of a body without a byte order mark, and its text in it."""
    name = by_nuls(body) if b"\0" in body else None
    if name is not None:
        return name, read(name, body)
    escaped = by_escapes(body)
    if escaped is not None and ((reading := _Reading(escaped, body)).is_certain or escaped == REFUSED):
        return escaped, reading.text
    if sound is None:
        reading = _unsound(body, _declared(body, header, markup), url, truncated)
        return reading.name, reading.text
    label = header
    if header != UTF8 and header not in EAST_ASIAN and markup and may_declare(body, EAST_ASIAN):
        label = next(_declared(body, None, markup), None)
    if label is not None and label in EAST_ASIAN:
        reading = _Reading(label, body)
        if not reading.errors:
            return label, reading.text
    return UTF8, sound


def _unsound(body: bytes, labels: Iterator[str], url: str | None, truncated: bool) -> _Reading:
    """Return the best reading of bytes that are not UTF-8 throughout."""
    unicode = _Reading(UTF8, body)
    fallback = None
    for label in labels:
        if label == REFUSED:
            continue
        reading = unicode if label == UTF8 else _Reading(label, body)
        if label not in EAST_ASIAN and unicode.is_certain:
            return unicode
        if reading.is_believable:
            return reading
        if label not in WIDE:
            fallback = fallback or reading
    if unicode.errors <= unicode.characters:
        return unicode
    guess = by_statistics(body, url, truncated)
    if guess is not None and (reading := _Reading(guess, body)).is_believable:
        return reading
    return fallback or unicode


def _is_unreadable(found: int, body: str, share: float) -> bool:
    """Tell whether so many characters of a text are too many: a single one never is, unless there is no other."""
    return found > max(1.0, share * len(body)) or 0 < found == len(body.strip())
