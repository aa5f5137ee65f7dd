"""Which mixture of groups of text a tokenizer was trained on, read off the order of its merges.

Hayase et al. 2024, "Data Mixture Inference: What do BPE Tokenizers Reveal about their Training Data?", arXiv 2407.16607.
Reads a vocabulary and a sample of each group, such as a language; gives their shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gristmill.errors import InputError
from gristmill.tokenizer.measuring.pair_counts import history
from gristmill.tokenizer.measuring.program import solve
from gristmill.tokenizer.patterns import PATTERNS, Pattern
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.training.words import count_words
from gristmill.tokenizer.vocabulary import Vocabulary, is_superword

MERGES = 1000  # later ones change little and cost much
FEWEST_MERGES = 50

FIRST_STAGE = {
    PATTERNS["superbpe_paper_stage2"]: PATTERNS["superbpe_paper"],
    PATTERNS["superbpe_repo_stage2"]: PATTERNS["superbpe_repo"],
}
"""The pattern of the first stage of a published SuperBPE, by that of the second, which is all that its file has."""


@dataclass(frozen=True)
class Mixture:
    """What was found.

    `shares`: of the bytes of the training text, by group, sum 1. `merges`: how many were looked at; `seen`: how many of these
    join a pair that occurs in the sample. `slack`: how much of the counts of merged pairs had to be allowed for to make the
    order of merges come out; it falls with more text, and is high where the groups are not what the tokenizer was trained on.
    """

    shares: Mapping[str, float]
    merges: int
    seen: int
    slack: float


def infer(
    vocabulary: Vocabulary,
    corpus: Corpus,
    *,
    merges: int = MERGES,
    first_stage: Pattern | None = None,
    progress: Progress = silent,
) -> Mixture:
    """Return the mixture of the corpus's groups that the merges fit best.

    A trainer of byte-pair encoding merges the most frequent pair, again and again: so in its own text, after t merges, the
    pair of merge t is more frequent than any other. With the counts of pairs in a sample of each group that is a system of
    linear inequalities in the shares of the groups (`program.py`).

    What it cannot know: text of a group that is not in the corpus counts as those that are like it; a sample that is 5% less
    pure than the training text is found with 5% more of it.

    Args:
        vocabulary: with merges in the order in which they were learned.
        corpus: a sample of each group, of any sizes.
        merges: how many are looked at, from the first on.
        first_stage: how text was cut when they were learned; None: as the vocabulary cuts it, or as the first stage of the
            published SuperBPE that it is.
        progress: called with the words and with the rounds of the solver.

    Raises:
        InputError: fewer than two groups; a vocabulary without enough merges inside words, or one with superwords that
            does not say how words were cut.
    """
    if len(corpus.groups) < 2:
        found = f"{len(corpus.groups)} ({', '.join(corpus.groups)})"
        raise InputError(f"a mixture needs text of two groups at least, such as languages; the documents have {found}")
    cuts = _cuts(vocabulary, first_stage)
    known = first_merges(vocabulary, merges)
    if len(known) < FEWEST_MERGES:
        raise InputError(f"a mixture is read off {FEWEST_MERGES} merges inside words at least; the tokenizer has {len(known)}")
    words = count_words(corpus, cuts, progress)
    counted = history(words, known)
    scale = 1e6 / np.array([float(np.diff(part.offsets) @ part.counts) for part in words])  # counts in a million bytes
    solution = solve(replace(counted, counts=counted.counts * scale, merged=counted.merged * scale), progress)
    seen = int(counted.merged.any(axis=1).sum())
    return Mixture(dict(zip(corpus.groups, solution.shares.tolist(), strict=True)), len(known), seen, solution.slack)


def _cuts(vocabulary: Vocabulary, first_stage: Pattern | None) -> tuple[Pattern, ...]:
    """Return how text was cut when the first merges were learned."""
    if first_stage is not None:
        return (first_stage,)
    if len(vocabulary.cuts) == 1 and vocabulary.cuts[0] in FIRST_STAGE:
        return (FIRST_STAGE[vocabulary.cuts[0]],)
    inside = vocabulary.merges if vocabulary.whole is None else vocabulary.merges[~vocabulary.whole]
    if any(is_superword(vocabulary.tokens[joined]) for joined in inside[:, 2].tolist()):
        raise InputError(
            "the tokenizer has superwords, and its file does not say how words were cut when the merges before them were "
            "learned; name the pattern of its first stage, such as superbpe_paper or llama3"
        )
    return vocabulary.cuts


def first_merges(vocabulary: Vocabulary, limit: int) -> np.ndarray:
    """Return the first merges inside words, int64 [merges, 2]: ids below 256 are bytes, 256 + t is what merge t makes.

    They end before the first superword and the first merge of whole pieces. A file made from a list of tokens (tiktoken,
    Llama 3) has every way to join a token as a merge; the one that was learned joins what the tokens before it leave of it.
    """
    number = {i: byte for byte, i in enumerate(vocabulary.byte_ids().tolist()) if i >= 0}
    ranks: dict[tuple[int, int], int] = {}
    ways: dict[int, list[tuple[int, int]]] = {}
    whole = np.zeros(len(vocabulary.merges), bool) if vocabulary.whole is None else vocabulary.whole
    end = int(np.argmax(whole)) if whole.any() else len(whole)
    for left, right, joined in vocabulary.merges[:end].tolist():
        if joined not in ways and (len(ways) == limit or is_superword(vocabulary.tokens[joined])):
            break
        ways.setdefault(joined, []).append((left, right))
    learned: list[tuple[int, int]] = []
    for joined, pairs in ways.items():
        usable = [(number[left], number[right]) for left, right in pairs if left in number and right in number]
        if not usable:
            continue  # of tokens that no merge before it makes: nobody learned it
        pair = usable[0] if len(usable) == 1 else _left_over(vocabulary.tokens[joined], ranks, usable)
        number[joined] = 256 + len(learned)
        ranks[pair] = len(learned)
        learned.append(pair)
    return np.array(learned, np.int64).reshape(-1, 2)


def _left_over(token: bytes, ranks: Mapping[tuple[int, int], int], usable: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the two parts that the merges so far make of a token, or the first of the known pairs if there are more."""
    ids = list(token)
    while len(ids) > 2:
        rank, at = min((ranks.get((ids[i], ids[i + 1]), len(ranks)), i) for i in range(len(ids) - 1))
        if rank == len(ranks):
            return usable[0]
        ids[at : at + 2] = [256 + rank]
    pair = (ids[0], ids[1])
    return pair if pair in usable else usable[0]
