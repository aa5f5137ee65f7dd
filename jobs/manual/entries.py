"""Everything that a config can name, by groups: stages, tokenizer schemes, policies, and the keys of the files.

Reads the dicts of the project (`STAGES`, the two `SCHEMES`); `stages` shows an entry, `pages` writes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gristmill.selection.schemes import SCHEMES as POLICIES
from gristmill.tokenizer import SCHEMES
from gristmill.tokenizer.scheme import Scheme
from jobs.classifier.recipe import Settings as ClassifierSettings
from jobs.config.run import Run
from jobs.manual.describe import Described, described, text_of
from jobs.reference.recipe import Recipe
from jobs.tokenizer.train import Settings
from pipeline.stage import AskingMap, Exchange, Filter, Fit, FlatMap, Map, Save, Sink, Source, Stage
from stages import STAGES

KINDS = {
    Source: "source",
    Map: "map",
    FlatMap: "flat map",
    AskingMap: "asking map",
    Filter: "filter",
    Exchange: "exchange",
    Fit: "fit",
    Save: "save",
    Sink: "sink",
}


@dataclass(frozen=True)
class Group:
    """Entries of one kind: where a config has them, what each is, and the class with the parameters of all of them.

    `places`: where those are that have a place of their own.
    """

    title: str
    place: str
    entries: Mapping[str, Callable[..., Any]]
    shared: type | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, name: str) -> str:
        """Return where a config has this entry."""
        return self.places.get(name, self.place)

    def described(self, name: str) -> Described:
        """Return the description of an entry."""
        thing = self.entries[name]
        found = described(full_name(name, thing), thing)
        return found if self.shared is None else replace(found, text=f"{found.text}\n\n{text_of(self.shared)}")


GROUPS = {
    "stages": Group("Stages", "`source` and `stages` of a build's config, in the order that documents meet them", STAGES),
    "schemes": Group("Tokenizer schemes", "`scheme` of a recipe of `train-tokenizer`", SCHEMES, Scheme),
    "policies": Group("Policies", "`policies` of the stage `select`: `{scheme: NAME, ...}`", POLICIES),
    "files": Group(
        "Keys of the files",
        "`run` of a build's config, and the recipes",
        {"run": Run, "train-tokenizer": Settings, "train-classifier": ClassifierSettings, "train-reference": Recipe},
        places={
            "run": "`run` of a build's config",
            "train-tokenizer": "a recipe of `train-tokenizer`",
            "train-classifier": "a recipe of `train-classifier`, beside `documents`",
            "train-reference": "a recipe of `train-reference`",
        },
    ),
}


def full_name(name: str, thing: object) -> str:
    """Return the name of an entry, of a stage with its kind and version."""
    if isinstance(thing, type) and issubclass(thing, Stage):
        return f"{name} ({kind(thing)}, version {thing.version})"
    return name


def kind(stage: object) -> str:
    """Return what kind of stage it is."""
    return next(word for each, word in KINDS.items() if isinstance(stage, type) and issubclass(stage, each))
