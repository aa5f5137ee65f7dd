"""Text without what steers a terminal. Pure functions; they read and write nothing.

Pages, URLs and the names of files are written by strangers. A terminal obeys some characters (ECMA-48's escape sequences set
titles, move the cursor, fill the clipboard) and shows others in another order than they stand (Unicode's UAX 9, "Trojan Source").
"""

from __future__ import annotations

import re

# C0 but for tab and new line, DEL, C1; what directs writing: marks, embeddings, overrides, isolates; line ends; lone surrogates.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LINES = re.compile("[\t\n]")


def visible(text: str) -> str:
    """Return a text in which nothing steers a terminal: such characters as `\\x1b` or `\\u202e`; tabs and new lines stay."""
    return STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a text for a part of a line: as `visible`, with tabs and new lines as `\\t` and `\\n`."""
    return LINES.sub(lambda found: "\\t" if found[0] == "\t" else "\\n", visible(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
