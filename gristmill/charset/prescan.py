"""What a page says of its own encoding: `<meta>` elements and XML declarations.

`prescan` reads the first 1,024 bytes as browsers do before they parse (WHATWG HTML, "prescan a byte stream to determine its
encoding" and "get an XML encoding"); `late` finds a `<meta>` that stands behind them, as browsers do while they parse.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from gristmill.charset.encodings import UTF8, WIDE, named

PRESCAN = 1024  # bytes, as browsers do
LATE = 1 << 16  # bytes in which a later <meta> is looked for: the head of a page ends long before
BLANK = rb"\t\n\f\r "
TAG = re.compile(rb"<(?:(!--)|(meta)[%b/]|(/?[a-z])|[!/?])" % BLANK, re.IGNORECASE)
NAME_END = re.compile(rb"[%b>]" % BLANK)
BEFORE = re.compile(rb"[%b/]*" % BLANK)
ATTRIBUTE = re.compile(rb"([^%b/>][^%b/>=]*)[%b]*(=?)[%b]*" % (BLANK, BLANK, BLANK, BLANK))
BARE = re.compile(rb"[^%b>]*" % BLANK)
CHARSET = re.compile(rb"charset[%b]*=[%b]*(?:\"([^\"]*)\"|'([^']*)'|([^\"'%b;][^%b;]*))?" % ((BLANK,) * 4), re.IGNORECASE)
XML = re.compile(rb"[%b]*<\?xml[^>]*?encoding[\0-\x20]*=[\0-\x20]*(?:\"([^\"\0-\x20]*)\"|'([^'\0-\x20]*)')[^>]*>" % BLANK)
MENTION = re.compile(rb"(?:charset|encoding)[\0-\x20]*=[\0-\x20\"']*([^\0-\x20\"';>]+)", re.IGNORECASE)


class _End(Exception):
    """The bytes to look at ended within a tag."""


def prescan(body: bytes) -> str | None:
    """Return the name of the encoding that the first 1,024 bytes of a page declare, or None."""
    head = body[:PRESCAN]
    try:
        said = _meta(head)
    except _End:
        said = None
    if said is None and (match := XML.match(head)):
        said = _ascii(named((match[1] or match[2] or b"").decode("latin-1")))
    return said


def may_declare(body: bytes, names: Container[str]) -> bool:
    """Return whether `prescan` could find one of these encodings: a tenth of its work, for all pages that declare UTF-8."""
    labels = set(MENTION.findall(body[:PRESCAN]))
    return any(named(label.decode("latin-1")) in names for label in labels)


def late(body: bytes) -> str | None:
    """Return the encoding of the first `<meta>` that declares one in the first 64 KiB, found by parsing them, or None."""
    import turbohtml

    page = turbohtml.parse(body[:LATE])
    return _ascii((page.encoding or "").lower() or None) if page.encoding_confidence == "certain" else None


def _meta(head: bytes) -> str | None:
    """Return the encoding of the first `<meta>` that declares a known one. Raises _End."""
    at = 0
    while (tag := TAG.search(head, at)) is not None:
        if tag[1]:  # a comment: its `--` may be those of its end too
            at = _after(head, b"-->", tag.start() + 2)
        elif tag[2]:
            said, at = _declaration(head, tag.end() - 1)
            if said is not None:
                return said
        elif tag[3]:
            end = NAME_END.search(head, tag.end())
            if end is None:
                raise _End
            begin = end.start()
            at = max((after for _, _, after in _attributes(head, begin)), default=begin)
        else:
            at = _after(head, b">", tag.start())
    return None


def _declaration(head: bytes, at: int) -> tuple[str | None, int]:
    """Return what the attributes from `at` on declare, and where they end."""
    seen: set[bytes] = set()
    pragma, needs_pragma, decided, said, end = False, False, False, None, at
    for name, value, end in _attributes(head, at):  # noqa: B007 - the last is where they end
        if name in seen:
            continue
        seen.add(name)
        if name == b"http-equiv":
            pragma = value.lower() == b"content-type"
        elif name == b"content" and not decided:
            found = _in_content(value)
            if found is not None:
                said, needs_pragma, decided = found, True, True
        elif name == b"charset":
            said, needs_pragma, decided = named(value.decode("latin-1")), False, True
    return (_ascii(said) if pragma or not needs_pragma else None), end


def _in_content(value: bytes) -> str | None:
    """See "algorithm for extracting a character encoding from a meta element"."""
    match = CHARSET.search(value)
    label = match and next((part for part in match.groups() if part is not None), None)
    return named(label.decode("latin-1")) if label else None


def _attributes(head: bytes, at: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield (name in lower case, value, where it ends) for each attribute from `at` to the end of the tag. Raises _End."""
    while True:
        at = _match(BEFORE, head, at).end()
        if at == len(head):
            raise _End
        if head[at : at + 1] == b">":
            return
        found = _match(ATTRIBUTE, head, at)
        name, at, value = found[1].lower(), found.end(), b""
        if at == len(head):
            raise _End
        if found[2]:
            quote = head[at : at + 1]
            if quote in (b'"', b"'"):
                end = _after(head, quote, at + 1)
                value, at = head[at + 1 : end - 1], end
            else:
                value = _match(BARE, head, at)[0]
                at += len(value)
                if at == len(head):
                    raise _End
        yield name, value, at


def _after(head: bytes, what: bytes, at: int) -> int:
    found = head.find(what, at)
    if found < 0:
        raise _End
    return found + len(what)


def _match(pattern: re.Pattern[bytes], head: bytes, at: int) -> re.Match[bytes]:
    match = pattern.match(head, at)
    assert match is not None, "the pattern matches nothing at all too"
    return match


def _ascii(name: str | None) -> str | None:
    """Return what a declaration means that was itself read as ASCII: it cannot be true of UTF-16."""
    if name in WIDE:
        return UTF8
    return "windows-1252" if name == "x-user-defined" else name
