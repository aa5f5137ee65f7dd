"""How tokens are made of two others, from their bytes alone.

Reads the trie of a vocabulary whose ids are ranks, and its tokens; gives rows of left id, right id, id of both joined.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.compiling import compiled, inner
from gristmill.tokenizer.encoding.trie import BASE, BASE_SHIFT, ID_SHIFT, LABEL, ROOT, USED, Cells
from gristmill.tokenizer.encoding.windows import Offsets, Text

NONE = 1 << 62

Rows = npt.NDArray[np.int64]


@inner
def _find(cells: Cells, text: Text, begin: int, end: int) -> int:
    """Return the id of the token text[begin:end], or NONE."""
    node = cells[ROOT]
    for at in range(begin, end):
        byte = np.uint64(text[at])
        node = cells[((node >> BASE_SHIFT) & BASE) ^ byte]
        if node & LABEL != byte | USED:
            return NONE
    return int(np.int64(node >> ID_SHIFT)) - 1 if node >> ID_SHIFT else NONE


@compiled
def all_splits(cells: Cells, text: Text, offsets: Offsets, ids: Offsets) -> Rows:
    """Return each way to cut each token in two tokens, int64 [ways, 3], in the order of tokens, shortest left part first.

    Args:
        cells: the trie.
        text: uint8, the tokens one after the other.
        offsets: int64 [tokens + 1].
        ids: int64 [tokens].
    """
    rows = np.empty((len(text), 3), np.int64)
    count = 0
    for token in range(len(ids)):
        begin, end = offsets[token], offsets[token + 1]
        for cut in range(begin + 1, end):
            left = _find(cells, text, begin, cut)
            if left == NONE:
                continue
            right = _find(cells, text, cut, end)
            if right != NONE:
                rows[count, 0], rows[count, 1], rows[count, 2] = left, right, ids[token]
                count += 1
    return rows[:count].copy()


@compiled
def last_merges(cells: Cells, text: Text, offsets: Offsets, ids: Offsets) -> Rows:
    """Return the last merge of each token by lower ranks, int64 [tokens, 3]; -1 where these leave more than two parts.

    Args: as `all_splits`.
    """
    rows = np.full((len(ids), 3), -1, np.int64)
    longest = 0
    for token in range(len(ids)):
        longest = max(longest, offsets[token + 1] - offsets[token])
    begins = np.empty(longest + 1, np.int64)  # of the parts, and the end of the last
    ranks = np.empty(longest, np.int64)  # of each part joined with the next
    for token in range(len(ids)):
        parts = offsets[token + 1] - offsets[token]
        for part in range(parts + 1):
            begins[part] = offsets[token] + part
        for part in range(parts - 1):
            ranks[part] = _find(cells, text, begins[part], begins[part + 2])
        while parts > 2:
            best = 0
            for part in range(1, parts - 1):
                if ranks[part] < ranks[best]:
                    best = part
            if ranks[best] >= ids[token]:
                break
            for part in range(best + 1, parts):
                begins[part] = begins[part + 1]
                ranks[part - 1] = ranks[part]
            parts -= 1
            for part in range(max(best - 1, 0), min(best + 1, parts - 1)):
                ranks[part] = _find(cells, text, begins[part], begins[part + 2])
        if parts == 2:
            rows[token, 0] = _find(cells, text, begins[0], begins[1])
            rows[token, 1] = _find(cells, text, begins[1], begins[2])
            rows[token, 2] = ids[token]
    return rows
