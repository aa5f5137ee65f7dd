"""Patterns of paths to the files they name, in any storage that can list a folder.

Reads listings; writes nothing. Between two `/`, `*` stands for any characters, `?` for one, `[…]` for one of a set; `**` alone
stands for any number of folders. A name that begins with a dot is only matched by one that does. Three things keep odd names
usable: `[*]`, `[?]` and `[[]` stand for the character itself (`literal` writes them); a part with `?` or `[` that exists as it is
written is that file or folder; and what a pattern matches is never itself taken for a pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAGIC = re.compile(r"[*?[]")
ESCAPED = re.compile(r"\[([*?[])\]")

FILE, FOLDER = "file", "folder"


@dataclass(frozen=True)
class Entry:
    """What lies at a path: `kind` is FILE, FOLDER, or words for what is neither (`a FIFO`); `stamp` changes with the content.

    `real` names a folder whatever links lead to it, where the storage has links.
    """

    path: str
    kind: str
    size: int = 0
    stamp: str = ""
    real: str = ""


class Folders(Protocol):
    """A storage with folders; paths are as a person writes them, those of folders end with `/`."""

    def entries(self, folder: str) -> Mapping[str, Entry]:
        """Return what lies directly in a folder, by name; nothing when there is no such folder."""
        ...

    def entry(self, path: str) -> Entry | None:
        """Return what lies at a path."""
        ...


@dataclass
class Match:
    """What a pattern names: `files` in no order, below the folder `fixed`; `others` it matches too, but they are no files.

    `one` tells that the pattern stands for one path only.
    """

    fixed: str
    one: bool = False
    files: list[Entry] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)


def literal(path: str) -> str:
    """Return the pattern that stands for exactly this path."""
    return MAGIC.sub(lambda found: f"[{found[0]}]", path)


def match(pattern: str, folders: Folders) -> Match:
    """Return what a pattern names; a path without `* ? [` names itself."""
    parts = pattern.split("/")
    base, at = "", 0
    while at < len(parts) - 1 and _is_literal(base, parts[at], folders):
        base, at = f"{base}{_unescaped(parts[at])}/", at + 1
    result = Match(base)
    if at == len(parts) - 1 and _is_literal(base, parts[at], folders):
        result.one = True
        found = folders.entry(base + _unescaped(parts[at]))
        entries = [] if found is None else [found]
    else:
        entries = list({entry.path: entry for entry in _below(base, parts[at:], folders, ())}.values())
    result.files = [entry for entry in entries if entry.kind == FILE]
    result.others = [entry for entry in entries if entry.kind != FILE and not (parts[-1] == "**" and entry.kind == FOLDER)]
    return result


def is_pattern(path: str) -> bool:
    """Tell whether a path has characters that may stand for others."""
    return MAGIC.search(ESCAPED.sub("", path)) is not None


def _is_literal(base: str, part: str, folders: Folders) -> bool:
    if not is_pattern(part):
        return True
    return "*" not in part and _unescaped(part) == part and folders.entry(base + part) is not None


def _unescaped(part: str) -> str:
    return part if is_pattern(part) else ESCAPED.sub(r"\1", part)


def _below(base: str, parts: Sequence[str], folders: Folders, above: tuple[str, ...]) -> Iterator[Entry]:
    """Yield what the parts match below a folder; `above` are the folders that `**` went through, lest a link leads around."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _anywhere(base, rest, folders, above)
    elif not is_pattern(part):
        found = folders.entry(base + _unescaped(part))
        if found is not None:
            yield from _on(found, rest, folders)
    else:
        there = folders.entries(base)
        fits = part.__eq__ if "*" not in part and part in there else _fits(part)
        for name, entry in there.items():
            if fits(name):
                yield from _on(entry, rest, folders)


def _on(entry: Entry, rest: Sequence[str], folders: Folders) -> Iterator[Entry]:
    if not rest:
        yield entry
    elif entry.kind == FOLDER:
        yield from _below(f"{entry.path}/", rest, folders, ())


def _anywhere(base: str, rest: Sequence[str], folders: Folders, above: tuple[str, ...]) -> Iterator[Entry]:
    if rest:
        yield from _below(base, rest, folders, ())
    if not above:
        start = folders.entry(base)
        above = (start.real,) if start is not None else ()
    for name, entry in folders.entries(base).items():
        if name.startswith("."):
            continue
        if not rest:
            yield entry
        if entry.kind == FOLDER and (not entry.real or entry.real not in above):
            yield from _anywhere(f"{entry.path}/", rest, folders, (*above, entry.real))


def _fits(part: str) -> Callable[[str], bool]:
    expression = re.compile(fnmatch.translate(part))
    hidden = part.startswith(".")
    return lambda name: (hidden or not name.startswith(".")) and expression.match(name) is not None
