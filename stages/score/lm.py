"""The stage `score_lm`: what one model that lies in files says of each token of a build.

Reads `input_ids`; adds `ref_loss.<name>`, `entropy.<name>` where the model gives one, and `exact.<name>`, aligned with
`input_ids`. A model of the build's own tokenizer is given the ids as they are; one of another is given the text that they spell
in its own tokens, and what it says of these comes back to the build's (`gristmill/models/routes.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_lists
from gristmill.format.schema import INPUT_IDS, SCORES_NAME
from gristmill.models import build_tokenizer
from gristmill.models.causal_lm.parameters import CausalLm
from gristmill.models.ngram.file import NgramFile
from gristmill.models.protocols import Signals, TokenModel, TokenScorer
from gristmill.models.routes import Route, find_route
from gristmill.secrets import without_secrets
from gristmill.signals import entropy_column, exact_column, loss_column
from pipeline.resources import Resources
from pipeline.schema import ERROR
from pipeline.stage import Map, Transform

VALUES, MARKS = pa.list_(pa.float16()), pa.list_(pa.bool_())
LARGEST = float(np.finfo(np.float16).max)

Ints = npt.NDArray[np.int64]
Halves = npt.NDArray[np.float16]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ScoreLm(Map):
    """Add what a model says of each token: its loss, its entropy where the model gives one, and whether both are exact.

    `name`: of the model, and of the sidecar that has its columns. `model`: a causal language model (`path`, ...), or an n-gram
    model over the build's own ids (`ngram_file`). `tokenizer`: that of `encode`, needed where the model has another.

    `ref_loss.<name>`, list<float16>: −ln p of each token, in nats. `entropy.<name>`, list<float16>: of the distribution that it
    was drawn from. `exact.<name>`, list<bool>: the loss is the model's own; false where it was interpolated, because the model
    cuts the text elsewhere, and where there is none. A document's first token has none. Special tokens have none under a
    model with another tokenizer, but for the one that ends documents, if the model has one too.

    A document without a number (the model overflows), or whose text the model's tokenizer changes, is quarantined.
    """

    name: str
    model: CausalLm | NgramFile
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        """Check the name."""
        if not SCORES_NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} must be of {SCORES_NAME.pattern}; it becomes part of file names")

    def resources(self) -> Resources | None:
        """Return that a language model is opened once a GPU; an n-gram model, where the documents are."""
        if isinstance(self.model, NgramFile):
            return None
        return Resources(gpus=0.0 if self.model.device == "cpu" else None)

    def needs(self) -> tuple[str, ...]:
        """Return the ids."""
        return (INPUT_IDS,)

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the types of the columns."""
        entropy = {entropy_column(self.name): VALUES} if self.model.entropy else {}
        return {loss_column(self.name): VALUES, **entropy, exact_column(self.name): MARKS}

    def measures(self) -> tuple[str, ...]:
        """Return losses and entropies."""
        return tuple(name for name, kind in self.adds().items() if kind == VALUES)

    def libraries(self) -> tuple[str, ...]:
        """Return what runs the model."""
        return self.model.libraries()

    def files(self) -> tuple[str, ...]:
        """Return the model's files (for one that is elsewhere, what stands for them), and the tokenizer's."""
        return (*self.model.files(), *([] if self.tokenizer is None else [build_tokenizer.file_of(self.tokenizer)]))

    def check(self) -> None:
        """Raise InputError where the tokenizer's tokens do not say their bytes."""
        if self.tokenizer is not None:
            build_tokenizer.read(self.tokenizer)

    def open(self) -> Transform:
        """Load the model and return f(docs) → docs with its columns, and `error` for documents that have no values.

        Raises:
            InputError: there is no such model; the documents' tokenizer is neither the model's nor `tokenizer`.
        """
        model: TokenModel = self.model
        opened = model.open()
        routes: dict[bytes, Route] = {}

        def score(docs: pa.Table) -> pa.Table:
            ids, bounds = flat_lists(docs[INPUT_IDS])
            facts = dict(docs.schema.field(INPUT_IDS).metadata or {})
            key = repr(sorted(facts.items())).encode()
            if key not in routes:
                ours = {name.decode(): value.decode() for name, value in facts.items()}
                routes[key] = find_route(opened, ours, self.tokenizer, self.name, f"score_lm {self.name!r}")
            signals, exact = routes[key].score(ids, bounds)
            return self._table(docs, signals, exact, bounds, _about(opened, aligned=routes[key].aligned))

        return score

    def _table(self, docs: pa.Table, signals: Signals, exact: Marks, bounds: Ints, about: str) -> pa.Table:
        """Return the documents with the columns; where a document has no values, its `error`."""
        lengths = np.diff(bounds)
        first = bounds[:-1][lengths > 0]  # nothing comes before it in the format, whatever the model was given
        values = {loss_column(self.name): _halves(signals.nll, first)}
        if self.model.entropy:
            assert signals.entropy is not None, f"score_lm {self.name!r}: the model was asked for entropies and gave none"
            values[entropy_column(self.name)] = _halves(signals.entropy, first)
        columns: dict[str, npt.NDArray[Any]] = {
            **values,
            exact_column(self.name): exact & ~np.isnan(values[loss_column(self.name)]),
        }
        metadata = {"scheme": self.name, "about": about}
        found = {
            pa.field(name, kind, metadata=metadata): as_lists(columns[name], bounds, kind) for name, kind in self.adds().items()
        }
        errors = pa.array([signals.errors.get(document) for document in range(docs.num_rows)], pa.string())
        return append(docs, found | {pa.field(ERROR, pa.string()): errors})


def _about(opened: TokenScorer, *, aligned: bool) -> str:
    """Return what the manifest says of the columns: a JSON object."""
    return json.dumps({"kind": opened.kind, **without_secrets(opened.facts), "aligned": aligned, "unit": "nats"}, sort_keys=True)


def _halves(values: npt.NDArray[np.float32], first: Ints) -> Halves:
    """Return the values as float16, NaN at these places; what is beyond its range (no loss in nats is) is its largest."""
    out = np.minimum(values, LARGEST).astype(np.float16)
    out[first] = np.nan
    return out
