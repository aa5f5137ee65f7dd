"""What a response holds: by the type its server names, and where that says nothing by its first bytes.

Reads the value of `Content-Type` and the body; returns `text/html` or `text/plain`, or None for what is no text. Follows the
WHATWG MIME Sniffing standard (7.1, "rules for identifying an unknown MIME type") and says where it does not.
"""

from __future__ import annotations

import re

from gristmill.charset.encodings import read
from gristmill.charset.guess import by_nuls

HTML, PLAIN = "text/html", "text/plain"
XHTML = frozenset({"application/xhtml+xml", "application/vnd.wap.xhtml+xml"})
XML = frozenset({"application/xml", "text/xml"})
SNIFFED = 1445  # bytes that are looked at, as the standard says
TYPE = re.compile(r"[\s\"']*([!#$&^_.+a-z0-9-]+/[!#$&^_.+a-z0-9-]+)[\s\"']*(?=[;\s\"']|$)", re.IGNORECASE)
QUOTED = re.compile(r"=\s*\"[^\"]*\"")  # a parameter's value, which may hold commas
UNKNOWN = frozenset({"unknown/unknown", "application/unknown"})
MARKS = (b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf")
# MIME Sniffing 7.1, and the other elements that begin the pages of people who leave out <html>. The standard wants a blank or
# `>` behind the name; line ends and `/` are as good.
PAGE = re.compile(
    rb"[\t\n\f\r ]*<(?:!--|(?:!doctype[\t\n\f\r ]+html|html|head|script|iframe|h[1-6]|div|font|table|a|style|title|b|body|br|p"
    rb"|meta|link|base|center|ul|ol|dl|pre|span|section|article|main|header|nav|noscript|frameset|form|img|hr|i|em|strong"
    rb"|blockquote)[\t\n\f\r />])",
    re.IGNORECASE,
)
PROLOG = re.compile(rb"[\t\n\f\r ]*<\?xml[\t\n\f\r ][^>]{0,1000}>(?:[\t\n\f\r ]*<\?[^>]{0,1000}>)*", re.IGNORECASE)
# Possessive: a comment that could end at each `-->` behind it makes two ways of each.
ROOT = re.compile(
    rb"(?:[\t\n\f\r ]|(?><!--.{0,2000}?-->)|(?><\?.{0,1000}?\?>)|<!doctype[^>]{0,1000}>)*+<([a-z][\w:.-]*)",
    re.IGNORECASE | re.DOTALL,
)
# MIME Sniffing 6: images, audio and video, fonts, archives; and what the unknown ones of 7.1 add.
BINARY = re.compile(
    rb"\s*%PDF-|%!PS-Adobe-|\x00\x00[\x01\x02]\x00|BM..\x00\x00..\x00\x00|GIF8[79]a|RIFF....(?:WEBPVP|WAVE|AVI )"
    rb"|\x89PNG\r\n\x1a\n"
    rb"|\xff\xd8\xff|FORM....AIFF|ID3[\x02-\x04]|OggS\x00|MThd\x00\x00\x00\x06|....ftyp|\x1a\x45\xdf\xa3|\x00\x01\x00\x00\x00"
    rb"|OTTO\x00|ttcf|wOF[F2]|\x1f\x8b\x08|PK\x03\x04|Rar[! ]\x1a\x07|7z\xbc\xaf|\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    rb"|[FCZ]WS[\x01-\x40]"
    rb"|\x28\xb5\x2f\xfd|BZh[1-9]1AY|\xfd7zXZ\x00|\x7fELF|\xca\xfe\xba\xbe",
    re.DOTALL,
)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # "binary data bytes", 3
MARKUP = re.compile(rb"<(?:[a-z!?]|/[a-z])", re.IGNORECASE)


def essence(content_type: str) -> str:
    """Return the last type that a `Content-Type` names, in lower case, '' where it names none that is known.

    As in the Fetch standard ("extract a MIME type"), lines and commas part several, and `*/*` is none. Blanks end a type as well
    as semicolons do, which the standard does not say.
    """
    found = ""
    for part in QUOTED.sub("=", content_type).split(","):
        match = TYPE.match(part)
        if match and match[1].lower() not in UNKNOWN:
            found = match[1].lower()
    return found


def media_of(content_type: str, body: bytes) -> str | None:
    """Return text/html, text/plain, an XHTML type where the rules of XML hold, or None for what is no text."""
    name = essence(content_type)
    if name == HTML:
        return None if _is_no_page(body) else HTML
    if name == PLAIN:
        return None if is_binary(body) else PLAIN
    if name in XHTML:
        return None if _is_no_page(body) else "application/xhtml+xml"
    if name in XML:
        return "application/xhtml+xml" if _is_xhtml(body) else None
    return None if name else _sniffed(body)


def begins_page(body: bytes) -> bool:
    """Tell whether a body begins as HTML does (MIME Sniffing 7.1)."""
    return PAGE.match(body.removeprefix(MARKS[2])) is not None


def is_binary(body: bytes) -> bool:
    """Tell whether bytes are no text: by their signature, or control characters near the beginning (MIME Sniffing 5, 7.2).

    Those of UTF-16 and UTF-32 are none.
    """
    head = body[:SNIFFED]
    if head.startswith(MARKS):
        return False
    return BINARY.match(head) is not None or (CONTROL.search(head) is not None and by_nuls(body) is None)


def _is_no_page(body: bytes) -> bool:
    """Tell whether what is served as HTML is a file of another kind, or noise without any markup."""
    head = body[:SNIFFED]
    if head.startswith(MARKS):
        return False
    return BINARY.match(head) is not None or (is_binary(body) and MARKUP.search(head) is None)


def _is_xhtml(body: bytes) -> bool:
    root = ROOT.match(body, 0, 8192)
    return root is not None and root[1].rpartition(b":")[2].lower() == b"html"


def _sniffed(body: bytes) -> str | None:
    """Return what a body without a usable type is (7.1); XML is a page where its root is `html`."""
    head = body[:SNIFFED]
    if head.startswith(MARKS[:2]):
        head = head.decode("utf-16", "ignore").encode("utf-8", "ignore")
    elif b"\0" in head and (name := by_nuls(body)) is not None:
        head = read(name, head).encode("utf-8", "ignore")
    head = head.removeprefix(MARKS[2])
    if prolog := PROLOG.match(head):
        return "application/xhtml+xml" if _is_xhtml(head[prolog.end() :]) else None
    if PAGE.match(head):
        return HTML
    return None if is_binary(body) else PLAIN
