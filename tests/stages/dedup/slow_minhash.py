"""MinHash as the docstrings say it, in plain Python integers: the transcription that the compiled loops are held against."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

from gristmill.minhash.folding import NOTHING
from gristmill.minhash.words import SEPARATORS, SINGLES

M64 = (1 << 64) - 1


def _set(ranges) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


SINGLE = f"[{_set(SINGLES)}]"
LETTER = rf"(?:(?!{SINGLE})[0-9A-Za-z\x80-\U0010ffff](?<![{_set(SEPARATORS)}]))"
WORD = re.compile(rf"(?![{_set(SEPARATORS)}])(?:{SINGLE}|{LETTER}+)")
IGNORED = re.compile(f"[{_set(NOTHING)}]")
YEH_KAF = str.maketrans("\u064a\u0649\u0643\u0131", "\u06cc\u06cc\u06a9i")


@functools.cache
def kind(character: str) -> str:
    """mark, letter, single or separator."""
    if unicodedata.combining(character):
        return "mark"
    if not WORD.match(character):
        return "separator"
    return "single" if re.match(SINGLE, character) else "letter"


@functools.cache
def folded(character: str) -> str:
    """One character as it counts: without its width or joining form, decomposed, case folded."""
    text = character
    form, _, points = unicodedata.decomposition(character).partition("> ")
    if form in ("<wide", "<narrow", "<initial", "<medial", "<final", "<isolated") and " 0020" not in f" {points}":
        text = "".join(chr(int(point, 16)) for point in points.split())
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    if any(kind(part) in ("single", "separator") for part in text[1:]):
        text = character  # it would be several words
    return IGNORED.sub("", text).translate(YEH_KAF)


@functools.lru_cache(maxsize=4096)
def words(text: str, *, normalize: bool = True) -> list[str]:
    """The words, letters and marks as they count; a mark with nothing before it is none."""
    if not normalize:
        return [re.sub("[A-Z]", lambda m: m[0].lower(), word) for word in WORD.findall(text)]
    found, open_word = [], ""  # what the last character was: nothing, a letter or a single one
    for character in "".join(folded(character) for character in text):
        what = kind(character)
        if what == "mark":
            if open_word:
                found[-1] += character
            continue
        if what == "single" or (what == "letter" and open_word != "letter"):
            found.append(character)
        elif what == "letter":
            found[-1] += character
        open_word = "" if what == "separator" else what
    return found


@functools.lru_cache(maxsize=4096)
def shingles(text: str, ngram: int, normalize: bool = True) -> set[tuple[str, ...]]:
    """The word n-grams; all the words where there are fewer; nothing where there are none."""
    found = words(text, normalize=normalize)
    size = min(ngram, len(found))
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)} if size else set()


@functools.lru_cache(maxsize=65536)
def word_hash(word: str, normalize: bool = True) -> int:
    value = 0xCBF29CE484222325
    marks = 0
    for character in word:
        if normalize and kind(character) == "mark":
            marks += mixed(value + ord(character) * 0x9E3779B97F4A7C15 & M64)
        else:
            value = (value ^ ord(character)) * 0x100000001B3 & M64
    return mixed(value ^ marks & M64)


def mixed(value: int) -> int:
    value = (value ^ (value >> 33)) * 0xFF51AFD7ED558CCD & M64
    value = (value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53 & M64
    return value ^ (value >> 33)


def shingle_hash(shingle: tuple[str, ...], normalize: bool = True) -> int:
    value = 0
    for word in shingle:
        value = (value * 0x9E3779B97F4A7C15 + word_hash(word, normalize)) & M64
    return (value * 0xFF51AFD7ED558CCD & M64) >> 32


def minhashes(text: str, ngram: int, lanes: int, seed: int, normalize: bool = True) -> list[int]:
    hashes = [shingle_hash(shingle, normalize) for shingle in shingles(text, ngram, normalize)]
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
