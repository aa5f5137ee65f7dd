"""What the compiled loops of linear models compute, in plain Python: words, rows of n-grams, scores. Reads and writes nothing."""

from __future__ import annotations

import math

from gristmill.minhash.folding import KIND
from gristmill.minhash.words import LETTER, SEPARATOR
from gristmill.models.linear.characters import characters
from gristmill.models.linear.file import Features, Model, outputs_of

MASK = 2**64 - 1


def words(text: str, features: Features) -> list[int]:
    """Return the hashes of a text's words."""
    table = characters(features.words, features.lowercase)
    found: list[int] = []
    letters: list[int] = []
    for character in [*text[: features.max_chars], " "]:
        kind, code = divmod(int(table[ord(character)]), 1 << KIND)
        if kind == LETTER:
            letters.append(code)
            continue
        found += [_hash(letters)] * bool(letters) + [_hash([code])] * (kind != SEPARATOR)
        letters = []
    return found


def rows(text: str, features: Features) -> list[int]:
    """Return the rows of a text's n-grams."""
    hashes, found = words(text, features), list[int]()
    for length in range(1, features.ngrams + 1):
        for begin in range(len(hashes) - length + 1):
            value = 0
            for word in hashes[begin : begin + length]:
                value = (value * 0x9E3779B97F4A7C15 + word) & MASK
            found.append(value >> (64 - features.bits))
    return found


def probabilities(text: str, model: Model) -> list[float] | None:
    """Return the probability of each label, None for a text without a word."""
    found = rows(text, model.features)
    if not found:
        return None
    sums = [
        float(model.biases[k]) + model.unit * sum(int(model.weights[row, k]) for row in found) / math.sqrt(len(found))
        for k in range(outputs_of(model.labels))
    ]
    sums = [0.0, *sums] if len(sums) == 1 else sums
    powers = [math.exp(max(each - max(sums), -40)) for each in sums]
    return [power / sum(powers) for power in powers]


def _hash(codes: list[int]) -> int:
    value = 0xCBF29CE484222325
    for code in codes:
        value = ((value ^ code) * 0x100000001B3) & MASK
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * multiplier) & MASK
    return value ^ (value >> 33)
