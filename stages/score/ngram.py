"""The stage `score_ngram`: the loss of each token under n-gram models that are counted on the build itself.

Reads `id`, `input_ids` and the columns that mark curated documents; adds `ref_loss.<model>`, aligned with `input_ids`. Counts of
all shards meet by n-gram, become models (`gristmill.models.ngram.kneser_ney`), and these score every document.

No entropies: with a backoff to shorter contexts each takes a sum over the whole vocabulary, thousands of times the price of a
loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_lists
from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS, SCORES_NAME
from gristmill.json_values import Json
from gristmill.signals import loss_column
from pipeline.resources import Resources
from pipeline.stage import Fit, Transform

if TYPE_CHECKING:  # numba behind them takes seconds to import
    from gristmill.models.ngram.kneser_ney import Model
    from stages.score.ngram_rows import Layout

LEAST_ORDER, MOST_ORDER = 2, 5
MOST_FOLDS = 32
LOSSES = pa.list_(pa.float16())
MODELS = pa.schema(
    [
        pa.field("model", pa.string()),
        pa.field("fold", pa.int32()),  # that the model has not seen
        pa.field("documents", pa.int64()),
        pa.field("tokens", pa.int64()),
        pa.field("saved", pa.large_binary()),
    ]
)

Ids = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Curated:
    """The documents whose number in `column` is `at_least` this; those where it is null are not among them."""

    column: str
    at_least: float


@dataclass(frozen=True, kw_only=True)
class Ngram:
    """A modified Kneser-Ney model (Chen and Goodman 1998), see `gristmill.models.ngram.kneser_ney`.

    `order`: tokens of the longest n-gram, 2 to 5. `prune`: for each length from 1 on, the count up to which n-grams are left
    out; the last holds for all longer ones, the first must be 0, none may be less than the one before; () leaves out none.
    `curated`: the documents that it is counted on; null: all.
    """

    order: int = 3
    prune: tuple[int, ...] = ()
    curated: Curated | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not LEAST_ORDER <= self.order <= MOST_ORDER:
            raise ValueError(f"order must be from {LEAST_ORDER} to {MOST_ORDER}, found {self.order}")
        if len(self.prune) > self.order or self.prune[:1] not in ((), (0,)) or list(self.prune) != sorted(self.prune):
            raise ValueError(
                f"prune must be at most {self.order} numbers, the first 0, none less than the one before; found {self.prune}"
            )


@dataclass(frozen=True, kw_only=True)
class ScoreNgram(Fit):
    """Add `ref_loss.<name>` for each of `models`: list<float16>, −ln p of each token in nats, NaN for a document's first.

    `models`: name → what it is counted on and how. `folds`: a hash of its id puts each document in one of so many folds (at
    most 32), and it is scored by a model of the other folds' documents: cross-fitting, so no model has seen what it scores,
    and documents in and outside of a curated slice are on a par. Each fold makes a model of its own. 1: one model of all
    documents, which has seen them: those of the slice look easier than they are. Drop duplicates before: copies in two folds
    undo it.

    All n-grams of a build meet in one process, about 30 bytes each in memory; models are kept in each worker. Where counts
    of counts are too odd to estimate discounts from (tiny builds), those of lmplz's fallback are taken.
    """

    models: dict[str, Ngram]
    folds: int = 2

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if not self.models:
            raise ValueError("models must name one model or more, such as {base: {order: 3}}, found none")
        for name in self.models:
            if not SCORES_NAME.fullmatch(name):
                raise ValueError(f"models: the name {name!r} must be of {SCORES_NAME.pattern}; it becomes part of file names")
        if not 1 <= self.folds <= MOST_FOLDS:
            raise ValueError(f"folds must be from 1 to {MOST_FOLDS}, found {self.folds}")

    def resources(self) -> Resources:
        """Return that the models take memory: processes behind the barrier are kept."""
        return Resources()

    def needs(self) -> tuple[str, ...]:
        """Return the ids and the columns of curated slices."""
        columns = {model.curated.column for model in self.models.values() if model.curated is not None}
        return (INPUT_IDS, *sorted(columns))

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the types of the losses."""
        return {loss_column(name): LOSSES for name in self._names()}

    def measures(self) -> tuple[str, ...]:
        """Return the losses."""
        return tuple(self.adds())

    def libraries(self) -> tuple[str, ...]:
        """Return what takes the logarithms."""
        return ("numpy",)

    def open(self) -> Transform:
        """Return f(docs) → n-gram counts of the table, see `stages.score.ngram_rows`."""
        from gristmill.models.ngram.cross_fit import folds_of

        def emit(docs: pa.Table) -> pa.Table:
            ids, bounds = _documents(docs)
            folds = folds_of(docs["id"].to_pylist(), self.folds)
            slices = [_members(docs, name, self.models[name].curated) for name in self._names()]
            members = [chosen & (folds == fold) for chosen in slices for fold in range(self.folds)]
            return self._layout(_vocab_size(docs.schema)).rows(ids, bounds, members)

        return emit

    def combine(self) -> Transform:
        """Return f(rows) → one row a key."""
        from stages.score import ngram_rows

        return ngram_rows.add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a key."""
        from stages.score import ngram_rows

        return ngram_rows.add_up

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → a row a model and fold, none where there were no documents; raises InputError where a model
        has nothing to be counted on."""
        from gristmill.models.ngram import cross_fit, kneser_ney, store
        from stages.score import ngram_rows

        def settle(tables: Sequence[pa.Table]) -> pa.Table:
            documents, counts = self._layout(ngram_rows.vocab_size_of(tables)).counts(tables)
            rows = []
            for number, name in enumerate(self._names()):
                folds = counts[number * self.folds : (number + 1) * self.folds]
                for fold in range(self.folds if documents else 0):
                    seen = cross_fit.counts_for(folds, fold)
                    if not len(seen.counts):
                        raise self._empty(name, sum(each.documents for each in folds), documents)
                    model = kneser_ney.estimate(seen, prune=self.models[name].prune, fallback=kneser_ney.FALLBACK)
                    saved = store.encode(model).to_pybytes()
                    rows.append({"model": name, "fold": fold, "documents": seen.documents, "tokens": seen.tokens, "saved": saved})
            return pa.Table.from_pylist(rows, schema=MODELS)

        return settle

    def apply(self, model: pa.Table) -> Transform:
        """See `Fit.apply`."""
        from gristmill.models.ngram import store
        from gristmill.models.ngram.cross_fit import folds_of, losses_of

        rows = model.drop_columns(["saved"]).to_pylist()
        saved = [store.decode(each.as_buffer()) for each in model["saved"]]
        names = self._names()
        found = {name: [each for row, each in zip(rows, saved, strict=True) if row["model"] == name] for name in names}
        facts = {name: self._about(name, [row for row in rows if row["model"] == name], found[name]) for name in names}
        scorers = {name: [each.open() for each in models] for name, models in found.items()}

        def score(docs: pa.Table) -> pa.Table:
            ids, bounds = _documents(docs)
            folds = folds_of(docs["id"].to_pylist(), self.folds)
            columns: dict[pa.Field, pa.Array] = {}
            for name in names:
                losses = losses_of(scorers[name], ids, bounds, folds)
                field = pa.field(loss_column(name), LOSSES, metadata={"scheme": name, "about": facts[name]})
                columns[field] = as_lists(losses, bounds, LOSSES)
            return append(docs, columns)

        return score

    def _names(self) -> list[str]:
        """Return the models in an order that the config's does not change, as it is no part of the fingerprint."""
        return sorted(self.models)

    def _layout(self, vocab_size: int) -> Layout:
        from stages.score.ngram_rows import Layout

        return Layout(vocab_size, tuple(self.models[name].order for name in self._names() for _ in range(self.folds)))

    def _empty(self, name: str, there: int, documents: int) -> InputError:
        """Return what to do where no documents are left to count a model on."""
        curated = self.models[name].curated
        which = "" if curated is None else f" with {curated.column} of at least {curated.at_least}"
        lower = "" if curated is None else f"lower models.{name}.curated.at_least"
        if there == 0:
            return InputError(f"score_ngram: model {name!r}: none of {documents} documents are{which}; {lower}")
        advice = f"{lower} or " if lower else ""
        return InputError(
            f"score_ngram: model {name!r}: all {there} documents{which} are in one of {self.folds} folds, so nothing is left to "
            f"score them with; {advice}set folds: 1"
        )

    def _about(self, name: str, rows: Sequence[Mapping[str, Json]], models: Sequence[Model]) -> str:
        """Return what the manifest says of a column: a JSON object; lists have an entry a fold."""
        parameters = self.models[name]
        slice_ = parameters.curated
        return json.dumps(
            {
                "kind": "ngram",
                "order": parameters.order,
                "prune": list(parameters.prune),
                "discounts": [model.discounts for model in models],
                "documents": [row["documents"] for row in rows],
                "tokens": [row["tokens"] for row in rows],
                "folds": self.folds,
                "curated": None if slice_ is None else {"column": slice_.column, "at_least": slice_.at_least},
                "unit": "nats",
            },
            sort_keys=True,
        )


def _documents(docs: pa.Table) -> tuple[Ids, Ints]:
    """Return the ids [tokens] and the documents' bounds in them [rows + 1]."""
    ids, bounds = flat_lists(docs[INPUT_IDS])
    return ids.astype(np.uint32), bounds


def _members(docs: pa.Table, name: str, curated: Curated | None) -> Marks:
    """Return which documents a model is counted on [rows]."""
    if curated is None:
        return np.ones(docs.num_rows, np.bool_)
    column = docs[curated.column]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"score_ngram: models.{name}.curated.column {curated.column!r} is {column.type}; it must be a number")
    values = column.cast(pa.float64()).to_numpy()  # null becomes NaN, which is not at least anything
    return np.asarray(values >= curated.at_least)


def _vocab_size(schema: pa.Schema) -> int:
    metadata = schema.field(INPUT_IDS).metadata or {}
    assert b"vocab_size" in metadata, "score_ngram: the field input_ids lacks metadata vocab_size"
    return int(metadata[b"vocab_size"])
