"""A split pattern, parsed: the part of Oniguruma's syntax that can be scanned with a finite automaton.

Reads the text of a pattern, gives a tree. Understood: characters and their escapes, classes (`.`, `\\s`, `\\p{L}`, brackets of
any depth; what is in them only Oniguruma knows), groups, `(?i:…)`, `|`, quantifiers (greedy, lazy; possessive after a class),
`(?=x)` and `(?!x)` where x is one character, and the groups of thousands `(?=(\\d{3})+(?!\\d))`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gristmill.tokenizer.cutting.classes import Members, members, only, several_when_folded

_THOUSANDS = re.compile(r"\(\?=\((?:\?:)?\\d\{3\}\)\+\(\?!\\d\)\)")
_INTERVAL = re.compile(r"\{(?:(\d+)(,(\d*))?|,(\d+))\}")
_CODE = re.compile(r"\\(?:x\{([0-9a-fA-F]{1,8})\}|x([0-7][0-9a-fA-F])|u([0-9a-fA-F]{4}))")
_PROPERTY = re.compile(r"\\[pP]\{[^{}]*\}")
_CONTROLS = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
_CLASSES = "sSdDwWhH"


class UnsupportedPattern(ValueError):
    """A pattern that the compiled cutter cannot do; the message names what in it."""


@dataclass(frozen=True, eq=False)
class One:
    """One character out of a class."""

    members: Members
    ignore_case: bool = False


@dataclass(frozen=True)
class Ahead:
    """Nothing, where the next character is in the class (`negative`: is not, or there is none)."""

    one: One
    negative: bool


@dataclass(frozen=True)
class Thousands:
    """Nothing, where the number of digits (`\\d`) ahead is a multiple of three and not zero."""


@dataclass(frozen=True)
class Sequence:
    """One part after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """The first part that lets the whole match."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """`least` to `most` times (None: any number), as often as possible, or as seldom (`lazy`), or without a way back."""

    part: Node
    least: int
    most: int | None
    lazy: bool = False
    possessive: bool = False


Node = One | Ahead | Thousands | Sequence | Choice | Repeat


def parse(pattern: str) -> Node:
    """Return the tree of a pattern that `tokenizers.Regex` compiles.

    Raises:
        UnsupportedPattern: it holds something else than the module's docstring lists.
    """
    parser = _Parser(pattern)
    node = parser.choice(False)
    if parser.at < len(pattern):
        raise parser.unsupported(")")
    return node


def may_be_empty(node: Node) -> bool:
    """Return whether this can match no character at all."""
    match node:
        case One():
            return False
        case Ahead() | Thousands():
            return True
        case Sequence(parts):
            return all(map(may_be_empty, parts))
        case Choice(parts):
            return any(map(may_be_empty, parts))
        case Repeat(part, least):
            return least == 0 or may_be_empty(part)


class _Parser:
    """Recursive descent over the text; `at` is the next character to read."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def unsupported(self, what: str) -> UnsupportedPattern:
        return UnsupportedPattern(f"{what} at character {self.at} of the pattern {self.pattern!r} cannot be compiled to tables")

    def take(self, text: str) -> bool:
        """Step over `text` if it is next."""
        found = self.pattern.startswith(text, self.at)
        self.at += len(text) * found
        return found

    def choice(self, ignore_case: bool) -> Node:
        """Read alternatives up to the end of the group."""
        if self.take("(?i)"):
            ignore_case = True
        parts = [self.sequence(ignore_case)]
        while self.take("|"):
            parts.append(self.sequence(ignore_case))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def sequence(self, ignore_case: bool) -> Node:
        parts: list[Node] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self.quantified(self.atom(ignore_case)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def quantified(self, node: Node) -> Node:
        while (found := self.quantifier()) is not None:
            least, most, interval = found
            if isinstance(node, Ahead | Thousands):
                raise self.unsupported("the repetition of a lookahead")
            if most is None and may_be_empty(node):
                raise self.unsupported("the repetition of what can be empty")
            if interval and least == most and self.take("?"):
                node = Repeat(Repeat(node, least, most), 0, 1)  # Oniguruma's x{n}? is (?:x{n})?
            elif self.take("?"):
                node = Repeat(node, least, most, lazy=True)
            elif not interval and self.take("+"):  # after an interval the + repeats it
                if not isinstance(node, One):
                    raise self.unsupported("the possessive repetition of more than one character")
                node = Repeat(node, least, most, possessive=True)
            else:
                node = Repeat(node, least, most)
        return node

    def quantifier(self) -> tuple[int, int | None, bool] | None:
        """Read least, most and whether it is written as an interval."""
        for sign, least, most in (("?", 0, 1), ("*", 0, None), ("+", 1, None)):
            if self.take(sign):
                return least, most, False
        found = _INTERVAL.match(self.pattern, self.at)
        if found is None:
            return None
        first, comma, second, up_to = found.groups()
        least = int(first or 0)
        limit = up_to or second or (None if comma else first)
        most = None if limit is None else int(limit)
        if most is not None and most < max(least, 1):
            raise self.unsupported(f"the interval {found[0]}")
        self.at = found.end()
        return least, most, True

    def atom(self, ignore_case: bool) -> Node:
        letter = self.pattern[self.at]
        if letter == "(":
            return self.group(ignore_case)
        if letter == "[":
            return self.one(self.bracket(), ignore_case)
        if letter == "\\":
            return self.escape(ignore_case)
        if letter == ".":
            self.at += 1
            return self.one(r"[^\n]", ignore_case)
        if letter in "^$*+?":
            raise self.unsupported(letter)
        self.at += 1
        return self.literal(letter, ignore_case)

    def group(self, ignore_case: bool) -> Node:
        found = _THOUSANDS.match(self.pattern, self.at)
        if found is not None:
            self.at = found.end()
            return Thousands()
        for opening, negative in (("(?=", False), ("(?!", True)):
            if self.take(opening):
                inner = self.closed(ignore_case)
                one = _joined(inner)
                if one is None:
                    raise self.unsupported(f"{opening}…) over more than one character")
                return Ahead(one, negative)
        for opening, inside in (("(?i:", True), ("(?-i:", False), ("(?:", ignore_case)):
            if self.take(opening):
                return self.closed(inside)
        if self.pattern.startswith("(?", self.at) or self.pattern.startswith("(*", self.at):
            raise self.unsupported(self.pattern[self.at : self.at + 4])
        self.at += 1
        return self.closed(ignore_case)

    def closed(self, ignore_case: bool) -> Node:
        node = self.choice(ignore_case)
        if not self.take(")"):
            raise self.unsupported("a group without an end")
        return node

    def bracket(self) -> str:
        """Read a bracket with the brackets inside it and return its text."""
        begin, depth = self.at, 0
        while self.at < len(self.pattern):
            letter = self.pattern[self.at]
            if letter == "[":
                depth += 1
                self.take("[^") or self.take("[")
                if self.pattern.startswith("]", self.at):
                    raise self.unsupported("] at the begin of a class")
                continue
            self.at += 2 if letter == "\\" else 1
            depth -= letter == "]"
            if depth == 0:
                return self.pattern[begin : self.at]
        raise self.unsupported("a class without an end")

    def escape(self, ignore_case: bool) -> Node:
        found = _CODE.match(self.pattern, self.at) or _PROPERTY.match(self.pattern, self.at)
        letter = self.pattern[self.at + 1]
        if found is not None and letter not in "pP":
            self.at = found.end()
            return self.literal(chr(int(next(filter(None, found.groups())), 16)), ignore_case)
        text = found[0] if found is not None else f"\\{letter}"
        if found is None and letter not in _CLASSES and letter not in _CONTROLS and letter.isalnum():
            raise self.unsupported(text)
        self.at += len(text)
        if found is not None or letter in _CLASSES:
            return self.one(text, ignore_case)
        return self.literal(_CONTROLS.get(letter, letter), ignore_case)

    def literal(self, letter: str, ignore_case: bool) -> One:
        return self.one(letter, True) if ignore_case else One(only(letter))

    def one(self, source: str, ignore_case: bool) -> One:
        found = One(members(source, ignore_case), ignore_case)
        # Without case such a class also matches two characters ('ss' for 'ß'), unless it says what not to match.
        if ignore_case and not source.startswith(("[^", "\\P", "\\S", "\\D", "\\W", "\\H")):
            several = [letter for letter in several_when_folded() if found.members[ord(letter)]]
            if several:
                raise self.unsupported(f"{source} without case, which holds {several[0]!r},")
        return found


def _joined(node: Node) -> One | None:
    """Return the class that an alternation of single characters is, or None if it is anything else."""
    if isinstance(node, One):
        return node
    if not isinstance(node, Choice):
        return None
    parts = [_joined(part) for part in node.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return One(np.logical_or.reduce([part.members for part in known]), any(part.ignore_case for part in known))
