"""A fastText model ready to predict: its arrays, what finds words in them, and what is remembered of words.

Reads a model's `Contents` and flat texts; gives the scores of labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.columns import Bounds
from gristmill.models.fasttext import kernels, lookup, scores
from gristmill.models.fasttext.context import FIELDS
from gristmill.models.fasttext.file import HIERARCHICAL, SOFTMAX, Contents
from gristmill.tokenizer.intrinsics import address_of

Bytes = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

WORDS, BYTES, ROWS = 1 << 17, 1 << 21, 1 << 21  # that are remembered of the words of a model with parts of words: 14 MB
BLOCK = 64  # rows that are asked for before they are added
COPIED = 1 << 28  # bytes of rows that each process has for itself; those of a larger model are shared, in the file
MARKS = b"</s>__label__"


class Engine:
    """A model's loops with their arrays; one call at a time."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        hierarchical = contents.loss == HIERARCHICAL
        self._output = np.ascontiguousarray(contents.output if hierarchical else contents.output.T)
        self._tree = scores.tree_of(contents.counts) if hierarchical else None
        self._longest = -1  # text that there is room for
        self._scratch: tuple[Bytes, npt.NDArray[np.uint64], npt.NDArray[np.uint32]]
        self._arrays: list[npt.NDArray[np.generic]] = []
        self._context = np.zeros(len(FIELDS), np.uint64)
        self._set_words()
        self._set_memory()
        starts, sizes, words = address_of(contents.starts), address_of(contents.sizes), np.uint64(len(contents.starts))
        lookup.enter(address_of(self._context), starts, sizes, words, np.uint64(self._kept))

    def scores(self, data: Bytes, bounds: Bounds, *, ended: bool, best_only: bool) -> Singles:
        """Return the scores of all labels, float32 [texts, labels], NaN for texts of which no row is known.

        Args:
            data, bounds: texts, see `columns.flat_texts`; newlines in them are white space.
            ended: a newline stands behind each.
            best_only: those of other labels than the best may be NaN.
        """
        texts, labels = len(bounds) - 1, len(self._contents.labels)
        means, counts = self._means(data, bounds, ended)
        out = np.full((texts, labels), np.nan, np.float32)
        if self._tree is not None:
            nodes, sums = np.zeros(2 * labels, np.int32), np.zeros(2 * labels, np.float32)
            scores.hierarchical(means, counts, self._output, self._tree, nodes, sums, best_only, out)
        elif self._contents.loss == SOFTMAX:
            scores.softmax(means, counts, self._output, out)
        else:
            scores.one_vs_all(means, counts, self._output, out)
        return out

    def _means(self, data: Bytes, bounds: Bounds, ended: bool) -> tuple[Singles, npt.NDArray[np.int64]]:
        """Return the mean of each text's rows, float32 [texts, dim], and how many there are, int64 [texts]."""
        texts, longest = len(bounds) - 1, int(np.diff(bounds).max(initial=0))
        means, counts = np.zeros((texts, self._contents.dim), np.float32), np.zeros(texts, np.int64)
        if longest > self._longest:  # kept, since fresh memory for a long text takes a tenth of the time of a table
            self._longest, words = longest, longest // 2 + 2
            self._scratch = (np.zeros(longest + 2, np.uint8), np.zeros((words, 2), np.uint64), np.zeros(words, np.uint32))
        word, found, hashes = self._scratch
        self._set(ended=int(ended), word=word, found=found, text_hashes=hashes, sums=means)
        self._set(text_end=data.ctypes.data + len(data))
        kernels.means(address_of(self._context), address_of(data), bounds, means, counts)
        return means, counts

    def _set(self, **values: int | npt.NDArray[np.generic]) -> None:
        """Write numbers, and addresses of arrays, which the caller keeps, into the context."""
        for name, value in values.items():
            place = FIELDS.index(name)
            self._context[place] = value if isinstance(value, int) else value.ctypes.data

    def _keep(self, **values: int | npt.NDArray[np.generic]) -> None:
        """The same of arrays that are kept here."""
        self._arrays += [value for value in values.values() if not isinstance(value, int)]
        self._set(**values)

    def _set_words(self) -> None:
        held = self._contents
        kept = np.zeros((0, 2), np.int32) if held.pruned is None else np.array(held.pruned)
        slots, kept_slots = np.zeros((_slots(len(held.starts)), 2), np.uint64), np.zeros(_slots(len(kept)), np.uint32)
        self._kept = len(kept)
        self._keep(data=held.data)
        self._keep(slots=slots, slots_mask=len(slots) - 1, words=held.words, line_end=np.frombuffer(MARKS, np.uint8))
        self._keep(kept=kept, kept_slots=kept_slots, kept_mask=len(kept_slots) - 1, pruned=int(held.pruned is not None))
        # In memory of our own numpy asks for huge pages, which takes a fifth off the time: most rows miss the tables of pages.
        rows = np.array(held.rows) if held.rows.nbytes <= COPIED else held.rows
        self._keep(rows=rows, dim=held.dim, bucket=held.bucket, minn=held.minn, maxn=held.maxn, word_ngrams=held.word_ngrams)
        size = max(BLOCK, held.maxn)  # all parts of a word that begin at one place wait at once, and one row more
        self._keep(block=np.zeros(size + 1, np.uint32), block_size=size)

    def _set_memory(self) -> None:
        words, data, rows = (WORDS, BYTES, ROWS) if self._contents.maxn > 0 else (0, 0, 0)
        memory = np.zeros((_slots(words), 2), np.uint64)
        self._keep(memory=memory, memory_mask=len(memory) - 1, most_words=words, most_bytes=data, most_rows=rows)
        self._keep(memory_bytes=np.zeros(data + 8, np.uint8), memory_rows=np.zeros(rows, np.uint32))


def _slots(entries: int) -> int:
    """Return the size of a table for so many entries: a power of 2, at most half full."""
    return 1 << max(1, 2 * entries - 1).bit_length()
