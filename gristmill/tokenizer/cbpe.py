"""Constrained BPE (MorphTok, Brahma et al. 2025, arXiv 2504.10335): no token begins with a dependent vowel.

In Indic scripts a dependent vowel is written on the consonant before it, so a token that begins with one begins inside a
syllable. Reads texts, gives an ordinary BPE vocabulary: the constraint shapes the merges, encoding knows nothing of it.

Ours differs from the paper's in three ways. It merges bytes, not characters: a vowel may still be a token of its own, as it
may there, and a token may begin with the last bytes of one. The paper constrains Hindi and Marathi; here the scripts are a
parameter. The paper's segmentation into morphemes before BPE is not part of it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from gristmill.tokenizer.bpe import train_words
from gristmill.tokenizer.patterns import find_pattern, pre_tokenizer
from gristmill.tokenizer.progress import Progress, silent
from gristmill.tokenizer.scheme import Note, Scheme, unnoted
from gristmill.tokenizer.training.corpus import Corpus
from gristmill.tokenizer.training.rules import Rules
from gristmill.tokenizer.vocabulary import Vocabulary

VOWELS = {
    "bengali": "9BE-9C4 9C7-9C8 9CB-9CC 9D7 9E2-9E3",
    "devanagari": "93A-93B 93E-94C 94E-94F 955-957 962-963 A8FF",
    "gujarati": "ABE-AC5 AC7-AC9 ACB-ACC AE2-AE3",
    "gurmukhi": "A3E-A42 A47-A48 A4B-A4C",
    "kannada": "CBE-CC4 CC6-CC8 CCA-CCC CD5-CD6 CE2-CE3",
    "khmer": "17B6-17C5 17C8",
    "malayalam": "D3E-D44 D46-D48 D4A-D4C D57 D62-D63",
    "meetei_mayek": "AAEB-AAEF ABE3-ABEA",
    "myanmar": "102B-1035 1056-1059 1062 1067-1068 1071-1074 1083-1086 109C-109D A9E5",
    "oriya": "B3E-B44 B47-B48 B4B-B4C B53-B57 B62-B63",
    "sinhala": "DCF-DD4 DD6 DD8-DDF DF2-DF3",
    "tamil": "BBE-BC2 BC6-BC8 BCA-BCC BD7",
    "telugu": "C3E-C44 C46-C48 C4A-C4C C55-C56 C62-C63",
    "tibetan": "F71-F7D F80-F81",
}
"""The dependent vowels of each script: the code points with Indic_Syllabic_Category=Vowel_Dependent in the Unicode Character
Database (IndicSyllabicCategory.txt). Left out are scripts that no living language is printed in, and Thai, Lao and their
kin, where some of these vowels are written before their consonant."""

INDIAN = ("bengali", "devanagari", "gujarati", "gurmukhi", "kannada", "malayalam", "oriya", "sinhala", "tamil", "telugu")


@dataclass(frozen=True, kw_only=True)
class CBpe(Scheme):
    """BPE inside the pieces of one split pattern, where no token begins with one of some characters and goes on after it.

    `pattern`: o200k, superbpe_repo, or a regular expression that does not cut before these characters, as gpt2, llama3 and
        superbpe_paper do: for them a word ends at a mark.
    `scripts`: those whose dependent vowels are meant: names in `VOWELS`. `code_points`: further characters, as numbers.
    """

    pattern: str = "o200k"
    scripts: tuple[str, ...] = INDIAN
    code_points: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the scripts, the characters and that the pattern keeps them with what is before them."""
        super().__post_init__()
        cut = pre_tokenizer(find_pattern(self.pattern, "pattern"))
        for name in self.scripts:
            if name not in VOWELS:
                close = difflib.get_close_matches(name, VOWELS, 1)
                advice = f" did you mean {close[0]!r}?" if close else ""
                raise ValueError(f"scripts has no {name!r};{advice} known are {', '.join(VOWELS)}, or give code_points")
        for point in self.code_points:
            if not 0 <= point <= 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                raise ValueError(f"code_points must be Unicode code points such as 0x93E, found {point}")
        if not self.leading:
            raise ValueError("scripts and code_points are empty: nothing is constrained; use the scheme bpe for that")
        # Not any: the library's Unicode is older than the newest vowels.
        if all(len(cut.pre_tokenize_str("क" + chr(point))) > 1 for point in self.leading):
            raise ValueError(
                f"pattern {self.pattern!r} cuts between a letter and U+{self.leading[0]:04X}, so no token could hold both; "
                "use o200k, superbpe_repo, or an expression that keeps marks (\\p{M}) with letters"
            )

    @property
    def leading(self) -> tuple[int, ...]:
        """Return the code points with which no longer token begins, ascending."""
        return tuple(sorted({*self.code_points, *(point for name in self.scripts for point in dependent_vowels(name))}))

    def train(self, corpus: Corpus, progress: Progress = silent, note: Note = unnoted) -> Vocabulary:
        """See `Scheme.train`."""
        cuts = [find_pattern(self.pattern, "pattern")]
        return train_words(self, cuts, self.vocab_size, corpus, progress, Rules(no_leading=self.leading))[0]


def dependent_vowels(script: str) -> list[int]:
    """Return the code points of a script in `VOWELS`, ascending."""
    ends = [[int(end, 16) for end in part.split("-")] for part in VOWELS[script].split()]
    return [point for part in ends for point in range(part[0], part[-1] + 1)]
