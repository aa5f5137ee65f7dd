"""MinHash as the docstrings say it, in plain Python integers: the transcription that the compiled loops are held against."""

from __future__ import annotations

import functools
import hashlib
import re

from stages.dedup.words import SEPARATORS, SINGLES

M64 = (1 << 64) - 1


def _set(ranges) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


SINGLE = f"[{_set(SINGLES)}]"
WORD = re.compile(rf"(?![{_set(SEPARATORS)}])(?:{SINGLE}|(?:(?!{SINGLE})[0-9A-Za-z\x80-\U0010ffff](?<![{_set(SEPARATORS)}]))+)")


def words(text: str) -> list[str]:
    return [re.sub("[A-Z]", lambda m: m[0].lower(), word) for word in WORD.findall(text)]


@functools.lru_cache(maxsize=4096)
def shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    """The word n-grams; all the words where there are fewer; nothing where there are none."""
    found = words(text)
    size = min(ngram, len(found))
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)} if size else set()


def word_hash(word: str) -> int:
    value = 0xCBF29CE484222325
    for byte in word.encode():
        value = (value ^ byte) * 0x100000001B3 & M64
    value = (value ^ (value >> 33)) * 0xFF51AFD7ED558CCD & M64
    value = (value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53 & M64
    return value ^ (value >> 33)


def shingle_hash(shingle: tuple[str, ...]) -> int:
    value = 0
    for word in shingle:
        value = (value * 0x9E3779B97F4A7C15 + word_hash(word)) & M64
    return (value * 0xFF51AFD7ED558CCD & M64) >> 32


def minhashes(text: str, ngram: int, lanes: int, seed: int) -> list[int]:
    hashes = [shingle_hash(shingle) for shingle in shingles(text, ngram)]
    result = []
    for lane in range(lanes):
        drawn = hashlib.blake2b(f"minhash {seed} {lane}".encode(), digest_size=8).digest()
        multiplier, increment = int.from_bytes(drawn[:4], "little") | 1, int.from_bytes(drawn[4:], "little")
        result.append(min(((h * multiplier + increment) % 2**32 for h in hashes), default=2**32 - 1))
    return result


def jaccard(a: str, b: str, ngram: int = 5) -> float:
    left, right = shingles(a, ngram), shingles(b, ngram)
    return len(left & right) / len(left | right)


def stars(rows: list[bytes], least: int, most: int) -> list[tuple[int, int, int]]:
    """The verified pairs of one bucket: (center, leaf, agreeing lanes)."""
    left, edges = list(range(len(rows))), []
    for _ in range(most):
        if len(left) < 2:
            break
        center, *others = left
        agree = {row: sum(x == y for x, y in zip(rows[center], rows[row], strict=True)) for row in others}
        edges += [(center, row, agree[row]) for row in others if agree[row] >= least]
        left = [row for row in others if agree[row] < least]
    return edges
