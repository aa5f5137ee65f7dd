"""Where the names of special tokens stand in texts.

Reads flat texts; gives flat places. From left to right, at each place the longest name, none overlapping another: as the
Hugging Face library finds added tokens (`aho-corasick`, leftmost-longest).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from gristmill.compiling import compiled
from gristmill.tokenizer.encoding.trie import BASE, BASE_SHIFT, ID_SHIFT, LABEL, ROOT, USED, Cells, build_trie
from gristmill.tokenizer.encoding.windows import FlatEncoder, Ids, Offsets, Text


class Places(NamedTuple):
    """Names found: where they begin and end in the text and which they are, ascending, int64 [names] each."""

    begins: Offsets
    ends: Offsets
    ids: Offsets


class Names:
    """Finds the names of special tokens."""

    def __init__(self, special_tokens: Mapping[str, int], silent: Collection[int] = ()) -> None:
        """Build the trie of the names.

        Args:
            special_tokens: name → id.
            silent: ids that are text where they are found: they hide other names that begin inside them, and no more.
        """
        self._cells = build_trie((name.encode(), i) for name, i in special_tokens.items())
        self._silent = np.array(sorted(silent), np.int64)

    def find(self, text: Text, offsets: Offsets) -> Places:
        """Return all names in documents text[offsets[i]:offsets[i + 1]], but the silent ones."""
        text = text.view()
        text.flags.writeable = False  # one type of array for all, see `encode_windows`
        places = np.empty((16, 3), np.int64)
        while (count := _find(self._cells, text, offsets, places)) > len(places):
            places = np.empty((count, 3), np.int64)
        found = places[:count]
        if len(self._silent):
            found = found[~np.isin(found[:, 2], self._silent)]
        return Places(*(np.ascontiguousarray(column) for column in found.T))


class NamesEncoder:
    """An encoder to which some names are tokens; what lies between them is encoded apart."""

    def __init__(self, inside: FlatEncoder, names: Names) -> None:
        self._inside, self._names = inside, names

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_with(self._inside, self._names.find(text, offsets), text, offsets)


def encode_with(encoder: FlatEncoder, found: Places, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
    """Return what `encoder.encode` gives where each name found is its id, and what lies between is encoded apart."""
    if not len(found.ids):
        return encoder.encode(text, offsets)
    # Names are encoded like any other stretch, which is little, and then one id takes the place of what came out.
    bounds = np.sort(np.concatenate([offsets, found.begins, found.ends]))
    ids, places = encoder.encode(text, bounds)
    stretches = np.searchsorted(bounds, found.begins, side="right") - 1  # of equal bounds the last begins the name
    sizes = np.diff(places)
    inside = np.zeros(len(sizes), bool)
    inside[stretches] = True
    between = ids[np.repeat(~inside, sizes)]
    sizes[stretches] = 1
    places = np.append(0, np.cumsum(sizes))
    named = np.repeat(inside, sizes)
    out = np.empty(len(named), np.uint32)
    out[named], out[~named] = found.ids, between
    return out, places[np.searchsorted(bounds, offsets)]


@compiled
def _find(cells: Cells, text: Text, offsets: Offsets, places: Offsets) -> int:
    """Write begin, end and id of each name, as many as there is room for; return how many there are."""
    root = cells[ROOT]
    count = 0
    for document in range(len(offsets) - 1):
        at, end = np.uint64(offsets[document]), np.uint64(offsets[document + 1])
        while at < end:
            node, token, here, behind = root, np.uint64(0), at, at
            while here < end:
                byte = np.uint64(text[here])
                node = cells[((node >> BASE_SHIFT) & BASE) ^ byte]
                if node & LABEL != byte | USED:
                    break
                here += np.uint64(1)
                if node >> ID_SHIFT:
                    token, behind = node >> ID_SHIFT, here
            if token == 0:
                at += np.uint64(1)
                continue
            if count < len(places):
                places[count, 0], places[count, 1], places[count, 2] = at, behind, token - np.uint64(1)
            count += 1
            at = behind
    return count
