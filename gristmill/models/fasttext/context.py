"""What the loops of fastText's prediction work with: uint64 numbers, some of them addresses of arrays, in the order of `FIELDS`.

Reads and writes nothing.
"""

from __future__ import annotations

import numpy as np

U = np.uint64

FIELDS = (
    "data",  # the model's file, in which words lie
    "slots",  # uint64 [2^k, 2], by the hash of a word: hash << 32 | its number + 1, and where it lies << 24 | its bytes; 0: none
    "slots_mask",
    "kept",  # uint32 [kept, 2], bucket and row of the n-grams that were not pruned
    "kept_slots",  # uint32 [2^k], a bucket leads to its place there + 1
    "kept_mask",
    "pruned",  # 1 where n-grams were
    "rows",  # float32 [rows, dim]
    "dim",
    "words",
    "bucket",
    "minn",
    "maxn",
    "word_ngrams",
    "ended",  # 1 where a newline stands behind each text, which is read as the word </s>
    "line_end",  # the bytes of </s>, then of __label__
    "memory",  # uint64 [2^k, 2], words that were met: `_facts`, then where their bytes and rows begin in
    "memory_mask",
    "memory_bytes",  # uint8
    "memory_rows",  # uint32
    "text_end",  # where the texts' bytes end
    "most_words",  # that are remembered, and their bytes and rows
    "most_bytes",
    "most_rows",
    "used_words",  # how many are
    "used_bytes",
    "used_rows",
    "word",  # scratch: uint8 [longest text + 2]
    "found",  # scratch: uint64 [words of a text + 1, 2], where each lies and hash << 32 | its bytes
    "text_hashes",  # scratch: uint32 [words of a text + 1], of those that count
    "block",  # scratch: uint32 [block_size], rows that are asked for and not yet added
    "block_size",
    "filled",  # how many these are
    "sums",  # float32 [dim], of the text at work
    "count",  # rows of the text at work
    "text_words",  # words of the text at work
)
"""What the numbers of a context are: addresses of arrays, sizes, and what changes in the course of a text."""

(
    DATA, SLOTS, SLOTS_MASK, KEPT, KEPT_SLOTS, KEPT_MASK, PRUNED, ROWS, DIM, WORDS, BUCKET, MINN, MAXN,
    WORD_NGRAMS, ENDED, LINE_END, MEMORY, MEMORY_MASK, MEMORY_BYTES, MEMORY_ROWS, TEXT_END, MOST_WORDS, MOST_BYTES, MOST_ROWS,
    USED_WORDS, USED_BYTES, USED_ROWS, WORD, FOUND, TEXT_HASHES, BLOCK, BLOCK_SIZE, FILLED, SUMS, COUNT, TEXT_WORDS,
) = (U(place) for place in range(len(FIELDS)))  # fmt: skip
