"""The door to the terminal: all that a command prints passes here.

Characters of strangers that steer a terminal (`pipeline/visible.py`) become visible, `\\x1b` or `\\u202e`, secrets in URLs become
`***`, and what is there to be pasted into a shell is quoted.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TextIO

from gristmill.secrets import masked
from pipeline.visible import LINES, STEERING, one_line, visible

__all__ = ["command", "one_line", "quoted", "say", "show", "show_json", "tell", "visible"]


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print lines for people, to standard output where no file is named; secrets in URLs are masked."""
    show(masked(text), file=file)


def show(text: str, *, file: TextIO | None = None) -> None:
    """Print lines that hold a crawl's own URLs, as they were crawled."""
    print(visible(text), file=file, flush=file is not None)


def tell(text: str) -> None:
    """Print lines for people to standard error."""
    say(text, file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    tell(f"warning: {text}")


def show_json(value: object, *, allow_nan: bool = True) -> None:
    """Print plain data as one line of JSON, in which such characters are escaped as JSON escapes them."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)
    print(STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def quoted(argument: str) -> str:
    """Return an argument as a POSIX shell takes it, and one that begins with `-` as a path that is no option.

    What cannot be seen or has a line's end is spelled in bytes, `$'\\x1b'`, which bash, zsh and ksh know.
    """
    if argument.startswith("-"):
        argument = f"./{argument}"
    if not (STEERING.search(argument) or LINES.search(argument)):
        return shlex.quote(argument)
    return "$'" + "".join(map(_spelled, argument)) + "'"


def _spelled(character: str) -> str:
    if character in "'\\!" or STEERING.match(character) or LINES.match(character):
        escaped = "\udc80" <= character <= "\udcff"  # a byte of a name that is not UTF-8
        return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape" if escaped else "surrogatepass"))
    return character


def command(name: str, *arguments: str) -> str:
    """Return `python -m jobs NAME ARGUMENTS`, to be pasted into a shell."""
    return " ".join(["python -m jobs", name, *map(quoted, arguments)])
