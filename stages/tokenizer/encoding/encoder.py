"""Text to the ids of any byte-level BPE vocabulary, exactly those of the Hugging Face library, compiled.

Reads flat texts and a Vocabulary; gives flat ids.
"""

from __future__ import annotations

import numpy as np

from stages.tokenizer.cutting.cutter import make_cutter
from stages.tokenizer.encoding import kernels
from stages.tokenizer.encoding.barriers import (
    Merges,
    UnsupportedMerges,
    find_barriers,
    find_links,
    find_transition,
    known_merges,
    tables_of,
)
from stages.tokenizer.encoding.kernels import SLACK, Tables, encode_documents, fill_tokens
from stages.tokenizer.encoding.memory import make_memory
from stages.tokenizer.encoding.words import NONE, shift_of
from stages.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from stages.tokenizer.vocabulary import Vocabulary


def make_tables(vocabulary: Vocabulary) -> Tables:
    """Return the tables of a vocabulary for the compiled loops.

    Raises:
        UnsupportedMerges: see `known_merges`.
    """
    merges = known_merges(vocabulary)
    transition = find_transition(vocabulary, merges)
    low, high = merges.part(0, transition), merges.part(transition, len(merges))
    byte_ids = vocabulary.byte_ids()
    barriers = find_barriers(vocabulary.tokens, low)
    links = find_links(byte_ids, low, high)
    low_table, high_table = tables_of(low), tables_of(high)
    special = set(vocabulary.special_tokens.values())
    wanted = np.array([bool(token) and i not in special for i, token in enumerate(vocabulary.tokens)], np.bool_)
    spans = np.zeros(len(vocabulary.tokens) + 1, np.int64)
    np.cumsum([len(token) for token in vocabulary.tokens], out=spans[1:])
    facts = np.zeros(kernels.FACTS, np.uint64)
    facts[kernels.CHARACTERS_SHIFT] = shift_of(barriers.characters.size * 8)
    facts[kernels.LOW_SHIFT], facts[kernels.HIGH_SHIFT] = shift_of(low_table.size), shift_of(high_table.size)
    facts[kernels.LINKS_SHIFT] = shift_of(links.size * 8)
    facts[kernels.TWO_PHASES], facts[kernels.WHOLE_TOKENS] = len(high) > 0, vocabulary.ignore_merges
    facts[kernels.HAS_CUTS] = len(vocabulary.cuts) > 0
    facts[kernels.LONGEST] = max((len(token) for token in vocabulary.tokens), default=0)
    tables = Tables(
        ascii=barriers.ascii,
        edges=barriers.edges,
        characters=barriers.characters,
        bytes=byte_ids.astype(np.uint32),
        pairs=byte_pairs(byte_ids, low),
        low=low_table,
        low_joined=low.joined.astype(np.uint32),
        high=high_table,
        high_joined=high.joined.astype(np.uint32),
        links=links,
        tokens=np.full(1 << (2 * len(wanted)).bit_length() if vocabulary.ignore_merges else 1, -1, np.int64),
        spans=spans,
        spelled=np.frombuffer(b"".join(vocabulary.tokens) or b"\0", np.uint8),
        facts=facts,
    )
    if vocabulary.ignore_merges:
        fill_tokens(tables, wanted)
    return tables


def byte_pairs(byte_ids: np.ndarray, merges: Merges) -> np.ndarray:
    """Return the ranks of the merges of two bytes, uint32 [65536]."""
    byte_of = {i: byte for byte, i in enumerate(byte_ids.tolist())}
    found = np.full(1 << 16, NONE, np.uint32)
    for rank in np.flatnonzero(np.isin(merges.left, byte_ids) & np.isin(merges.right, byte_ids)).tolist():
        found[byte_of[int(merges.left[rank])] << 8 | byte_of[int(merges.right[rank])]] = rank
    return found


class Encoder:
    """Encoder of a standard vocabulary: merges inside pieces, nothing else."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tables = make_tables(vocabulary)
        self._cutter = make_cutter(vocabulary.cuts)
        self._memory = make_memory()

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        ids = np.empty(len(text) + SLACK, np.uint32)
        ends = np.empty(int(np.diff(offsets).max(initial=0)) + 1, np.int64)
        places = np.zeros(len(offsets), np.int64)
        encode_documents(self._tables, self._memory, self._cutter, text, offsets, ends, ids, places)
        return ids[: places[-1]].copy(), places
