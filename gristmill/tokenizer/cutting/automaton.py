"""A parsed pattern made into the table of a deterministic automaton with Perl's priorities.

Reads trees of `regex`, gives symbols (what the automaton can tell apart of a character) and tables. A program of a few
instructions (Thompson 1968) is run on lists of threads ordered by priority, as in Pike's and Cox's (RE2) matchers; a thread
behind one that matches is dropped, so the last match that the scan saw is the one a backtracking matcher would find. What
an instruction says about the *next* character is known when that is read, so a match shows one character late.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gristmill.tokenizer.cutting.classes import CODE_POINTS, Members, members, several_when_folded
from gristmill.tokenizer.cutting.regex import Ahead, Choice, Node, One, Repeat, Sequence, Thousands, UnsupportedPattern

MOST_INSTRUCTIONS = 20_000
MOST_STATES = 4096
MOST_SYMBOLS = 250

# An entry of the table: where the next row begins << SHIFT, and what happens before the character. Of an event: the row to go
# on with (where nothing else is said) << 2 | DONE | HIT, all << SHIFT.
EVENT = 1  # the attempt is over, in a way that needs more than one step
MATCH = 2  # a match of the attempt ends before this character
CUT = 4  # a piece ends before this character, and the next attempt begins with it
START = 8  # an attempt begins with this character
SHIFT = 4
HIT = 1  # there has been a match
DONE = 2  # the text ends between two attempts

CHARACTER, AHEAD, THOUSANDS, SPLIT, ACCEPT = range(5)
_INSIDE = 2  # the side of a border that State.side has for members of the class


@dataclass
class Program:
    """Instructions (what, of which class, where to go on), the classes they name, where to begin."""

    instructions: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)
    classes: list[One] = field(default_factory=list)
    negative: set[int] = field(default_factory=set)
    begin: int = 0

    def add(self, what: int, of: int, *to: int) -> int:
        """Append an instruction and return its place."""
        self.instructions.append((what, of, to))
        if len(self.instructions) > MOST_INSTRUCTIONS:
            raise UnsupportedPattern(f"the pattern needs more than {MOST_INSTRUCTIONS:_} instructions")
        return len(self.instructions) - 1

    def add_one(self, what: int, one: One, to: int) -> int:
        """Append an instruction about a class."""
        self.classes.append(one)
        return self.add(what, len(self.classes) - 1, to)

    def add_unless(self, one: One, to: int) -> int:
        """Append a negative lookahead."""
        place = self.add_one(AHEAD, one, to)
        self.negative.add(place)
        return place

    def counts_digits(self) -> bool:
        """Return whether there is an instruction that looks beyond the next character."""
        return any(what == THOUSANDS for what, _, _ in self.instructions)


def compile_program(tree: Node) -> Program:
    """Return the program of a tree.

    Raises:
        UnsupportedPattern: it is too long, or matches several characters for one without case.
    """
    program = Program()
    program.begin = _compile(program, tree, program.add(ACCEPT, 0))
    _refuse_folding(program)
    return program


def _compile(program: Program, node: Node, after: int) -> int:
    """Add the instructions of `node`, which go on at `after`; return where they begin."""
    match node:
        case One():
            return program.add_one(CHARACTER, node, after)
        case Ahead(one, negative):
            return program.add_unless(one, after) if negative else program.add_one(AHEAD, one, after)
        case Thousands():
            return program.add(THOUSANDS, 0, after)
        case Sequence(parts):
            for part in reversed(parts):
                after = _compile(program, part, after)
            return after
        case Choice(parts):
            return program.add(SPLIT, 0, *[_compile(program, part, after) for part in parts])
        case Repeat():
            return _compile_repeat(program, node, after)


def _compile_repeat(program: Program, node: Repeat, after: int) -> int:
    leave = after
    if node.possessive:  # of one character: no way back is to leave only where there is no more of them
        assert isinstance(node.part, One)
        leave = program.add_unless(node.part, after)
    copies = node.least
    if node.most is None:
        loop = program.add(SPLIT, 0)
        body = _compile(program, node.part, loop)
        program.instructions[loop] = (SPLIT, 0, (leave, body) if node.lazy else (body, leave))
        begin = body if copies else loop
        copies = max(copies - 1, 0)
    else:
        begin = after
        for _ in range(node.most - node.least):
            more = _compile(program, node.part, begin)
            begin = program.add(SPLIT, 0, *((leave, more) if node.lazy else (more, leave)))
    for _ in range(copies):
        begin = _compile(program, node.part, begin)
    return begin


def _refuse_folding(program: Program) -> None:
    """Raise where characters in a row are also matched by one character without case ('ss' by 'ß')."""
    if not any(one.ignore_case for one in program.classes):
        return
    several = sorted(set(several_when_folded().values()))
    for place, (what, of, _) in enumerate(program.instructions):
        if what != CHARACTER or not program.classes[of].ignore_case:
            continue
        for folded in several:
            reached = {place}
            for letter in folded:
                reached = {at for at in reached if _takes(program, at, letter)}
                reached = {end for at in reached for end in _closure(program, program.instructions[at][2])}
                if not reached:
                    break
            if reached:
                raise UnsupportedPattern(f"{folded!r} without case, which Oniguruma also finds in other characters")


def _takes(program: Program, place: int, letter: str) -> bool:
    what, of, _ = program.instructions[place]
    return what == CHARACTER and program.classes[of].ignore_case and bool(program.classes[of].members[ord(letter)])


def _closure(program: Program, places: Many[int]) -> Iterator[int]:
    """Yield all places that can be reached without a character."""
    stack, seen = list(places), set(places)
    while stack:
        place = stack.pop()
        yield place
        what, _, to = program.instructions[place]
        new = [] if what == CHARACTER else [each for each in to if each not in seen]
        seen.update(new)
        stack += new


@dataclass(frozen=True)
class Symbols:
    """What the programs can tell apart of characters.

    `of`: the symbol of each code point, uint8 [1,114,112]. `first_digit`: symbols from here on are digits (`\\d`), in threes: for
    0, 1 and 2 digits more than a multiple of three up to the end of the run; `of` has the first of the three. `end`: the
    symbol of the end of the text, also the greatest. `has`: whether a class has a symbol, by the identity of its members.
    """

    of: npt.NDArray[np.uint8]
    first_digit: int
    end: int
    has: dict[int, npt.NDArray[np.bool_]]

    def thousands(self) -> npt.NDArray[np.bool_]:
        """Return which symbols are digits with a multiple of three ahead; bool [end + 1]."""
        found = np.zeros(self.end + 1, np.bool_)
        found[self.first_digit : self.end : 3] = True
        return found


def tell_apart(programs: Many[Program], others: Many[Members]) -> Symbols:
    """Return the coarsest symbols for these programs and some other classes.

    Raises:
        UnsupportedPattern: there are more than fit.
    """
    digits = members(r"\d") if any(program.counts_digits() for program in programs) else np.zeros(CODE_POINTS, np.bool_)
    named = [*others, *(one.members for program in programs for one in program.classes)]
    classes: list[Members] = [digits, *{id(each): each for each in named}.values()]
    changes = np.zeros(CODE_POINTS, np.bool_)
    changes[0] = True
    for each in classes:
        changes[1:] |= each[1:] != each[:-1]
    begins = np.flatnonzero(changes)
    # Rows are sorted by their first column, so the digits come last.
    kinds, kind = np.unique(np.stack([each[begins] for each in classes], axis=1), axis=0, return_inverse=True)
    plain = int((~kinds[:, 0]).sum())
    number = np.where(np.arange(len(kinds)) < plain, np.arange(len(kinds)), plain + 3 * (np.arange(len(kinds)) - plain))
    end = plain + 3 * (len(kinds) - plain)
    if end > MOST_SYMBOLS:
        raise UnsupportedPattern(f"the classes of the pattern tell {end} kinds of characters apart, more than {MOST_SYMBOLS}")
    row = np.append(np.minimum(np.arange(end), plain + (np.arange(end) - plain) // 3).clip(0), -1)
    row[:plain] = np.arange(plain)
    has = {id(each): np.where(row < 0, False, kinds[row, i]) for i, each in enumerate(classes)}
    of = np.repeat(number[kind.reshape(-1)], np.diff(np.append(begins, CODE_POINTS))).astype(np.uint8)
    return Symbols(of, plain, end, has)


@dataclass(frozen=True)
class State:
    """What an attempt to match has come to.

    `threads`: in the order of their priority. `hit`: it has matched. `depth`: characters read in it: 0, 1, or 2 for more. `side`:
    1 or 2, which says of the last character on which side of a border it is; 0 where that is not asked. `flush`: the attempt
    began where a piece ended, so nothing is between the two.
    """

    threads: tuple[int, ...]
    hit: bool
    depth: int
    side: int
    flush: bool


Step = tuple[State | None, bool]
"""The state after a symbol (None: no thread is left), and whether a match ends before the symbol."""


class Machine:
    """A program together with symbols: the states that can be reached, and the table made of them.

    `runs`: a class or None; where characters inside and outside of it meet a text ends for the program, and another begins.
    `alone`: also where two characters inside of it meet.

    Raises:
        UnsupportedPattern: it needs too many states, or looks at digits beyond the one that is a text of its own.
    """

    def __init__(self, program: Program, symbols: Symbols, runs: Members | None, alone: bool = False) -> None:
        if alone and program.counts_digits():
            raise UnsupportedPattern("groups of thousands among digits that each stand alone")
        self.program, self.end, self.alone = program, symbols.end, alone
        thousands = symbols.thousands()
        self.allows = [
            symbols.has[id(program.classes[of].members)] ^ (place in program.negative)
            if what in (CHARACTER, AHEAD)
            else thousands
            for place, (what, of, _) in enumerate(program.instructions)
        ]
        self.sides = [0] * (symbols.end + 1) if runs is None else [*(symbols.has[id(runs)][:-1] + 1).tolist(), 0]
        between = [0] if runs is None else [1, 2]
        self.begins = [State((program.begin,), False, 0, side, i == 0) for i, side in enumerate([0, *between])]
        self.steps: dict[State, list[Step]] = {}
        self.explore()

    def explore(self) -> None:
        """Fill `steps`: for each state its step on each symbol, the end of the text included."""
        waiting = self.begins[::-1]
        for state in self.begins:  # their rows are the first
            self.steps[state] = []
        while waiting:
            state = waiting.pop()
            if self.steps.get(state):
                continue
            self.steps[state] = [self.step(state, symbol) for symbol in range(self.end + 1)]
            if len(self.steps) > MOST_STATES:
                raise UnsupportedPattern(f"the pattern needs more than {MOST_STATES:_} states")
            waiting += [after for after, _ in self.steps[state] if after is not None]

    def step(self, state: State, symbol: int) -> Step:
        """Run the threads of a state on one symbol."""
        if self.crosses(state, symbol):
            symbol = self.end
        threads: dict[int, None] = {}
        stack, seen = list(reversed(state.threads)), set[int]()
        matched = False
        while stack and not matched:
            place = stack.pop()
            if place in seen:
                continue
            seen.add(place)
            what, _, to = self.program.instructions[place]
            if what == ACCEPT:
                matched = True
            elif what == SPLIT:
                stack += reversed(to)
            elif self.allows[place][symbol]:
                if what == CHARACTER:
                    threads[to[0]] = None
                else:
                    stack.append(to[0])
        after = State(tuple(threads), state.hit or matched, min(state.depth + 1, 2), self.sides[symbol], state.flush)
        return after if threads else None, matched

    def crosses(self, state: State, symbol: int) -> bool:
        """Return whether there is a border between what the state has read and the symbol."""
        if state.side == 0 or symbol == self.end:
            return False
        return self.sides[symbol] != state.side or (self.alone and state.side == _INSIDE)

    def table(self, base: int) -> npt.NDArray[np.uint32]:
        """Return the table, uint32 [states, width], whose rows begin at `base` in the cutter's table.

        The width is a power of two with room for all symbols. The first row is where a text begins.
        """
        width = 1 << self.end.bit_length()
        rows = {state: base + i * width for i, state in enumerate(self.steps)}
        table = np.zeros((len(rows), width), np.uint32)
        for i, state in enumerate(self.steps):
            for symbol in range(self.end + 1):
                table[i, symbol] = self.entry(state, symbol, rows, table)
        return table

    def entry(self, state: State, symbol: int, rows: dict[State, int], table: npt.NDArray[np.uint32]) -> int:
        """Return the entry for a symbol; `table` holds those of the first rows already."""
        after, matched = self.steps[state][symbol]
        flags = MATCH * matched | START * (state.depth == 0)
        if after is not None:
            return rows[after] << SHIFT | flags
        if symbol == self.end and state.depth == 0:
            return DONE << SHIFT | EVENT
        first, crosses = int(table[0, symbol]), self.crosses(state, symbol)
        if crosses and state.depth == 0:
            return first | CUT
        between = max(state.side or self.sides[symbol], 1)
        onward = rows[self.begins[between]]
        if matched and state.depth > 0 and state.flush and symbol != self.end:
            return first | CUT
        if matched or state.hit:
            return (onward << 2 | HIT) << SHIFT | flags | EVENT
        if state.depth == 0:
            return onward << SHIFT
        if state.depth == 1 and symbol != self.end:  # the next attempt begins with this very character
            return first | CUT if crosses else int(table[between, symbol])
        return onward << 2 << SHIFT | EVENT
