"""A trainer that recounts everything at every step: what the compiled one is compared with."""

import re
from collections import Counter
from itertools import pairwise

import numpy as np

from gristmill.tokenizer.training.rules import NO_RULES
from gristmill.tokenizer.training.stream import Stream


def stream(pieces, weights=None, groups=None):
    """`groups`: pieces of each group."""
    return Stream(
        np.array([i for piece in pieces for i in piece], np.int32),
        np.cumsum([len(piece) for piece in pieces]).astype(np.int64),
        None if weights is None else np.array(weights, np.int64),
        np.append(0, np.cumsum(groups or [len(pieces)])),
    )


def replaced(piece, pair, new):
    out, i = [], 0
    while i < len(piece):
        if tuple(piece[i : i + 2]) == pair:
            out.append(new)
            i += 1
        else:
            out.append(piece[i])
        i += 1
    return out


def words_of(token):
    """Words between white space of any kind; bytes that are no character are part of a word."""
    return len(token.decode("utf-8", "surrogateescape").split())


def obeys(token, units, rules):
    """The rules once more, on the joined token itself."""
    text = token.decode("utf-8", "replace")
    return (
        words_of(token) <= (rules.max_words or 999)
        and not (rules.forbid_colon and re.search(r":\s", token.decode("utf-8", "surrogateescape")))
        and units <= (rules.max_units or 999)
        and len(token) <= (rules.max_bytes or 999)
        and not (len(text) > 1 and ord(text[0]) in rules.no_leading)
    )


class Slow:
    """Recounts all pairs for each merge."""

    def __init__(self, pieces, tokens, weights=None, groups=None, rules=NO_RULES, min_frequency=1):
        self.pieces, self.tokens, self.rules, self.least = [list(piece) for piece in pieces], list(tokens), rules, min_frequency
        self.weights = weights or [1] * len(pieces)
        self.group_count = len(groups or [1])
        self.group_of = [g for g, count in enumerate(groups or [len(pieces)]) for _ in range(count)]
        self.units = [1] * len(tokens)
        self.initial = len(tokens)
        self.rows, self.counts, self.left = [], [], [self.lengths()]

    def lengths(self):
        out = [0] * self.group_count
        for group, piece, weight in zip(self.group_of, self.pieces, self.weights, strict=True):
            out[group] += len(piece) * weight
        return out

    def pairs(self, group=None):
        """The allowed pairs and their counts, in all or in one group."""
        counts = Counter()
        for where, piece, weight in zip(self.group_of, self.pieces, self.weights, strict=True):
            if group in (None, where):
                for pair in pairwise(piece):
                    counts[pair] += weight
        return {
            (a, b): n
            for (a, b), n in counts.items()
            if n >= self.least and obeys(self.tokens[a] + self.tokens[b], self.units[a] + self.units[b], self.rules)
        }

    def best(self, group=None):
        return min(self.pairs(group).items(), key=lambda item: (-item[1], item[0]), default=(None, 0))

    def merge(self, pair):
        token = self.tokens[pair[0]] + self.tokens[pair[1]]
        new = self.tokens.index(token) if token in self.tokens else len(self.tokens)
        if new == len(self.tokens):
            self.tokens.append(token)
            self.units.append(self.units[pair[0]] + self.units[pair[1]])
        self.rows.append([*pair, new])
        self.counts.append(self.pairs()[pair])
        self.pieces = [replaced(piece, pair, new) for piece in self.pieces]
        self.left.append(self.lengths())

    def learn(self, merges):
        while len(self.tokens) < self.initial + merges and (pair := self.best()[0]):
            self.merge(pair)
        return self

    def learn_eagerly(self, merges, targets):
        """With quotas, those behind first."""
        out = set()
        while len(self.tokens) < self.initial + merges:
            behind = {g: n / t for g, (n, t) in enumerate(zip(self.left[-1], targets, strict=True)) if n > t and g not in out}
            group = min(behind, key=lambda g: (-behind[g], g), default=None)
            pair = self.best(group)[0]
            if pair:
                self.merge(pair)
            elif group is None:
                break
            else:
                out.add(group)
        return self

    def learn_with_scaffolds(self, merges):
        """Algorithm 1 of Scaffold-BPE; the queue holds pairs and scaffold tokens."""
        self.marked = set()
        while True:
            pair, count = self.best()
            frequency = Counter(i for piece, w in zip(self.pieces, self.weights, strict=True) for i in piece * w)
            waiting = min(self.marked, key=lambda t: (-frequency[t], t), default=None)
            head = max(count, frequency[waiting] if waiting else 0)
            if self.rows:
                for part in self.rows[-1][:2]:
                    if part >= self.initial and frequency[part] < head and self.rows[-1] is not getattr(self, "judged", None):
                        self.marked.add(part)
                self.judged = self.rows[-1]
            if len(self.tokens) - self.initial - len(self.marked) >= merges:
                return self
            if waiting and frequency[waiting] == head >= self.least:
                self.marked.remove(waiting)
            elif pair:
                self.merge(pair)
            else:
                return self


def same(learned, slow):
    assert learned.merges.tolist() == slow.rows
    assert learned.counts.tolist() == slow.counts
    assert list(learned.tokens) == slow.tokens
    assert learned.group_tokens.tolist() == slow.left
