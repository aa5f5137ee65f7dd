"""How much a token is worth training on: per-token losses of two models, and the score that a scheme makes of them.

Reads `input_ids` and the column that marks the curated documents; adds `ref_loss` and `excess`, aligned with `input_ids`.
The models are counted on the documents of the build themselves, between all other stages and the sink.

The score only ranks tokens; which share is trained on is decided by the reader (`gristmill.selection`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.stage import Fit, Transform
from stages.score.reference import Curated, Losses, Reference

INPUT_IDS, REF_LOSS, EXCESS = "input_ids", "ref_loss", "excess"
LOSSES = pa.list_(pa.float16())


@dataclass(frozen=True)
class Scheme:
    """What a scheme makes of the losses of the base and the reference model, and which end of it is worth training on."""

    score: Callable[[Losses, Losses], Losses]
    keep: Literal["highest", "lowest"]


def excess_loss(base: Losses, reference: Losses) -> Losses:
    """Return base − reference, in nats: high where the curated documents make a token easier than the crawl does."""
    return base - reference


SCHEMES: dict[str, Scheme] = {
    # Rho-1 (Lin et al. 2024, arXiv 2404.07965) takes the loss of the model in training minus that of the reference and keeps
    # the highest. Offline there is no model in training: as in TokenCleaning (Pang et al. 2025) a base model stands for it.
    "rho1": Scheme(excess_loss, keep="highest"),
}
"""The known schemes by their names in a config."""


@dataclass(frozen=True, kw_only=True)
class Score(Fit):
    """Add per-token `ref_loss` and `excess`: list<float16>, in nats, aligned with `input_ids`.

    `scheme`: rho1: `excess` is the loss of a base model minus that of a reference model; the highest is worth training on.
    `reference`: the model. The base is the same kind of model counted on all documents, the reference on the curated ones.

    A value belongs to its token as the target; the first token of a document has none (NaN). A document never learns from
    itself what it is scored with, token by token: each token's own occurrence is taken out of the counts first.
    """

    actor: ClassVar[bool] = True

    scheme: str = "rho1"
    reference: Reference = field(default_factory=Reference)

    def __post_init__(self) -> None:
        """Check the scheme's name."""
        if self.scheme not in SCHEMES:
            close = difflib.get_close_matches(self.scheme, SCHEMES, 1)
            advice = f" did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"scheme {self.scheme!r} is unknown;{advice} known are {', '.join(SCHEMES)}")

    def needs(self) -> tuple[str, ...]:
        """Return the ids and the column of the curated slice."""
        return (INPUT_IDS, self.reference.ngram.curated.column)

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the types of the scores."""
        return {REF_LOSS: LOSSES, EXCESS: LOSSES}

    def measures(self) -> tuple[str, ...]:
        """Return both columns."""
        return (REF_LOSS, EXCESS)

    def open(self) -> Transform:
        """Return f(docs) → n-gram counts of the table: `key: uint64`, `context: int64`, `count: int64`."""
        from stages.score import ngram

        parameters = self.reference.ngram
        return lambda docs: ngram.count(*_documents(docs, parameters.curated), parameters)

    def combine(self) -> Transform:
        """Return f(rows) → one row a key."""
        from stages.score import ngram

        return ngram.add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a key."""
        from stages.score import ngram

        return ngram.add_up

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → all counts; raises InputError when no document was curated."""
        from stages.score import ngram

        parameters = self.reference.ngram

        def settle(tables: Sequence[pa.Table]) -> pa.Table:
            model = pa.concat_tables(tables).select(ngram.ROWS.names).combine_chunks()
            if not ngram.has_reference(model, parameters) and model.num_rows:
                slice_ = parameters.curated
                raise InputError(
                    f"score: no document has {slice_.column} of at least {slice_.at_least}, so there is nothing to count the "
                    f"reference model on; lower reference.ngram.curated.at_least"
                )
            return model

        return settle

    def apply(self, model: pa.Table) -> Transform:
        """See `Fit.apply`."""
        from stages.score import ngram

        parameters = self.reference.ngram
        tables = ngram.Tables.of(model, parameters)
        scheme = SCHEMES[self.scheme]
        facts = {"scheme": self.scheme, "unit": "nats"}

        def score(docs: pa.Table) -> pa.Table:
            ids, offsets, curated = _documents(docs, parameters.curated)
            base, reference = tables.losses(ids, offsets, curated, _vocab_size(docs.schema))
            table = docs.drop_columns([name for name in (REF_LOSS, EXCESS) if name in docs.column_names])
            table = table.append_column(pa.field(REF_LOSS, LOSSES, metadata=facts), _lists(reference, offsets))
            excess = _lists(scheme.score(base, reference), offsets)
            return table.append_column(pa.field(EXCESS, LOSSES, metadata=facts | {"keep": scheme.keep}), excess)

        return score


def _documents(docs: pa.Table, slice_: Curated) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the ids [tokens], the documents' offsets in them [rows + 1], and which are curated [rows]."""
    column = docs[INPUT_IDS].combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    ids = column.values.to_numpy()[offsets[0] : offsets[-1]].astype(np.uint32)
    marks = docs[slice_.column]
    if not (pa.types.is_integer(marks.type) or pa.types.is_floating(marks.type)):
        raise InputError(f"score: reference.ngram.curated.column {slice_.column!r} is {marks.type}; it must be a number")
    values = marks.cast(pa.float64()).to_numpy()  # null becomes NaN, which is not at least anything
    return ids, offsets - offsets[0], values >= slice_.at_least


def _vocab_size(schema: pa.Schema) -> int:
    metadata = schema.field(INPUT_IDS).metadata or {}
    assert b"vocab_size" in metadata, "score: the field input_ids lacks metadata vocab_size"
    return int(metadata[b"vocab_size"])


def _lists(values: Losses, offsets: npt.NDArray[np.int64]) -> pa.Array:
    """Return the flat values as lists of float16."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values.astype(np.float16)), type=LOSSES)
