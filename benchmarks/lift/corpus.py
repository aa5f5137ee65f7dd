"""The corpus of the experiment: clean documents cut into parts, and noise planted into two of them, every span with its label.

Reads documents; writes nothing. Everything follows from the documents and the seed. Three kinds of noise, equal shares of tokens:

- `unigram`: tokens drawn one by one by their frequency: no model can learn them, and each has a high loss for ever;
- `boilerplate`: one of a few passages, word for word: learned at once, and worth nothing after that;
- `foreign`: passages in other languages, twice the same at most; where there are too few, passages of the clean text in a cipher
  (each token replaced by another, always the same one): text with a structure that can be learned, and does not help.

Spans are put between tokens of a document, never before its first or behind its last: what is not labelled is the clean text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.lift.documents import Documents, Ids, Source

CLEAN = 0
REPEATED = 2  # passages in other languages, in the train set
KINDS = ("unigram", "boilerplate", "foreign")  # labels 1, 2, 3

Labels = npt.NDArray[np.uint8]
Span = tuple[int, Ids]  # label, tokens


@dataclass(frozen=True, kw_only=True)
class Planting:
    """How the corpus is made: shares of all clean tokens, of noise in what it is planted into, and the lengths of spans."""

    noise: float = 0.3
    curated: float = 0.15
    held: float = 0.08
    shortest: int = 16
    longest: int = 96
    passages: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise is {self.noise!r}; allowed are 0 to below 1")
        if not (self.curated > 0 and self.held > 0 and self.curated + self.held < 1):
            raise ValueError(f"curated is {self.curated!r}, held {self.held!r}; both above 0, together below 1")
        if not 1 <= self.shortest <= self.longest or self.passages < 1:
            found = f"spans of {self.shortest} to {self.longest} tokens, {self.passages} passages"
            raise ValueError(f"{found}; give at least 1 of each, and the shortest first")


@dataclass(frozen=True)
class Planted:
    """Documents with noise in them; labels uint8 [tokens]: 0 clean, else 1 + the place in `KINDS`."""

    documents: Documents
    labels: Labels

    @property
    def noise(self) -> float:
        """Return the share of tokens that was planted."""
        return float(np.mean(self.labels != CLEAN)) if len(self.labels) else 0.0


@dataclass(frozen=True)
class Corpus:
    """`train` and `held_noisy` have noise; `curated` and `held` have none, and `held_noisy` is `held` with noise put in.

    `cipher`: whether passages in a cipher stand for those in other languages.
    """

    train: Planted
    curated: Documents
    held: Documents
    held_noisy: Planted
    cipher: bool


@dataclass(frozen=True)
class Sources:
    """What noise is made of: counts of ids up to each, int64 [vocabulary]; passages to repeat; a stream of foreign tokens."""

    cumulative: npt.NDArray[np.int64]
    passages: tuple[Ids, ...]
    foreign: Ids


def make_corpus(source: Source, how: Planting) -> Corpus:
    """Cut and plant; deterministic."""
    rng = np.random.default_rng([how.seed, 0])
    train, curated, held = cut(source.main, (how.curated, how.held), rng)
    eos = source.tokenizer.eos_id
    own = train.ids[train.ids != eos] if eos is not None else train.ids
    train_count, held_count = (quota(len(part.ids), how.noise, len(KINDS))[-1] for part in (train, held))
    foreign = source.foreign.ids[source.foreign.ids != eos] if eos is not None else source.foreign.ids
    if cipher := len(foreign) < held_count + train_count / REPEATED:
        foreign = in_cipher(own, train_count + held_count, source.tokenizer.vocab_size, rng)
    streams = apart(foreign, train_count, held_count)
    cumulative = np.cumsum(np.bincount(own, minlength=source.tokenizer.vocab_size))
    passages = tuple(passage(own, how, rng) for _ in range(how.passages))
    noisy = [
        plant(part, Sources(cumulative, passages, stream), how, np.random.default_rng([how.seed, number]))
        for number, part, stream in zip((1, 2), (train, held), streams, strict=True)
    ]
    return Corpus(noisy[0], curated, held, noisy[1], cipher)


def cut(documents: Documents, shares: tuple[float, float], rng: np.random.Generator) -> tuple[Documents, Documents, Documents]:
    """Return whole documents, shuffled: all that is left, and two parts of about these shares of all tokens."""
    rows = rng.permutation(len(documents))
    ends = np.cumsum(np.diff(documents.bounds)[rows]) / max(len(documents.ids), 1)
    first, second = np.searchsorted(ends, [shares[0], shares[0] + shares[1]]) + 1
    second = max(second, first + 1)
    if second >= len(rows):
        raise ValueError(
            f"{len(rows)} documents are too few to hold out shares of {shares[0]} and {shares[1]} and train on the rest"
        )
    return documents.take(rows[second:]), documents.take(rows[:first]), documents.take(rows[first:second])


def quota(clean: int, noise: float, kinds: int) -> list[int]:
    """Return how many tokens of each kind make `noise` the share of all, where `clean` are there already."""
    total = round(clean * noise / (1 - noise))
    return [total * (kind + 1) // kinds - total * kind // kinds for kind in range(kinds)]


def apart(foreign: Ids, train: int, held: int) -> tuple[Ids, Ids]:
    """Return two streams of so many tokens that share none; the first begins again where there are too few."""
    first = min(train, len(foreign) - held)
    return np.resize(foreign[:first], train), foreign[first : first + held]


def in_cipher(own: Ids, count: int, vocab_size: int, rng: np.random.Generator) -> Ids:
    """Return `count` tokens of the text from some place on, each token replaced by the one that stands for it."""
    key = np.arange(vocab_size)
    used = np.unique(own)
    key[used] = used[rng.permutation(len(used))]
    begin = int(rng.integers(len(own)))
    found: Ids = key[own[(begin + np.arange(count)) % len(own)]].astype(own.dtype)
    return found


def passage(own: Ids, how: Planting, rng: np.random.Generator) -> Ids:
    """Return a stretch of the text."""
    length = int(rng.integers(how.shortest, how.longest + 1))
    begin = int(rng.integers(max(len(own) - length, 0) + 1))
    return own[begin : begin + length].copy()


def plant(documents: Documents, sources: Sources, how: Planting, rng: np.random.Generator) -> Planted:
    """Put spans of noise into documents, at places drawn evenly from those between two tokens of one document."""
    counts = quota(len(documents.ids), how.noise, len(KINDS))
    spans = [span for kind, count in enumerate(counts) for span in draw(kind, count, sources, how, rng)]
    gaps = np.setdiff1d(np.arange(len(documents.ids)), documents.bounds)
    if not len(gaps) or not spans:
        return Planted(documents, np.zeros(len(documents.ids), np.uint8))
    order = rng.permutation(len(spans))
    places = np.sort(rng.choice(gaps, len(spans)))
    sizes = np.array([len(spans[number][1]) for number in order], np.int64)
    where = np.repeat(places, sizes)
    ids = np.insert(documents.ids, where, np.concatenate([spans[number][1] for number in order]))
    labels = np.insert(
        np.zeros(len(documents.ids), np.uint8), where, np.repeat([spans[number][0] for number in order], sizes).astype(np.uint8)
    )
    grown = np.concatenate([[0], np.cumsum(sizes)])[np.searchsorted(places, documents.bounds)]
    return Planted(Documents(ids, documents.bounds + grown), labels)


def draw(kind: int, count: int, sources: Sources, how: Planting, rng: np.random.Generator) -> list[Span]:
    """Return spans of one kind with `count` tokens together; the last may be shorter than others."""
    spans = list[Span]()
    done = 0
    while done < count:
        length = min(int(rng.integers(how.shortest, how.longest + 1)), count - done)
        tokens: Any
        if KINDS[kind] == "unigram":
            found = np.searchsorted(sources.cumulative, rng.random(length) * sources.cumulative[-1], side="right")
            tokens = found.astype(sources.foreign.dtype)
        elif KINDS[kind] == "boilerplate":
            tokens = sources.passages[int(rng.integers(len(sources.passages)))][: count - done]
        else:
            tokens = sources.foreign[done : done + length]
        spans.append((kind + 1, tokens))
        done += len(tokens)
    return spans
