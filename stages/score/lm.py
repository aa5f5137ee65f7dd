"""The stage `score_lm`: what one model that lies in files says of each token of a build.

Reads `input_ids`; adds `ref_loss.<name>`, `entropy.<name>` where the model gives one, and `exact.<name>`, aligned with
`input_ids`. A model of the build's own tokenizer is given the ids as they are; one of another is given the text that they spell
in its own tokens, and what it says of these is told of ours (`gristmill.models.align`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_lists
from gristmill.errors import InputError
from gristmill.format.schema import INPUT_IDS, SCORES_NAME
from gristmill.models.causal_lm.parameters import CausalLm, OpenedLm
from gristmill.models.ngram.file import NgramFile, OpenedNgram
from gristmill.secrets import without_secrets
from gristmill.signals import Signals, entropy_column, exact_column, loss_column
from pipeline.resources import Resources
from pipeline.schema import ERROR
from pipeline.stage import Map, Transform
from stages.score import build_tokenizer

if TYPE_CHECKING:  # numba behind them takes seconds to import
    from gristmill.models.retokenize import Retokenizer
    from gristmill.tokenizer.token_bytes import TokenBytes

VALUES, MARKS = pa.list_(pa.float16()), pa.list_(pa.bool_())
LARGEST = float(np.finfo(np.float16).max)
SECTIONS = ("model", "normalizer", "pre_tokenizer")  # of a tokenizer.json: what makes ids of a text

Ids = npt.NDArray[np.integer[Any]]
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
        entropy = {entropy_column(self.name): VALUES} if self._entropy() else {}
        return {loss_column(self.name): VALUES, **entropy, exact_column(self.name): MARKS}

    def measures(self) -> tuple[str, ...]:
        """Return losses and entropies."""
        return tuple(name for name, kind in self.adds().items() if kind == VALUES)

    def libraries(self) -> tuple[str, ...]:
        """Return what runs a causal model, reads its weights and cuts texts as its tokenizer does."""
        if isinstance(self.model, NgramFile):
            return ()
        weights = ("gguf",) if self.model.path.endswith(".gguf") else ()
        return ("torch", "transformers", "tokenizers", *weights)

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
        opened = self.model.open()
        routes: dict[bytes, Retokenizer | None] = {}

        def score(docs: pa.Table) -> pa.Table:
            ids, bounds = flat_lists(docs[INPUT_IDS])
            facts = dict(docs.schema.field(INPUT_IDS).metadata or {})
            key = repr(sorted(facts.items())).encode()
            if key not in routes:
                routes[key] = self._route(opened, {name.decode(): value.decode() for name, value in facts.items()})
            route = routes[key]
            signals, exact = _direct(opened, ids, bounds) if route is None else _aligned(opened, route, ids, bounds)
            return self._table(docs, signals, exact, bounds, self._about(opened, aligned=route is not None))

        return score

    def _entropy(self) -> bool:
        return isinstance(self.model, CausalLm) and self.model.entropy

    def _route(self, opened: OpenedLm | OpenedNgram, ours: Mapping[str, str]) -> Retokenizer | None:
        """Return how documents of a tokenizer (the metadata of their ids) come to the model; None: as they are."""
        size = int(ours["vocab_size"])
        if isinstance(opened, OpenedNgram):
            if size != opened.vocab_size:
                raise self._wrong(
                    f"the n-gram model knows {opened.vocab_size} ids, the documents' tokenizer has {size}; give a model that was "
                    "counted on ids of that tokenizer"
                )
            return None
        if opened.tokenizer is None:
            raise self._wrong(
                f"the model has no tokenizer of its own; put the {build_tokenizer.NAME} that it was trained with beside it"
            )
        same, table = self._compare(opened.tokenizer, ours["tokenizer_sha256"])
        if same:
            if size > opened.vocab_size:
                raise self._wrong(
                    f"the tokenizer has {size} tokens, the model's head tells {opened.vocab_size} apart: vocabulary mismatch; "
                    "give a model that was trained with this tokenizer"
                )
            return None
        from gristmill.models.retokenize import Retokenizer

        assert table is not None, "a tokenizer that differs was read"
        eos = opened.facts.get("eos_id")
        ends = None if eos is None or "eos_id" not in ours else (int(ours["eos_id"]), int(eos))
        return Retokenizer(table, opened.tokenizer, f"of model {self.name!r}", ends)

    def _compare(self, theirs: str, sha256: str) -> tuple[bool, TokenBytes | None]:
        """Return whether the documents' ids are the model's own; else the bytes that they stand for too.

        Args:
            theirs: text of the model's tokenizer.json.
            sha256: of the file of the documents' tokenizer.
        """
        if hashlib.sha256(theirs.encode()).hexdigest() == sha256:
            return True, None
        if self.tokenizer is None:
            raise self._wrong(
                f"the documents' tokenizer (sha256 {sha256[:12]}…) is not the model's; set tokenizer to what encode was given, "
                "so that losses can be told of its tokens"
            )
        found = build_tokenizer.read(self.tokenizer)
        if found.sha256 != sha256:
            raise self._wrong(
                f"tokenizer {self.tokenizer!r} (sha256 {found.sha256[:12]}…) is not the one that made the documents' ids (sha256 "
                f"{sha256[:12]}…); give what encode was given"
            )
        return _equal(found.text, theirs), found.table

    def _wrong(self, what: str) -> InputError:
        return InputError(f"score_lm {self.name!r}: {what}")

    def _table(self, docs: pa.Table, signals: Signals, exact: Marks, bounds: Ints, about: str) -> pa.Table:
        """Return the documents with the columns; where a document has no values, its `error`."""
        lengths = np.diff(bounds)
        first = bounds[:-1][lengths > 0]  # nothing comes before it in the format, whatever the model was given
        values = {loss_column(self.name): _halves(signals.nll, first)}
        if self._entropy():
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

    def _about(self, opened: OpenedLm | OpenedNgram, *, aligned: bool) -> str:
        kind = "ngram_file" if isinstance(opened, OpenedNgram) else "causal_lm"
        return json.dumps({"kind": kind, **without_secrets(opened.facts), "aligned": aligned, "unit": "nats"}, sort_keys=True)


def _direct(opened: OpenedLm | OpenedNgram, ids: Ids, bounds: Ints) -> tuple[Signals, Marks]:
    """Return the signals of documents in the model's own ids, and which are the model's own: all."""
    first = opened.facts.get("first_token_id")
    starts = bounds[:-1][np.diff(bounds) > 0]
    led = starts[ids[starts] == first] if first is not None else starts[:0]
    # A document that begins with the token that the model puts before each is given without: it would stand there twice.
    given = np.ones(len(ids), np.bool_)
    given[led] = False
    signals = opened.score(ids[given], np.append(0, np.cumsum(given))[bounds])
    nll, entropy = _spread(signals.nll, given), None if signals.entropy is None else _spread(signals.entropy, given)
    return Signals(nll, entropy, _unscored(signals)), np.ones(len(ids), np.bool_)


def _spread(values: npt.NDArray[np.float32], given: Marks) -> npt.NDArray[np.float32]:
    """Return the values at the places of those that were given, NaN elsewhere."""
    if given.all():
        return values
    out = np.full(len(given), np.nan, np.float32)
    out[given] = values
    return out


def _aligned(opened: OpenedLm | OpenedNgram, route: Retokenizer, ids: Ids, bounds: Ints) -> tuple[Signals, Marks]:
    """Return the signals of documents in other tokens, and which are not interpolated."""
    from gristmill.models.align import REASONS

    told = route.encode(ids, bounds)
    signals = opened.score(told.ids, told.bounds)
    loss = route.back(told, signals.nll)
    entropy = None if signals.entropy is None else route.back(told, signals.entropy).values.astype(np.float32)
    refused = {d: f"{REASONS[loss.reasons[d]]}: {loss.explain(d)}" for d in np.flatnonzero(loss.reasons).tolist()}
    return Signals(loss.values.astype(np.float32), entropy, {**refused, **_unscored(signals), **told.errors}), loss.exact


def _unscored(signals: Signals) -> dict[int, str]:
    return {document: f"no_score: {why}" for document, why in signals.errors.items()}


def _halves(values: npt.NDArray[np.float32], first: Ints) -> Halves:
    """Return the values as float16, NaN at these places; what is beyond its range (no loss in nats is) is its largest."""
    out = np.minimum(values, LARGEST).astype(np.float16)
    out[first] = np.nan
    return out


def _equal(one: str, other: str) -> bool:
    """Tell whether two texts of a tokenizer.json make the same ids, however they are laid out."""
    first, second = json.loads(one), json.loads(other)
    tokens = [{(token["id"], token["content"]) for token in each.get("added_tokens") or []} for each in (first, second)]
    return tokens[0] == tokens[1] and all(first.get(section) == second.get(section) for section in SECTIONS)
