"""XHTML pages as HTML: what the rules of XML say of `<script/>` and CDATA, said as an HTML parser understands it.

Reads and returns markup. By HTML's rules `<script/>` or `<title/>` begin an element that swallows the page to its next end tag,
and a CDATA section is a comment; by XML's rules, which hold for application/xhtml+xml (RFC 3236), the one is empty and the
other is text.
"""

from __future__ import annotations

import re
from html import escape

# https://html.spec.whatwg.org/#void-elements, and the obsolete ones that its parser treats alike
VOID = frozenset(
    re.findall(
        r"\w+",
        "area base basefont bgsound br col embed frame hr image img input keygen link meta param source track wbr",
    )
)
# Each alternative takes all that it looked at, so that no byte is looked at twice.
TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)|<!\[CDATA\[(?P<text>.*?)(?:\]\]>|\Z)|<\?.*?(?:\?>|\Z)"
    r"|<(?P<name>[A-Za-z_][\w:.-]*+)(?P<rest>(?:[^<>\"'/]++|/(?!>)|\"[^\"<]*+\"?+|'[^'<]*+'?+)*+)/>",
    re.DOTALL,
)


def as_html(markup: str) -> str:
    """Return the page with an end tag for each empty element that may have content, and the text of its CDATA sections."""
    return TOKEN.sub(_replaced, markup) if "/>" in markup or "<![CDATA[" in markup else markup


def _replaced(match: re.Match[str]) -> str:
    if match["text"] is not None:
        return escape(match["text"], quote=False)
    name = match["name"]
    if name is None or name.lower() in VOID:
        return match[0]
    return f"<{name}{match['rest'].rstrip()}></{name}>"
