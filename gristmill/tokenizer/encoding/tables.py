"""A vocabulary made into what the compiled loops take.

Reads a Vocabulary; gives a Context.
"""

from __future__ import annotations

import numpy as np

from gristmill.tokenizer.encoding import kernels, memory
from gristmill.tokenizer.encoding.barriers import Merges, find_barriers, find_links, find_transition, known_merges
from gristmill.tokenizer.encoding.context import Context, cache_lines
from gristmill.tokenizer.encoding.pair_tables import merge_table, shift_of
from gristmill.tokenizer.intrinsics import address_of
from gristmill.tokenizer.vocabulary import Vocabulary

_NONE = 2**32 - 1


def make_context(vocabulary: Vocabulary) -> Context:
    """Return the tables of a vocabulary and an empty memory.

    Raises:
        UnsupportedMerges: see `known_merges`.
    """
    context = Context()
    merges = known_merges(vocabulary)
    transition = find_transition(vocabulary, merges)
    low, high = merges.part(0, transition), merges.part(transition, len(merges))
    byte_ids = vocabulary.byte_ids()
    barriers = find_barriers(vocabulary.tokens, low)
    context.put("ASCII", barriers.ascii)
    context.put("EDGES", barriers.edges)
    context.put("CHARACTERS", barriers.characters)
    context.put("CHARACTERS_SHIFT", int(shift_of(barriers.characters.size * 8)))
    context.put("BYTE_IDS", byte_ids.astype(np.uint32))
    context.put("BYTE_PAIRS", byte_pairs(byte_ids, low))
    for name, part in (("LOW", low), ("HIGH", high)):
        table = merge_table(part.left, part.right, np.arange(len(part)))
        context.put(name, table)
        context.put(f"{name}_SHIFT", int(shift_of(table.size)))
        context.put(f"{name}_MASK", table.size - 1)
        context.put(f"{name}_JOINED", part.joined.astype(np.uint32))
    links = find_links(byte_ids, low, high)
    context.put("LINKS", links)
    context.put("LINKS_SHIFT", int(shift_of(links.size * 8)))
    context.put("TWO_PHASES", int(len(high) > 0))
    context.put("SHORT", cache_lines(memory.SHORT_SETS * 8))
    context.put("LONG", cache_lines(memory.LONG_SETS * 8))
    context.put("POOL", np.zeros(memory.POOL_WORDS, np.uint64))
    context.put("FILLED", np.zeros(1, np.uint64))
    context.put("RANKS", np.zeros(kernels.SHORT_COUNT, np.uint32))
    context.put("PARTS", cache_lines(kernels.PARTS_AT_ONCE * 8))
    context.put("NOWHERE", np.zeros(1, np.uint64))
    if vocabulary.ignore_merges:
        context.put("WHOLE", 1 << 63)  # a piece that is a token may be other ids than the same bytes as a part of one
        _put_tokens(context, vocabulary)
    return context


def byte_pairs(byte_ids: np.ndarray, merges: Merges) -> np.ndarray:
    """Return the ranks of the merges of two bytes, uint32 [65536]."""
    byte_of = {i: byte for byte, i in enumerate(byte_ids.tolist())}
    found = np.full(1 << 16, _NONE, np.uint32)
    for rank in np.flatnonzero(np.isin(merges.left, byte_ids) & np.isin(merges.right, byte_ids)).tolist():
        found[byte_of[int(merges.left[rank])] << 8 | byte_of[int(merges.right[rank])]] = rank
    return found


def _put_tokens(context: Context, vocabulary: Vocabulary) -> None:
    """Make the hash table of whole tokens."""
    special = set(vocabulary.special_tokens.values())
    wanted = [i for i, token in enumerate(vocabulary.tokens) if token and i not in special]
    spans = np.zeros(len(vocabulary.tokens) + 1, np.int64)
    np.cumsum([len(token) for token in vocabulary.tokens], out=spans[1:])
    table = np.full(1 << (2 * len(wanted) + 1).bit_length(), _NONE, np.uint32)
    context.put("TOKENS", table)
    context.put("TOKENS_MASK", table.size - 1)
    context.put("SPANS", spans)
    context.put("SPELLED", np.frombuffer(b"".join(vocabulary.tokens) + bytes(8), np.uint8))
    context.put("LONGEST", max((len(vocabulary.tokens[i]) for i in wanted), default=0) + 1)
    numbers = np.array([*wanted, _NONE], np.uint32)
    kernels.fill_tokens(context.address, address_of(numbers))
