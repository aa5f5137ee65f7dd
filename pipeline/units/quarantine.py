"""What is on record about a document in quarantine: the kind of its error, for counting, and one short line, for people.

Whoever refuses a document writes `kind: detail` into its `error`. The kind is one snake_case word of a small set, or the name of
the class of an exception that a library raised; numbers, names and pieces of data belong into the detail. Here that is
enforced for all stages alike, so that a report counts kinds, and no page, however long or hostile, stands in a record.
"""

from __future__ import annotations

import re
import unicodedata

MESSAGE_CHARS = 200  # of kind and detail together
KIND_CHARS = 60
UNKNOWN = "error"  # the kind of a message that names none

# Not a bare colon: that of an address (http://) ends no kind.
_KIND = re.compile(r"(?P<kind>[a-z]+[a-z0-9]*(?:_[a-z]+[a-z0-9]*)*|[A-Z][A-Za-z0-9]*)(?:: |:?$)")
# The same document gives the same record in every process.
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,16}\b")
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, format (the bidi marks), surrogates, separators of lines


def reason_of(message: str) -> tuple[str, str]:
    """Return the kind of an error message of the form `kind: detail`, and the message as it is kept.

    A message without a kind gets `error`. What is kept has at most 200 characters (an ellipsis tells that there were more), on
    one line, without characters that are not seen.
    """
    line = _line(message)
    found = _KIND.match(line)
    if found is None or len(found["kind"]) > KIND_CHARS:
        return UNKNOWN, _cut(f"{UNKNOWN}: {line}")
    return found["kind"], _cut(line.removesuffix(":"))


def reason_of_exception(error: BaseException) -> tuple[str, str]:
    """Return the kind of an exception, the name of its class, and the message as it is kept: see `reason_of`."""
    kind = type(error).__name__
    message = _line(str(error))
    return kind, _cut(f"{kind}: {message}" if message else kind)


def _line(message: str) -> str:
    # Four times as many as are kept: white space folds.
    start = _ADDRESS.sub("0x…", message[: 4 * MESSAGE_CHARS])
    spaced = " ".join(start.split()) + ("…" if len(message) > 4 * MESSAGE_CHARS else "")
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSEEN else c for c in spaced)


def _cut(line: str) -> str:
    return line if len(line) <= MESSAGE_CHARS else line[: MESSAGE_CHARS - 1] + "…"
