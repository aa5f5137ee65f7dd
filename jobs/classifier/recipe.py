"""The recipe of a classifier: which documents have which label, who is held out, and what is trained.

Reads a YAML file; writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from gristmill.errors import ConfigError, UserError
from gristmill.expressions import Expression
from gristmill.models.linear.file import Features
from gristmill.models.linear.training import Learning
from jobs.config.parameters import as_data, build
from jobs.config.yaml_nodes import Node, load_node, pairs, place
from jobs.tokenizer.train import documents_at
from pipeline.stage import Source

# ---- labels ----


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a document must be to have a label; all that is given must hold.

    Args:
        label: of the documents that it fits.
        host: hosts; each stands for its subdomains too, and for every port.
        url: a regular expression that is found in the address.
        where: a condition on the documents' columns in SQL, `language = 'en' and language_score >= 0.9`; null does not fit.
    """

    label: str
    host: tuple[str, ...] = ()
    url: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if not self.host and self.url is None and self.where is None:
            raise ValueError(f"label {self.label!r} has a rule that says nothing; give host, url or where")
        if self.where is not None:
            try:
                Expression(self.where)
            except UserError as error:
                raise ValueError(f"where: {error}") from error
        try:
            re.compile(self.url or "")
        except re.error as error:
            raise ValueError(f"url {self.url!r} is not a regular expression: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ByRules:
    """Labels by rules over addresses and columns: the first rule that fits decides; where none fits, a document is left out."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        _different("rules", {rule.label for rule in self.rules})


@dataclass(frozen=True, kw_only=True)
class ByColumn:
    """Labels that the documents have in a column of texts: of `jsonl` sources by `carry`. Null or blank: left out."""

    column: str


@dataclass(frozen=True, kw_only=True)
class BySeeds:
    """Labels by a list of addresses.

    Args:
        seeds: a file with an address a line, `#` before remarks; one that ends in `/` stands for all below it.
        label: of documents on the list.
        other: label of all others.
    """

    seeds: str
    label: str = "seed"
    other: str = "other"

    def __post_init__(self) -> None:
        _different("other", {self.label, self.other})


Labels = ByRules | ByColumn | BySeeds


def _different(name: str, labels: set[str]) -> None:
    if len(labels) < 2:
        raise ValueError(f"{name} gives one label alone, {min(labels, default='')!r}; a classifier tells at least two apart")


# ---- models ----

FASTTEXT: Mapping[str, Mapping[str, float]] = {
    "dclm": {"lr": 0.1, "epoch": 5, "wordNgrams": 1, "dim": 100, "minCount": 1, "bucket": 2_000_000},
    "fineweb2_hq": {"lr": 0.1, "epoch": 5, "wordNgrams": 2, "dim": 100, "minCount": 1, "bucket": 2_000_000},
    "fineweb2_hq_chinese": {"lr": 0.1, "epoch": 30, "wordNgrams": 4, "dim": 100, "minCount": 1, "bucket": 2_000_000},
}
"""Recipe → arguments of fastText; what is not named in the papers is fastText's default."""


@dataclass(frozen=True, kw_only=True)
class FastTextTraining:
    """A fastText classifier, trained by one thread, so that the same texts give the same bytes.

    Args:
        recipe: `dclm`: fastText's own defaults with a rate of 0.1, as marin's reproduction of DCLM (Li et al. 2024) has them.
            `fineweb2_hq`: with bigrams (Messmer et al. 2025), `fineweb2_hq_chinese`: with 4-grams and 30 epochs.
        dim: in place of the recipe's; the file takes about 4 · dim · bucket bytes.
        bucket: rows of n-grams of more than one word, in place of the recipe's.
        newlines: become a `space`, or `nothing`, as datatrove has it. The manifest keeps this and the next two: a model reads
            texts in the form that it was trained on.
        lowercase: put texts into lower case.
        max_chars: characters of a text that are read, from the beginning; null: all.
        autotune: refused: what it finds depends on the clock.
    """

    recipe: Literal["dclm", "fineweb2_hq", "fineweb2_hq_chinese"] = "dclm"
    dim: int | None = None
    bucket: int | None = None
    newlines: Literal["space", "nothing"] = "space"
    lowercase: bool = False
    max_chars: int | None = None
    autotune: bool = False

    def __post_init__(self) -> None:
        if self.autotune:
            raise ValueError(
                "autotune tries settings until a time is up, so the same texts give another model on another day; "
                f"leave it out and name a recipe: {', '.join(FASTTEXT)}"
            )
        for name in ("dim", "bucket", "max_chars"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")


@dataclass(frozen=True, kw_only=True)
class LinearTraining:
    """A linear model over hashed n-grams of words; see `Features` and `Learning`."""

    features: Features = field(default_factory=Features)
    learning: Learning = field(default_factory=Learning)


@dataclass(frozen=True, kw_only=True)
class FastTextModel:
    """`fasttext`: how it is trained."""

    fasttext: FastTextTraining


@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """`linear`: how it is trained."""

    linear: LinearTraining


# ---- the whole ----


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a recipe beside `documents`.

    Args:
        output: folder of the result.
        labels: where the labels come from: `{rules: [...]}`, `{column: ...}` or `{seeds: ...}`.
        model: `{linear: {...}}` or `{fasttext: {...}}`.
        positive: the label whose probability the page is about; the last in ascending order where none is named.
        held_out: hosts that are not trained on, but measured: the share of all hosts, chosen by a hash of their names, or the
            hosts themselves. A document without an address is a host of its own.
        balance: train on as many documents of each label as the smallest has; those held out stay as they are.
        most: documents of a label to train on, at most.
        seed: of the order of documents, of those that `balance` and `most` take, and of the hosts held out.
    """

    output: str
    labels: Labels
    model: FastTextModel | LinearModel = field(default_factory=lambda: LinearModel(linear=LinearTraining()))
    positive: str | None = None
    held_out: float | tuple[str, ...] = 0.2
    balance: bool = True
    most: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.output.strip():
            raise ValueError("output must name a folder, found nothing")
        if isinstance(self.held_out, float) and not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; give a share between 0 and 1, or a list of hosts")
        if self.most is not None and self.most < 1:
            raise ValueError(f"most is {self.most}; give at least 1")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read: where the documents are, the rest, and the whole as plain data with defaults, without `output`."""

    documents: str | Source
    settings: Settings
    text: Mapping[str, Any]


def read_recipe(path: str) -> Recipe:
    """Return the recipe of a YAML file.

    Raises:
        UserError: one message about the first mistake, with its place.
    """
    root = load_node(path)
    entries: list[tuple[Node, Node]] = []
    where: Node | None = None
    for key, value in pairs(root, "a recipe"):
        if key.value == "documents":
            where = value
        else:
            entries.append((key, value))
    if where is None:
        raise ConfigError(
            "key 'documents' is missing: the output folder of a build, or a source with its parameters", place(root)
        )
    settings = build(Settings, yaml.MappingNode(root.tag, entries, root.start_mark, root.end_mark), "recipe")
    documents, text = documents_at(where)
    rest = {key: value for key, value in as_data(settings).items() if key != "output"}
    return Recipe(documents, settings, {"documents": text, **rest})
