"""The stage `languages`: the language of each document by several identifiers, and a filter on what they agree on.

Reads `text`; adds of each identifier `language_<name>` (a code that all share, `gristmill/models/language_codes.py`) and
`language_<name>_score`; and `language`, the code that most of them name, with `language_score` and `language_agree`. Dropped:
`languages_disagree`, `language`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from gristmill.errors import InputError
from gristmill.models.language_codes import UNDETERMINED, common
from gristmill.models.language_id import BUNDLED, LanguageId
from gristmill.models.protocols import TextClassifier
from pipeline.finding import Finding, Limit
from pipeline.schema import DROP
from pipeline.stage import Map, Transform

NAME = re.compile("[a-z][a-z0-9]*")
TAKEN = ("score", "agree")
_OWN = {"": pa.string(), "_score": pa.float32()}  # ends of the columns of one identifier
_Votes = tuple[pa.Array, pa.Array, pa.Array]


@dataclass(frozen=True, kw_only=True)
class Languages(Map):
    """Ask several identifiers for the language of a document; keep those of `keep` (empty: all) on which `agree` of them agree.

    `identifiers`: name → model, as in `language`: `{lid: {}, glot: {model: glotlid.bin}, bayes: {model: py3langid}}`. Their
    labels become one code a language: `eng_Latn`, `eng` and `en` are `en`, Mandarin is `zh`, scripts are left out; `zxx` is what
    is no language, `und` what was not determined. `language` is the code that most of them name, of several the one that comes
    first in the order of `identifiers`; `language_score` is the mean of what these say, `language_agree` how many they are. An
    identifier that finds nothing to read, or says `und`, has no vote; a document without votes has no language.
    """

    identifiers: dict[str, LanguageId]
    keep: tuple[str, ...] = ()
    agree: int = 1

    def __post_init__(self) -> None:
        if not self.identifiers:
            raise ValueError("identifiers names none; give at least one, such as {lid: {}}")
        for name in self.identifiers:
            if not NAME.fullmatch(name) or name in TAKEN:
                raise ValueError(
                    f"identifiers: {name!r} must be of {NAME.pattern}, and not {' or '.join(TAKEN)}: it is in columns"
                )
        if not 1 <= self.agree <= len(self.identifiers):
            raise ValueError(f"agree is {self.agree}; there are {len(self.identifiers)} identifiers, so give 1 to that")
        for code in self.keep:
            if common(code) != code:
                raise ValueError(f"keep: {code!r} is {common(code)!r} here, the code that all identifiers share")

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns of each identifier, and those of all together."""
        own = {f"language_{name}{end}": kind for name in self.identifiers for end, kind in _OWN.items()}
        return {**own, "language": pa.string(), "language_score": pa.float32(), "language_agree": pa.uint8()}

    def replaces(self) -> tuple[str, ...]:
        """Return those that `language` gives, too."""
        return ("language", "language_score")

    def measures(self) -> tuple[str, ...]:
        """See `Stage.measures`."""
        return tuple(self.adds())

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the models."""
        return tuple(dict.fromkeys(each for model in self.identifiers.values() for each in model.libraries()))

    def files(self) -> tuple[str, ...]:
        """Return the paths of the models."""
        return tuple(dict.fromkeys(each for model in self.identifiers.values() for each in model.files()))

    def check(self) -> None:
        """Raise InputError when a model cannot be loaded, or when none knows a language of `keep`."""
        known = {code for name in self.identifiers for code in self._codes(name, self.identifiers[name].open())}
        for code in self.keep:
            if code not in known:
                raise InputError(f"keep: no identifier knows the language {code!r}; they know {', '.join(sorted(known))}")

    def open(self) -> Transform:
        """Load the models and return f(docs) → docs with the columns and `drop`."""
        opened = {name: model.open() for name, model in self.identifiers.items()}
        codes = {name: pa.array(self._codes(name, model), pa.string()) for name, model in opened.items()}
        fields = pa.schema([*self.adds().items(), (DROP, pa.string())])

        def transform(docs: pa.Table) -> pa.Table:
            languages, scores = [], []
            for name, model in opened.items():
                found = model.classify(docs["text"])
                best = found.labels[:, 0]
                languages.append(codes[name].take(pa.array(best, mask=best < 0)))
                scores.append(found.scores[:, 0])
            common_one, mean, agree = _vote([each.to_pylist() for each in languages], scores)
            named = [column for pair in zip(languages, map(pa.array, scores), strict=True) for column in pair]
            drop = self._drop(common_one, agree)
            return append(docs, dict(zip(fields, (*named, common_one, mean, agree, drop), strict=True)))

        return transform

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return what each identifier says; see `Stage.explain`."""
        votes = [
            Finding(f"language_{name}{end}", after[f"language_{name}{end}"][0].as_py())
            for name in self.identifiers
            for end in _OWN
        ]
        language, agree = after["language"][0].as_py(), after["language_agree"][0].as_py()
        few = agree < self.agree
        wrong = bool(self.keep) and language not in self.keep
        keep = (Limit("keep", self.keep, "not among" if wrong else "among", wrong),) if self.keep else ()
        enough = Limit("agree", self.agree, "below" if few else "passes", few)
        return [
            Finding("language_agree", agree, (enough,), decisive=few),
            Finding("language", language, keep, decisive=wrong and not few),
            *votes,
        ]

    def _drop(self, language: pa.Array, agree: pa.Array) -> pa.Array:
        few = pc.less(agree, pa.scalar(self.agree, pa.uint8()))
        wrong = pc.invert(pc.is_in(language, pa.array(self.keep, pa.string())))
        none = pa.scalar(None, pa.string())
        return pc.if_else(few, "languages_disagree", pc.if_else(wrong, "language", none) if self.keep else none)

    def _codes(self, name: str, model: TextClassifier) -> list[str]:
        return [common(label, wikipedia=self.identifiers[name].model == BUNDLED) for label in model.labels]


def _vote(languages: Sequence[Sequence[str | None]], scores: Sequence[npt.NDArray[np.float32]]) -> _Votes:
    """Return the language of most votes of each document, the mean score of these votes, and how many they are."""
    found: list[str | None] = []
    means: list[float | None] = []
    counts: list[int] = []
    for row in range(len(scores[0])):
        votes = [(said[row], float(score[row])) for said, score in zip(languages, scores, strict=True)]
        voted = Counter(code for code, _ in votes if code is not None and code != UNDETERMINED)
        best = max(voted, key=voted.__getitem__, default=None)  # of equals the first
        count = voted[best] if best is not None else 0
        found.append(best)
        counts.append(count)
        means.append(sum(score for code, score in votes if code == best) / count if count else None)
    return pa.array(found, pa.string()), pa.array(means, pa.float32()), pa.array(counts, pa.uint8())
