"""An HTTP response as archives store it: its status, the headers that say how to read its body, and the body.

Reads a record's block. Status lines and headers are taken as servers send them, not as RFC 9112 wants them: in any case, with
bare line feeds, continued lines, lines without a colon, without a blank before the reason, or cut before the body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gristmill.archives.heads import BLANK, names, read_fields

HEAD = 256 << 10  # bytes of headers; browsers stop there too
FIELDS = names("content-type", "transfer-encoding", "content-encoding")
STATUS = re.compile(rb"\s{0,64}(?:HTTP(?:[ \t]*/[ \t]*[\w.]{0,8}|\d\.\d)?|ICY|h[23])[ \t]+(\d{3})(?!\d)", re.IGNORECASE)


@dataclass(slots=True)
class Response:
    """A response whose codings are not undone; `media`, `transfer` and `content` are the values of header lines."""

    status: int
    media: str
    transfer: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    body: bytes = b""


def is_response(block: bytes) -> bool:
    """Tell whether a block begins with an HTTP status."""
    return STATUS.match(block) is not None


def parse(block: bytes) -> Response | None:
    """Return the response in a block, or None where it does not begin with an HTTP status."""
    status = STATUS.match(block)
    if status is None:
        return None
    blank = BLANK.search(block, status.end(), HEAD)
    head = block[status.start() : blank.start() if blank else HEAD].lstrip()
    fields = read_fields(head, FIELDS)
    return Response(
        int(status[1]),
        ",".join(fields.get("content-type", [])),
        fields.get("transfer-encoding", []),
        fields.get("content-encoding", []),
        block[blank.end() :] if blank else b"",
    )
