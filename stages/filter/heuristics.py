"""Rules of thumb on text: Gopher's repetition and quality rules, C4's and FineWeb's, as datatrove decides them.

Reads `text`, and `language` where a stage before added it; names the first rule that a document breaks, with datatrove's own
reason. C4 also rewrites `text`. datatrove's classes are the reference implementation of these filters, so they are what runs
here.

Words depend on the language. datatrove assigns a splitter to most codes; those that run on spaCy or white space alone are
used as they are. For the others (Chinese, Japanese, Thai, Hindi, ...) it needs packages that are not part of this project,
and what came out would depend on what happens to be installed: such documents are dropped as `no_word_splitter`, which the
report then shows. Keep them by leaving these filters out, or by filtering on the language first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import replace, whole
from gristmill.errors import InputError
from pipeline.conditions import asked_about, spread
from pipeline.finding import Finding, Limit
from pipeline.schema import DROP
from pipeline.stage import CONDITION, Filter, Judge, Map, Stage, Transform
from stages.filter.comparisons import compared

LIBRARIES = ("datatrove", "spacy", "python")  # Python tells what a letter is
ENGLISH = "en"
NO_SPLITTER = "no_word_splitter"
# spaCy's splitters of these need packages of their own, or none fits (datatrove gives `zh` white space).
UNSPLIT = frozenset({"ja", "vi", "zh"})


@dataclass(frozen=True, kw_only=True)
class GopherRepetition(Filter):
    """Drop documents that repeat lines, paragraphs or n-grams too much (Gopher, Rae et al. 2021, table A1).

    Fractions are of elements or of characters; `top_n_grams` and `dup_n_grams` are pairs of n and the largest share of
    characters. `language` splits the words of documents that have no `language` column.
    """

    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    language: str = ENGLISH

    def __post_init__(self) -> None:
        _fractions(self, "dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")
        for name in ("top_n_grams", "dup_n_grams"):
            for n, share in getattr(self, name):
                if n < 1 or not 0 <= share <= 1:
                    raise ValueError(f"{name}: {(n, share)} should be n of at least 1 and a share between 0 and 1")

    def libraries(self) -> tuple[str, ...]:
        """Return what decides, and what splits words."""
        return LIBRARIES

    def check(self) -> None:
        """Raise InputError when words of `language` cannot be split."""
        _check_language(self.language)

    def open(self) -> Judge:
        """Return f(docs) → reasons."""
        from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

        parameters = _parameters(self)
        return _judge(lambda language: GopherRepetitionFilter(**parameters, language=language), self.language)

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the shares of each rule; see `Stage.explain`."""
        from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter

        names = {
            "dup_para_frac": ["duplicate_paragraphs"],
            "dup_para_char_frac": ["characters_in_duplicate_paragraphs"],
            "dup_line_frac": ["duplicate_lines"],
            "dup_line_char_frac": ["characters_in_duplicate_lines"],
            "top_n_grams": ["top_{}_gram"],
            "dup_n_grams": ["duplicate_{}_grams"],
        }
        return _compared(GopherRepetitionFilter, _parameters(self), names, before, self.language)


@dataclass(frozen=True, kw_only=True)
class GopherQuality(Filter):
    """Drop documents that do not look like prose (Gopher, Rae et al. 2021, A1.1).

    Word counts leave out words of punctuation alone. `max_non_alpha_words_ratio` is datatrove's name for the *smallest* share
    of words with a letter. `stop_words` are Gopher's eight English ones unless given; these say nothing of other languages,
    so unless they are given the rule is applied to English documents only. None switches a rule off. `language` splits the
    words of documents that have no `language` column.
    """

    min_doc_words: int | None = 50
    max_doc_words: int | None = 100_000
    min_avg_word_length: int | None = 3
    max_avg_word_length: int | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    max_non_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] | None = None
    language: str = ENGLISH

    def __post_init__(self) -> None:
        _fractions(
            self, "max_symbol_word_ratio", "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio"
        )
        for low, high in (("min_doc_words", "max_doc_words"), ("min_avg_word_length", "max_avg_word_length")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(f"{low} is {least}, above {high} = {most}: no document would be kept")

    def libraries(self) -> tuple[str, ...]:
        """Return what decides, and what splits words."""
        return LIBRARIES

    def check(self) -> None:
        """Raise InputError when words of `language` cannot be split."""
        _check_language(self.language)

    def open(self) -> Judge:
        """Return f(docs) → reasons."""
        return _judge(self._reference, self.language)

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the number that each rule compares; see `Stage.explain`."""
        from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter

        names = {
            "min_doc_words": ["words"],  # without those of punctuation alone
            "max_doc_words": ["words"],
            "min_avg_word_length": ["mean_word_length"],
            "max_avg_word_length": ["mean_word_length"],
            "max_symbol_word_ratio": ["hashes_per_word", "ellipses_per_word"],
            "max_bullet_lines_ratio": ["bullet_lines"],  # share of lines
            "max_ellipsis_lines_ratio": ["ellipsis_lines"],  # share of lines
            "max_non_alpha_words_ratio": ["alpha_words"],  # share of words
            "min_stop_words": ["stop_words"],  # different ones
        }
        parameters = self._given(_languages(before, self.language)[0])
        return _compared(GopherQualityFilter, parameters, names, before, self.language)

    def _reference(self, language: str) -> Any:  # noqa: ANN401 - datatrove has no types
        from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter

        return GopherQualityFilter(**self._given(language), language=language)

    def _given(self, language: str) -> dict[str, Any]:
        """Return what datatrove's class is given for documents in this language."""
        parameters = _parameters(self)
        return parameters if self.stop_words is not None or language == ENGLISH else {**parameters, "min_stop_words": None}


@dataclass(frozen=True, kw_only=True)
class FinewebQuality(Filter):
    """Drop documents whose lines look like lists or menus (FineWeb, Penedo et al. 2024, section 3.6).

    `stop_chars` end a sentence; all scripts' terminal punctuation unless given. `language` splits the words of documents that
    have no `language` column.
    """

    line_punct_thr: float = 0.12
    line_punct_exclude_zero: bool = False
    stop_chars: tuple[str, ...] | None = None
    short_line_thr: float = 0.67
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    new_line_ratio: float = 0.3
    language: str = ENGLISH

    def __post_init__(self) -> None:
        _fractions(self, "line_punct_thr", "short_line_thr", "char_duplicates_ratio")

    def libraries(self) -> tuple[str, ...]:
        """Return what decides, and what splits words."""
        return LIBRARIES

    def check(self) -> None:
        """Raise InputError when words of `language` cannot be split."""
        _check_language(self.language)

    def open(self) -> Judge:
        """Return f(docs) → reasons."""
        from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

        parameters = _parameters(self)
        return _judge(lambda language: FineWebQualityFilter(**parameters, language=language), self.language)

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the share of each rule; see `Stage.explain`."""
        from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter

        names = {
            "line_punct_thr": ["lines_ending_a_sentence"],
            "short_line_thr": ["short_lines"],
            "char_duplicates_ratio": ["characters_in_duplicate_lines"],
            "new_line_ratio": ["newlines_per_word"],
        }
        return _compared(FineWebQualityFilter, _parameters(self), names, before, self.language)


@dataclass(frozen=True, kw_only=True)
class C4Quality(Map):
    """Drop lines that are not sentences, then documents that have too few left (C4, Raffel et al. 2020, section 2.2).

    It rewrites `text`: lines without terminal punctuation, of fewer than `min_words_per_line` words, with a word of more than
    `max_word_length` characters, about JavaScript or cookies go, and citation marks. -1 switches a bound off. With
    `split_paragraph` false sentences are judged instead of lines. The list of bad words is not applied. `language` splits the
    sentences of documents that have no `language` column. Documents for which `unless` is true stay as they are.
    """

    split_paragraph: bool = True
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True
    language: str = ENGLISH
    unless: str | None = field(default=None, metadata=CONDITION)

    def libraries(self) -> tuple[str, ...]:
        """Return what decides, and what splits words."""
        return LIBRARIES

    def check(self) -> None:
        """Raise InputError when words of `language` cannot be split."""
        _check_language(self.language)

    def open(self) -> Transform:
        """Return f(docs) → docs with `text` and `drop`."""
        from datatrove.pipeline.filters.c4_filters import C4QualityFilter

        parameters = _parameters(self)
        verdicts = _verdicts(lambda language: C4QualityFilter(**parameters, language=language), self.language)

        def transform(docs: pa.Table) -> pa.Table:
            found = verdicts(docs)
            texts = pa.array([text for _, text in found], pa.string())
            return replace(docs, {"text": texts}).append_column(DROP, pa.array([reason for reason, _ in found], pa.string()))

        return transform if self.unless is None else _but_for(self.unless, transform)

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the sentences that are left, and how many lines went for each reason; see `Stage.explain`."""
        from datatrove.pipeline.filters.c4_filters import C4QualityFilter

        asked: list[Any] = []

        def counting(**given: Any) -> Any:  # noqa: ANN401 - datatrove has no types
            asked.append(C4QualityFilter(**given))
            return asked[-1]

        found = _compared(counting, _parameters(self), {"min_num_sentences": ["sentences"]}, before, self.language)
        counts = asked[-1].stats.stats if asked else {}
        lines = [Finding(shown, round(counts[name].total)) for name, shown in C4_LINES.items() if name in counts]
        for name, parameter in C4_GONE.items():
            if name not in counts:
                continue
            limit = Limit(parameter, getattr(self, parameter), "by")
            lines.append(Finding(f"lines_{name.removeprefix('line-filter-')}", round(counts[name].total), (limit,)))
        reason = after[DROP][0].as_py()
        if reason in C4_WORDS:
            parameter = C4_WORDS[reason]
            limit = Limit(parameter, getattr(self, parameter), "by", broken=True)
            found = [Finding(reason, "found", (limit,), decisive=True), *found]
        return [*found, *lines]


def _but_for(unless: str, transform: Transform) -> Transform:
    """Return f(docs) → docs with `text` and `drop`: as they are where `unless` is true, else as `transform` has them."""
    asked_of = asked_about(unless)

    def transformed(docs: pa.Table) -> pa.Table:
        asked = asked_of(docs)
        done = transform(docs.filter(asked))
        texts, drop = (spread(whole(done[name]), asked) for name in ("text", DROP))
        return replace(docs, {"text": pc.if_else(asked, texts, docs["text"])}).append_column(DROP, drop)

    return transformed


C4_LINES = {"line-total": "lines", "line-kept": "lines_kept"}
"""Two of the counts that datatrove's C4 filter keeps, and their names here."""

C4_WORDS = {"lorem_ipsum": "filter_lorem_ipsum", "curly_bracket": "filter_curly_bracket"}
"""What drops a document wherever it stands in it: the reason, and the parameter that it is for."""

C4_GONE = {
    "line-filter-too_long_word": "max_word_length",
    "line-filter-no_terminal_punc": "filter_no_terminal_punct",
    "line-filter-too_few_words": "min_words_per_line",
    "line-filter-javascript": "filter_javascript",
    "line-filter-policy": "filter_policy",
}
"""Its counts of lines that go, each with the parameter that it is for."""


def _compared(
    kind: Callable[..., Any], parameters: Mapping[str, Any], names: Mapping[str, Sequence[str]], before: pa.Table, default: str
) -> list[Finding]:
    """Return what a filter of datatrove compares for one document; nothing where its words cannot be split."""

    def keeps(given: dict[str, Any]) -> bool:
        (found,) = _verdicts(lambda language: kind(**given, language=language), default)(before)
        return found[0] is None

    return compared(parameters, names, keeps) if _splits(_languages(before, default)[0]) else []


def _judge(build: Callable[[str], Any], default: str) -> Judge:
    """Return f(docs) → reasons; see `_verdicts`."""
    verdicts = _verdicts(build, default)
    return lambda docs: pa.array([reason for reason, _ in verdicts(docs)], pa.string())


def _verdicts(build: Callable[[str], Any], default: str) -> Callable[[pa.Table], list[tuple[str | None, str]]]:
    """Return f(docs) → for each document the reason to drop it or None, and its text afterwards.

    `build(language)` makes datatrove's filter, once a language; `default` is the language of documents without one.
    """
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import get_filter_result
    from loguru import logger

    logger.disable("datatrove")  # it writes to standard error
    filters: dict[str, Any] = {}

    def verdict(text: str, language: str) -> tuple[str | None, str]:
        if language not in filters:
            filters[language] = build(language) if _splits(language) else None
        if filters[language] is None:
            return NO_SPLITTER, text
        document = Document(text=text, id="")
        kept, reason = get_filter_result(filters[language].filter(document))
        return (None, document.text) if kept else (str(reason), text)

    def judge(docs: pa.Table) -> list[tuple[str | None, str]]:
        return [verdict(text, code) for text, code in zip(docs["text"].to_pylist(), _languages(docs, default), strict=True)]

    return judge


def _check_language(language: str) -> None:
    if language != ENGLISH and not _splits(language):
        raise InputError(
            f"language: {language!r} has no word splitter without further packages; give a code such as en, de or fr"
        )


def _splits(language: str) -> bool:
    """Tell whether datatrove splits words of this language with the packages of this project."""
    from datatrove.utils.word_tokenizers import load_tokenizer_assignments

    assigned = load_tokenizer_assignments().get(language)
    return language not in UNSPLIT and assigned is not None and _light(*assigned.args)


def _light(name: str, code: str) -> bool:
    return name == "WhitespaceTokenizer" or (name == "SpaCyTokenizer" and code not in UNSPLIT)


def _languages(docs: pa.Table, default: str) -> list[str]:
    if "language" not in docs.column_names:
        return [default] * docs.num_rows
    return [code or default for code in docs["language"].to_pylist()]


def _parameters(stage: Stage) -> dict[str, Any]:
    """Return the fields that datatrove's class takes under the same name: all but the language and `unless`."""
    return {each.name: getattr(stage, each.name) for each in fields(stage) if each.name not in ("language", "unless")}


def _fractions(stage: Stage, *names: str) -> None:
    values: Mapping[str, float | None] = {name: getattr(stage, name) for name in names}
    for name, value in values.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it is a share, between 0 and 1")
