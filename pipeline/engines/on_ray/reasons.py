"""Why something failed on Ray, in one line for people: Ray's own texts are tracebacks in colours, the reason at their end."""

from __future__ import annotations

import re

from ray.exceptions import RayTaskError

REASON_CHARS = 500

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LAST = re.compile(r"^(?P<kind>(?:\w+\.)*[A-Z]\w*): ?(?P<message>.*)$")  # how a traceback ends
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = "direct cause of the following exception"


def reason(error: BaseException) -> str:
    """Return why something failed as `Kind: what it said`, on one line of at most 500 characters.

    Of an error that a task raised that is the task's own, with the first of its causes, not Ray's wrapping.
    """
    whole = _COLOURS.sub("", str(error))
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    text = _COLOURS.sub("", str(error))
    # Its text may be a traceback that Ray made of something else.
    line = _ends(text)[-1:] if _TRACEBACK in text or isinstance(error, RayTaskError) else []
    said = line[0] if line else _line(type(error).__name__, text)
    causes = _ends(whole) if _CHAINED in whole else []
    if causes and causes[0] != said:
        said = f"{said}, because of {causes[0]}"
    return said if len(said) <= REASON_CHARS else said[: REASON_CHARS - 1] + "…"


def _ends(text: str) -> list[str]:
    """Return the exceptions with which the tracebacks in a text end."""
    found = (_LAST.match(line) for line in text.splitlines())
    return [_line(each["kind"].rsplit(".", 1)[-1], each["message"]) for each in found if each is not None]


def _line(kind: str, message: str) -> str:
    return " ".join(f"{kind}: {message}".split()).rstrip(": ")
