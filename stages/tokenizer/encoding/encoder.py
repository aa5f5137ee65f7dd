"""Text to the ids of any byte-level BPE vocabulary, exactly those of the Hugging Face library, compiled.

Reads flat texts and a Vocabulary; gives flat ids.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.tokenizer.encoding import kernels
from stages.tokenizer.encoding.barriers import Merges, find_barriers, find_links, find_transition, known_merges
from stages.tokenizer.encoding.windows import Ids, Offsets, Text, encode_windows
from stages.tokenizer.encoding.words import merge_table, shift_of
from stages.tokenizer.training.corpus import Batch
from stages.tokenizer.training.pieces import open_cutter
from stages.tokenizer.vocabulary import Vocabulary

_NONE = 2**32 - 1


class Context:
    """The row of addresses and numbers that the compiled loops take, and the arrays it points to."""

    def __init__(self) -> None:
        self.row = np.zeros(len(kernels.NAMES), np.uint64)
        self.held: list[npt.NDArray[np.generic]] = []

    def put(self, name: str, value: npt.NDArray[np.generic] | int) -> None:
        """Set an entry: an array's address, or a number."""
        if isinstance(value, np.ndarray):
            assert value.flags.c_contiguous
            self.held.append(value)
            value = value.ctypes.data
        self.row[kernels.NAMES.index(name)] = value


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
    context.put("SHORT", _lines(kernels.SHORT_SETS * 8))
    context.put("LONG", _lines(kernels.LONG_SETS * 8))
    context.put("POOL", np.zeros(kernels.POOL_WORDS, np.uint64))
    context.put("FILLED", np.zeros(1, np.uint64))
    context.put("RANKS", np.zeros(kernels.SHORT_COUNT, np.uint32))
    context.put("PARTS", _lines(kernels.PARTS_AT_ONCE * 8))
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
    kernels.fill_tokens(context.row.ctypes.data, numbers.ctypes.data)


def _lines(words: int) -> npt.NDArray[np.uint64]:
    """Return zeros that begin with a cache line."""
    raw = np.zeros(words + 8, np.uint64)
    first = -raw.ctypes.data % 64 // 8
    return raw[first : first + words]


class Encoder:
    """Encoder of a standard vocabulary: merges inside pieces, nothing else."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._context = make_context(vocabulary)
        self._learn_tokens(vocabulary)
        self._cut = open_cutter(vocabulary.cuts) if vocabulary.cuts else None

    def _learn_tokens(self, vocabulary: Vocabulary) -> None:
        """Encode each token, so that the memory knows them when the first text comes; the most frequent last."""
        tokens = [vocabulary.tokens[i] for i in vocabulary.merges[::-1, 2].tolist()]
        tokens = [token for token in tokens if len(token) <= kernels.SHORT_BYTES]
        ends = np.cumsum([len(token) for token in tokens], dtype=np.int64)
        text = np.frombuffer(b"".join(tokens) + bytes(8), np.uint8)
        ids = np.empty(len(text) + kernels.SLACK, np.uint32)
        kernels.encode_pieces(self._context.row.ctypes.data, text.ctypes.data, 0, ends.ctypes.data, len(ends), ids.ctypes.data)

    def encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        """See `FlatEncoder.encode`."""
        return encode_windows(text, offsets, self._encode)

    def _encode(self, text: Text, offsets: Offsets) -> tuple[Ids, Offsets]:
        ends = offsets[1:].copy() if self._cut is None else self._cut(Batch(text, offsets))
        ids = np.empty(len(text) + kernels.SLACK, np.uint32)
        of_document = np.searchsorted(ends, offsets, side="right")
        begin, row = int(offsets[0]), self._context.row
        count = kernels.encode_pieces(row.ctypes.data, text.ctypes.data, begin, ends.ctypes.data, len(ends), ids.ctypes.data)
        return ids[:count].copy(), np.append(0, ends)[of_document]
