"""How text is cut before merging: the published split patterns by name, and pre-tokenizers made from them.

A pattern is a name of `PATTERNS` or one's own regular expression (Oniguruma syntax, as the tokenizers library has it).
Matches are pieces, and so are the gaps between them; no merge crosses the end of a piece.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gristmill.tokenizer.library_calls import library_call

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer


@dataclass(frozen=True)
class Pattern:
    """A split regex, or none if empty; `digits` puts runs of digits apart before it is applied (`each`: each digit)."""

    regex: str
    digits: bool | Literal["each"] = False


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+CONTRACTIONS|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*CONTRACTIONS|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_THOUSANDS = r"(?=(\d{3})+(?!\d))"  # cuts numbers into groups of three from the right

PATTERNS = {
    # Radford et al. 2019
    "gpt2": Pattern(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    # Grattafiori et al. 2024
    "llama3": Pattern(_CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    # GPT-4o, published with tiktoken
    "o200k": Pattern(_CASED.replace("CONTRACTIONS", f"{_CONTRACTIONS}?")),
    # Liu et al. 2025 (SuperBPE), the tokenizers of the paper: words, then everything but the groups of digits
    "superbpe_paper": Pattern(_THOUSANDS + r"| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", digits=True),
    "superbpe_paper_stage2": Pattern(_THOUSANDS, digits=True),
    # The authors' repository since November 2025
    "superbpe_repo": Pattern(_CASED.replace("CONTRACTIONS", "")),
    "superbpe_repo_stage2": Pattern(r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]{2,}[\r\n/]*| +(?!\S)"),
}


def find_pattern(text: str, key: str) -> Pattern:
    """Return the pattern of this name, or of this regular expression.

    Raises:
        ValueError: naming `key`: an unknown name, or an expression that does not compile.
    """
    if text in PATTERNS:
        return PATTERNS[text]
    if re.fullmatch(r"\w*", text):  # no one splits text at a bare word
        close = difflib.get_close_matches(text, PATTERNS, 1)
        advice = f" did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{key} has no pattern {text!r};{advice} known are {', '.join(PATTERNS)}, or give a regular expression")
    from tokenizers import Regex

    with library_call(lambda error: ValueError(f"{key} does not compile: {error}; found {text!r}")):
        Regex(text)
    return Pattern(text)


def steps(cuts: Sequence[Pattern]) -> list[PreTokenizer]:
    """Return the library's steps that cut text by these patterns one after the other."""
    from tokenizers import Regex, pre_tokenizers

    found: list[PreTokenizer] = []
    for cut in cuts:
        if cut.digits:
            found.append(pre_tokenizers.Digits(individual_digits=cut.digits == "each"))
        if cut.regex:
            found.append(pre_tokenizers.Split(Regex(cut.regex), "isolated"))
    return found


def pre_tokenizer(pattern: Pattern) -> PreTokenizer:
    """Return the library's byte-level pre-tokenizer that cuts text by `pattern`."""
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence([*steps([pattern]), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
