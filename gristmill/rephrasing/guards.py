"""Guards: what makes an answer no rephrasing, each with its reason, and what is taken off an answer that is one.

Pure functions on texts, but for the language, which a classifier says. The reasons: `cut`, `refusal`, `preamble_missing`,
`too_short`, `copy`, `language_changed`.
"""

from __future__ import annotations

import re

import pyarrow as pa

from gristmill.models.protocols import TextClassifier
from gristmill.rephrasing.prompt import Prompt

NGRAM = 5  # words in a row that a copy shares
SURE = 0.65  # of a language: what FineWeb's filter takes for one

_REFUSAL = re.compile(
    r"(i['’]m sorry|i am sorry|sorry, (but )?i|i apologi[sz]e|unfortunately, i (can|am)|i (can['’]?t|cannot|can not|won['’]?t)\b"
    r"|i(['’]| a)m (not able|unable) to|as an? (ai|artificial|large language)\b)",
    re.IGNORECASE,
)
# What models say before they begin, on a line of its own: "Sure! Here is the passage:".
_CHATTER = re.compile(r"(?:(?:sure|certainly|of course|okay)\b[^\n]{0,160}|here (?:is|are)\b[^\n]{0,160}:)\s*\n", re.IGNORECASE)
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)  # of a model that reasons, where its server leaves it in the answer
_CJK = "\u3040-\u30ff\u3400-\u9fff"  # scripts without spaces between words: a character counts as one
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def stripped(answer: str, preamble: str) -> str | None:
    """Return an answer without its preamble, or without chatter where none is asked for; None where the preamble is missing.

    Marks of emphasis around a preamble, upper case and white space make no difference.
    """
    text = answer.strip()
    if not preamble:
        chatter = _CHATTER.match(text)
        return text[chatter.end() :].strip() if chatter else text
    words = r"\s+".join(map(re.escape, preamble.split()))
    found = re.match(rf"[\s*_#>`\"“]*{words}[*_`\"”]*", text, re.IGNORECASE)
    return text[found.end() :].strip() if found else None


def refuses(answer: str) -> bool:
    """Tell whether an answer begins as refusals do."""
    return _REFUSAL.match(answer.strip().lstrip('*_"“ ')) is not None


def copied(answer: str, source: str) -> float:
    """Return the share of an answer's runs of five words that stand in the source too, 0 for an answer of fewer words.

    >>> copied("the mill grinds slow and fine", "The mill grinds slow and very fine")
    0.5
    >>> copied("the mill grinds slow and fine", "slow is the mill, and fine it grinds")
    0.0
    """
    own, others = _runs(answer), _runs(source)
    return len(own & others) / len(own) if own else 0.0


def fault(answer: str, finish: str, tokens: int, source: str, prompt: Prompt, most_copied: float) -> tuple[str, str | None]:
    """Return the text of an answer, and the reason not to take it, if there is one.

    Args:
        answer: as it came.
        finish: why the model ended: `length` where it was cut.
        tokens: in the answer.
        source: the segment that it is about.
        prompt: what was asked.
        most_copied: see `copied`; more is a copy.
    """
    answer = _THOUGHT.sub("", answer, count=1) if _THOUGHT.match(answer) else answer
    if finish == "length":
        return answer, "cut"
    if finish == "content_filter" or refuses(answer):
        return answer, "refusal"
    text = stripped(answer, prompt.preamble)
    if text is None:
        return answer, "preamble_missing"
    if not text or tokens < prompt.least_tokens:
        return text, "too_short"
    if refuses(text):
        return text, "refusal"
    return text, "copy" if copied(text, source) > most_copied else None


def changed_language(answers: list[str], sources: list[str], classifier: TextClassifier) -> list[bool]:
    """Tell of each answer whether it is surely in another language than its source, which is surely in one."""
    if not answers:
        return []
    found = classifier.classify(pa.array([*answers, *sources], pa.string()))
    labels, sure = found.labels[:, 0], found.scores[:, 0] >= SURE
    half = len(answers)
    both = sure[:half] & sure[half:] & (labels[:half] != labels[half:])
    return [bool(each) for each in both]


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return {tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)}
