"""Which tokens begin at a place of a text: the tokens of a vocabulary as a double-array trie.

Reads a vocabulary's tokens; gives one flat array that compiled loops step through, a load of eight bytes for a byte of text.

A node is a cell of the array. Its child by `byte` is cell `base ^ byte` if that cell says that it is reached by this byte: no
two nodes share a base, so the byte alone proves the parent (double array: Aoe 1989). A cell holds, from the low end: 9 bits
for the byte by which it is reached (256 more than it; 0: the cell is free), 27 bits for its base (0: no children), 28 bits for
the id of the token that ends here, counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from gristmill.compiling import Int, compiled, inner
from gristmill.tokenizer.vocabulary import Vocabulary

LABEL = np.uint64(0x1FF)
USED = np.uint64(0x100)
BASE = np.uint64((1 << 27) - 1)
BASE_SHIFT, ID_SHIFT = np.uint64(9), np.uint64(36)

BLOCK = 256
ROOT = BLOCK  # its cell looks like a child by byte 0 of base 256, which no node gets
TRIES = 64  # free cells tried as the place of a node's first child before a new block is taken
VISITS = 4096  # cells looked at meanwhile

Cells = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def make_trie(vocabulary: Vocabulary) -> Cells:
    """Return the trie of all tokens that text can become, so without special ones and scaffolds; of equal ones the lowest id.

    Raises:
        ValueError: some byte is no token, so there are texts without an encoding.
    """
    missing = np.flatnonzero(vocabulary.byte_ids() < 0).tolist()
    if missing:
        shown = ", ".join(f"0x{byte:02x}" for byte in missing[:8])
        raise ValueError(
            f"inference {vocabulary.inference!r} needs each of the 256 single bytes as a token, so that any text has an "
            f"encoding; {len(missing)} are missing: {shown}{', ...' if len(missing) > 8 else ''}"
        )
    return build_trie((token, i) for i, token in enumerate(vocabulary.ordinary()[: vocabulary.size]))


def build_trie(tokens: Iterable[tuple[bytes, int]]) -> Cells:
    """Return the trie of these tokens with these ids; of equal ones the first, empty ones left out."""
    found: dict[bytes, int] = {}
    for token, i in tokens:
        if token:
            found.setdefault(token, i)
    held = sorted(found)
    offsets = np.zeros(len(held) + 1, np.int64)
    np.cumsum([len(token) for token in held], out=offsets[1:])
    ids = np.array([found[token] for token in held], np.int64)
    cells: Cells = _build(np.frombuffer(b"".join(held), np.uint8), offsets, ids)
    return cells


@inner
def _fits(cells: Cells, bases: npt.NDArray[np.bool_], base: int, labels: npt.NDArray[np.uint8], count: Int) -> bool:
    """Tell whether no node has this base and all the cells of the children would be free."""
    if base == 0 or bases[base]:
        return False
    for k in range(count):  # noqa: SIM110 (numba compiles no generators)
        if cells[base ^ labels[k]] != 0:
            return False
    return True


@inner
def _place(
    cells: Cells, bases: npt.NDArray[np.bool_], labels: npt.NDArray[np.uint8], count: Int, begin: int, end: int
) -> tuple[int, int]:
    """Return a base for a node with these children below cell `end`, 0 if none was found; and where to begin the next time."""
    while begin < end and cells[begin] != 0:
        begin += 1
    cell, tries = begin, 0
    while cell < min(end, begin + VISITS) and tries < TRIES:
        if cells[cell] == 0:
            base = cell ^ labels[0]
            if _fits(cells, bases, base, labels, count):
                return base, begin
            tries += 1
        cell += 1
    return 0, cell


@compiled
def _build(text: npt.NDArray[np.uint8], offsets: Places, ids: Places) -> Cells:
    """Return the trie of tokens that are sorted by their bytes: nodes breadth first, so the ones most used lie together."""
    cells, bases = np.zeros(BLOCK * 2, np.uint64), np.zeros(BLOCK * 2, np.bool_)
    size = BLOCK * 2
    bases[0] = True
    cells[ROOT] = USED
    bases[ROOT] = True
    queue = np.zeros((len(text) + 1, 4), np.int64)  # a node's cell, its first token, the end of its tokens, its depth
    queue[0, 0], queue[0, 2] = ROOT, len(ids)
    head, tail = 0, 1
    labels, firsts = np.empty(256, np.uint8), np.empty(257, np.int64)
    begins = np.zeros(2, np.int64)  # where to look for a place: for nodes with one child, with several
    while head < tail:
        node, low, high, depth = queue[head, 0], queue[head, 1], queue[head, 2], queue[head, 3]
        head += 1
        if low < high and offsets[low + 1] - offsets[low] == depth:
            cells[node] |= np.uint64(ids[low] + 1) << ID_SHIFT
            low += 1
        count: Int = np.int64(0)  # 0 would be another type, and `_place` compiled twice
        for token in range(low, high):
            label = text[offsets[token] + depth]
            if count == 0 or label != labels[count - 1]:
                labels[count], firsts[count] = label, token
                count += 1
        if count == 0:
            continue
        firsts[count] = high
        kind = 0 if count == 1 else 1
        base, begins[kind] = _place(cells, bases, labels, count, begins[kind], size)
        if base == 0:
            if size == len(cells):
                more, used = np.zeros(2 * size, np.uint64), np.zeros(2 * size, np.bool_)
                for cell in range(size):
                    more[cell], used[cell] = cells[cell], bases[cell]
                cells, bases = more, used
            base = size
            size += BLOCK
        bases[base] = True
        cells[node] |= np.uint64(base) << BASE_SHIFT
        for k in range(count):
            child = base ^ labels[k]
            cells[child] = USED | np.uint64(labels[k])
            queue[tail, 0], queue[tail, 1], queue[tail, 2], queue[tail, 3] = child, firsts[k], firsts[k + 1], depth + 1
            tail += 1
    assert size <= 1 << 27
    return cells[:size].copy()
