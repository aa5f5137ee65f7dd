"""The door to the terminal: all that a command prints passes here.

Pages, URLs and the names of files are written by strangers. A terminal obeys some characters (ECMA-48's escape sequences
set titles, move the cursor, fill the clipboard) and shows others in another order than they stand (Unicode's UAX 9, "Trojan
Source"). Here such characters become visible, `\\x1b` or `\\u202e`, secrets in URLs become `***`, and what is there to be pasted
into a shell is quoted.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from typing import Any, TextIO

from gristmill.secrets import masked

# C0 but for tab and new line, DEL, C1; what directs writing: marks, embeddings, overrides, isolates; line ends; lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINES = re.compile("[\t\n]")


def visible(text: str) -> str:
    """Return a text in which nothing steers a terminal; tabs and new lines stay."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a text for a part of a line: as `visible`, with tabs and new lines as `\\t` and `\\n`."""
    return _LINES.sub(lambda found: "\\t" if found[0] == "\t" else "\\n", visible(text))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print lines for people, to standard output where no file is named; secrets in URLs are masked."""
    show(masked(text), file=file)


def show(text: str, *, file: TextIO | None = None) -> None:
    """Print lines that hold a crawl's own URLs, as they were crawled."""
    print(visible(text), file=file, flush=file is not None)


def tell(text: str) -> None:
    """Print lines for people to standard error."""
    say(text, file=sys.stderr)


def show_json(value: Any, *, allow_nan: bool = True) -> None:  # noqa: ANN401 - JSON
    """Print plain data as one line of JSON, in which such characters are escaped as JSON escapes them."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=allow_nan)
    print(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def quoted(argument: str) -> str:
    """Return an argument as a POSIX shell takes it, and one that begins with `-` as a path that is no option.

    What cannot be seen or has a line's end is spelled in bytes, `$'\\x1b'`, which bash, zsh and ksh know.
    """
    if argument.startswith("-"):
        argument = f"./{argument}"
    if not (_UNSAFE.search(argument) or _LINES.search(argument)):
        return shlex.quote(argument)
    return "$'" + "".join(map(_spelled, argument)) + "'"


def _spelled(character: str) -> str:
    if character in "'\\!" or _UNSAFE.match(character) or _LINES.match(character):
        escaped = "\udc80" <= character <= "\udcff"  # a byte of a name that is not UTF-8
        return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape" if escaped else "surrogatepass"))
    return character


def command(name: str, *arguments: str) -> str:
    """Return `python -m jobs NAME ARGUMENTS`, to be pasted into a shell."""
    return " ".join(["python -m jobs", name, *map(quoted, arguments)])
