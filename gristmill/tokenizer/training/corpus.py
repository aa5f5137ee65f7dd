"""The texts a tokenizer is trained on: batches of documents by group, and where work on them runs.

Reads texts that the caller holds; writes nothing. What is learned must not depend on how texts fall into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from gristmill.tokenizer.json_parts import Step

BATCH_BYTES = 4_000_000

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some documents of one group.

    `text`: uint8 [bytes], UTF-8 of all of them. `offsets`: int64 [documents + 1]. `group`: number of the group.
    """

    text: np.ndarray
    offsets: np.ndarray
    group: int = 0

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.offsets) - 1

    def documents(self) -> Iterator[bytes]:
        """Yield each document."""
        data = self.text.tobytes()
        for begin, end in zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield data[begin:end]


def normalized(corpus: Corpus, normalizer: Step | None) -> Corpus:
    """Return the corpus as a normalizer of a `tokenizer.json` leaves it; the same one for None."""
    if normalizer is None:
        return corpus
    from gristmill.tokenizer.encoding.normalizing import Normalizer

    change = Normalizer(normalizer)
    return replace(corpus, batches=tuple(Batch(*change(b.text, b.offsets), b.group) for b in corpus.batches))


def here(begin: Callable[[], Callable[[Any], T]], batches: Sequence[Batch]) -> Iterator[T]:
    """Do the work in this process."""
    return map(begin(), batches)


@dataclass(frozen=True)
class Corpus:
    """Batches in the order of their groups, and where work on them is done.

    `groups`: the name of each group, such as a language. `run(begin, batches)` calls `begin` once in each process that
    takes part, which gives the work, and yields work(batch) in the order of batches.
    """

    batches: tuple[Batch, ...]
    groups: tuple[str, ...]
    run: Callable[[Callable[[], Callable[[Any], Any]], Sequence[Batch]], Iterator[Any]] = here

    @property
    def bytes(self) -> int:
        """Return the bytes of all texts."""
        return sum(len(batch.text) for batch in self.batches)

    def split(self, limit: int, every: int) -> tuple[Corpus, Corpus]:
        """Return about `limit` bytes of the documents, and apart from them one document in `every` as many.

        What a document is decided by is its text, not its place: another order of documents gives the same ones.
        """
        drawn = -(-self.bytes // limit)
        first = self._where(lambda number: number % drawn == 0 and number // drawn % every > 0)
        second = self._where(lambda number: number % drawn == 0 and number // drawn % every == 0)
        return first, second

    def _where(self, keep: Callable[[int], bool]) -> Corpus:
        """Return the documents whose checksum is to be kept; groups stay, be they empty."""
        batches = list[Batch]()
        for batch in self.batches:
            texts = [text for text in batch.documents() if keep(crc32(text))]
            if texts:
                batches.append(_batch(texts, batch.group))
        return replace(self, batches=tuple(batches))


def make_corpus(texts: Iterable[str | bytes], groups: Iterable[str] | None = None, batch_bytes: int = BATCH_BYTES) -> Corpus:
    """Return the corpus of texts in memory.

    Args:
        texts: documents; empty ones are left out.
        groups: of each document; None puts all into one.
        batch_bytes: a batch ends when it holds so many.

    Raises:
        ValueError: no text at all, or no group for some.
    """
    held = [text.encode() if isinstance(text, str) else text for text in texts]
    names = [""] * len(held) if groups is None else list(groups)
    if len(names) != len(held):
        raise ValueError(f"groups must name one for each of {len(held)} texts, found {len(names)}")
    by_group: dict[str, list[bytes]] = {}
    for name, text in zip(names, held, strict=True):
        if text:
            by_group.setdefault(name, []).append(text)
    if not by_group:
        raise ValueError("texts are empty: there is nothing to train on")
    known = tuple(sorted(by_group))
    batches = [batch for number, name in enumerate(known) for batch in _batches(by_group[name], number, batch_bytes)]
    return Corpus(tuple(batches), known)


def _batches(texts: Sequence[bytes], group: int, batch_bytes: int) -> Iterator[Batch]:
    held: list[bytes] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= batch_bytes:
            yield _batch(held, group)
            held, size = [], 0
    if held:
        yield _batch(held, group)


def _batch(texts: Sequence[bytes], group: int) -> Batch:
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return Batch(np.frombuffer(bytearray().join(texts), np.uint8), offsets, group)
