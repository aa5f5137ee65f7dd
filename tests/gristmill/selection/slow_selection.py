"""What policies select, in plain Python, one token after the other: what the fast way is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from hypothesis import strategies as st

from gristmill.selection.histogram import bins_of, starts_of
from gristmill.selection.selection import Tokens

NAN = float("nan")
SIGNALS = [("a", "nll"), ("b", "nll"), ("a", "entropy")]


@dataclass(frozen=True)
class Token:
    """A token: its signals by (model, name), its bytes, and the numbers of its document, its shard, and its place."""

    signals: dict
    size: int
    document: int
    shard: int
    place: int


def tokens_of(documents, shards=None):
    """Return the same tokens for the fast way and the slow; `documents`: lists of (values of SIGNALS, size)."""
    numbers = list(range(len(documents))) if shards is None else shards
    slow = [
        Token(dict(zip(SIGNALS, values, strict=True)), size, d, numbers[d], place)
        for d, document in enumerate(documents)
        for place, (values, size) in enumerate(document)
    ]
    signals = {key: np.array([token.signals[key] for token in slow], np.float16) for key in SIGNALS}
    bounds = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    lengths = np.array([token.size for token in slow], np.int32)
    starts = starts_of([f"document {number}" for number in range(len(documents))])
    return Tokens(signals, bounds, starts, lengths, np.array(numbers, np.uint64)), slow


def score(gate, token):
    """Return the score of a token as a float32 has it."""
    total = sum(term.weight * float(np.float16(token.signals[term.model, term.signal])) for term in gate.score)
    return float(np.float32(total / max(token.size, 1) if gate.per == "byte" else total))


def group(gate, token):
    """Return what a token's share is taken of."""
    if gate.scope == "sequence":
        return token.document, token.place // gate.sequence_tokens
    return {"global": 0, "shard": token.shard, "document": token.document}[gate.scope]


def candidates(policy, tokens):
    """Return which tokens have all scores."""
    return [not any(math.isnan(score(gate, token)) for gate in policy.gates()) for token in tokens]


def best(gate, tokens, counted):
    """Return which tokens are the best of their groups: the share of these that is nearest, and the score at each one's edge."""
    chosen, edges = [False] * len(tokens), [NAN] * len(tokens)
    groups = {}
    for at, token in enumerate(tokens):
        if counted[at]:
            groups.setdefault(group(gate, token), []).append(at)
    for places in groups.values():
        size = {at: max(tokens[at].size, 0) if gate.unit == "bytes" else 1 for at in places}
        goal = Fraction(repr(gate.keep)) * sum(size.values())
        sign = -1 if gate.direction == "high" else 1
        places.sort(key=lambda at: (sign * score(gate, tokens[at]), at))
        before, edge = 0, score(gate, tokens[places[0]])
        for at in places:
            if before + Fraction(size[at], 2) <= goal:
                chosen[at], edge = True, score(gate, tokens[at])
            before += size[at]
        for at in places:
            edges[at] = edge
    return chosen, edges


def passes(gate, tokens, counted):
    """Return which tokens pass a gate, and the score at each one's edge."""
    if gate.threshold is None:
        return best(gate, tokens, counted)
    beyond = [score(gate, token) > gate.threshold for token in tokens]
    return [yes if gate.direction == "high" else not yes for yes in beyond], [gate.threshold] * len(tokens)


def select(policy, tokens):
    """Return which tokens a policy selects."""
    counted = candidates(policy, tokens)
    out = counted
    for gate in policy.gates():
        out = [a and b for a, b in zip(out, passes(gate, tokens, counted)[0], strict=True)]
    return out


def weigh(policy, tokens):
    """Return the weights that a policy gives."""
    counted = candidates(policy, tokens)
    out = [float(yes) for yes in counted]
    for gate in policy.gates():
        chosen, edges = passes(gate, tokens, counted)
        for at, token in enumerate(tokens):
            if not counted[at]:
                continue
            if gate.soft is None:
                out[at] *= chosen[at]
                continue
            far = (score(gate, token) - edges[at]) / gate.soft * (1 if gate.direction == "high" else -1)
            out[at] *= 0.0 if far < -500 else 1 / (1 + math.exp(-far))
    return out


def at_the_edge(gate, tokens, counted):
    """Return which tokens are in the bin that the share ends in: which of these pass, the fast way may decide otherwise."""
    number = bins_of(np.array([score(gate, token) for token in tokens], np.float32)).tolist()
    found = [False] * len(tokens)
    for own in {group(gate, token) for token in tokens}:
        places = [at for at, token in enumerate(tokens) if counted[at] and group(gate, token) == own]
        size = {at: max(tokens[at].size, 0) if gate.unit == "bytes" else 1 for at in places}
        goal = Fraction(repr(gate.keep)) * sum(size.values())
        places.sort(key=lambda at: number[at], reverse=gate.direction == "high")
        total, edge = 0, None
        for at in places:
            total += size[at]
            if edge is None and total >= goal:
                edge = number[at]
        for at in places:
            found[at] = number[at] == edge or goal == 0  # any part of no bytes is no bytes
    return found


VALUE = st.one_of(st.sampled_from([0.0, 1.0, 1.25, 2.5, NAN]), st.floats(-20, 20, width=16))
TOKEN = st.tuples(st.tuples(VALUE, VALUE, VALUE), st.integers(-1, 9))
DOCUMENTS = st.lists(st.lists(TOKEN, max_size=12), min_size=1, max_size=6)


def documents(rng, count, longest):
    """Return documents of random tokens, the first of each without signals."""
    made = []
    for length in rng.integers(0, longest, count):
        values, sizes = rng.gamma(2.0, 1.5, (length, 3)), rng.integers(0, 14, length)
        values[:1] = np.nan
        made.append([(tuple(row), size) for row, size in zip(values.tolist(), sizes.tolist(), strict=True)])
    return made


@lru_cache
def many(tied=False, count=120, longest=900):
    """Return many such tokens, for the fast way alone; `tied`: with few different values."""
    rng = np.random.default_rng(9)
    bounds = np.append(0, np.cumsum(rng.integers(0, longest, count)))
    values = rng.gamma(2.0, 1.5, (3, bounds[-1]))
    values = np.round(values) if tied else values
    values[:, bounds[:-1][np.diff(bounds) > 0]] = np.nan
    lengths = rng.integers(0, 14, bounds[-1]).astype(np.int32)
    starts = starts_of([f"document {number}" for number in range(count)])
    signals = dict(zip(SIGNALS, values.astype(np.float16), strict=True))
    return Tokens(signals, bounds, starts, lengths, np.arange(count, dtype=np.uint64) % np.uint64(2))
