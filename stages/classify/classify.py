"""The stage `classify`: what models say of each document, as numbers in columns.

Reads `text`; adds a column of scores a model, or one a label. It decides nothing: thresholds are of the stages behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import ClassVar

import pyarrow as pa

from gristmill.columns import append
from pipeline.finding import Finding
from pipeline.planning.contents import contents
from pipeline.resources import Resources
from pipeline.stage import Map, Transform
from stages.classify.kinds import AnyModel

NAME = re.compile("[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Classify(Map):
    """Add what models say of a document: quality, topic, safety, as float32 columns.

    `models`: name → model, whose column has its name: `quality: {fasttext: {path: quality.bin}, label: hq}` gives `quality`, the
    score of the label `hq`. With `labels: [sports, law]` each has a column, `topic_sports` and `topic_law` (small letters,
    `_` for whatever is no letter or digit); with `best: true` the most likely label in `topic_label` and its score in `topic`.

    A score is null where the model has none: of a text of which it reads nothing. Nothing is dropped here; what a score
    decides is said behind it, so a threshold can be changed without any text being scored again.
    """

    version: ClassVar[int] = 2

    models: dict[str, AnyModel]

    def __post_init__(self) -> None:
        """Check the names, and that no two models give one column."""
        if not self.models:
            raise ValueError("models names none; give at least one, such as {quality: {fasttext: {path: ...}, label: ...}}")
        givers: dict[str, str] = {}
        for name, asked in self.models.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"models: name {name!r} must be of {NAME.pattern}: it is that of a column")
            for column in asked.adds(name):
                if column in givers:
                    raise ValueError(f"models: {givers[column]!r} and {name!r} both give the column {column!r}; rename one")
                givers[column] = name

    def resources(self) -> Resources | None:
        """Return what the models that have processes of their own want, the first of them before the others."""
        wanted = None
        for each in (asked.resources() for asked in self.models.values()):
            wanted = each if wanted is None else wanted.over(each)
        return wanted

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the columns of all models."""
        return {column: kind for name, asked in self.models.items() for column, kind in asked.adds(name).items()}

    def measures(self) -> tuple[str, ...]:
        """Return all columns."""
        return tuple(self.adds())

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the models."""
        return tuple(dict.fromkeys(each for asked in self.models.values() for each in asked.model().libraries()))

    def files(self) -> tuple[str, ...]:
        """Return the files of all models."""
        return tuple(dict.fromkeys(each for asked in self.models.values() for each in asked.model().files()))

    def check(self) -> None:
        """Raise InputError where a model cannot be loaded or does not know a label."""
        for name, asked in self.models.items():
            asked.check(name, asked.model().open().labels)

    def open(self) -> Transform:
        """Load the models and return f(docs) → docs with the columns."""
        opened = {name: asked.model().open() for name, asked in self.models.items()}
        for name, asked in self.models.items():
            asked.check(name, opened[name].labels)
        notes = self._notes()
        fields = [
            pa.field(column, kind, metadata={"about": notes[name]})
            for name, asked in self.models.items()
            for column, kind in asked.adds(name).items()
        ]

        def classify(docs: pa.Table) -> pa.Table:
            found = [each for name, asked in self.models.items() for each in asked.columns(opened[name], docs["text"])]
            return append(docs, dict(zip(fields, found, strict=True)))

        return classify

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return the scores; they are there to be read, nothing is decided by them here."""
        return [Finding(column, after[column][0].as_py()) for column in self.adds()]

    def _notes(self) -> dict[str, str]:
        """Return what is noted of the columns of each model, in the manifest and for `buckets`; nothing of where files lie."""
        sha256 = dict(zip(self.files(), contents(self).values(), strict=True))
        found: dict[str, str] = {}
        for name, asked in self.models.items():
            model = asked.model()
            files = model.files()
            assert is_dataclass(model) and not isinstance(model, type), "parameters are dataclasses"
            note = {key: value for key, value in asdict(asked).items() if getattr(asked, key) is not model}
            note |= {key: value for key, value in asdict(model).items() if not (isinstance(value, str) and _leads(value, files))}
            note |= {"kind": type(model).__name__, "sha256": [sha256[file] for file in files]}
            found[name] = json.dumps(note, sort_keys=True)
        return found


def _leads(value: str, files: Sequence[str]) -> bool:
    """Tell whether a text is the path of a file, or of a folder above it."""
    return value != "" and any(file.startswith(value) for file in files)
