"""`select`: which tokens to train on, by policies over the losses and entropies of models that scored the documents before.

Reads `input_ids` and the models' columns (`ref_loss.<model>`, `entropy.<model>`); adds for each policy `selected.<policy>` or,
where it is soft, `weight.<policy>`, and `score.<policy>`.

A share of the whole build is found without scoring it twice: every shard counts a histogram of its scores, these are added up,
and the cut is read off (`histogram.py`). The manifest says of each column where the cut lies, how exact it is and what is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.columns import append, as_lists, flat_lists
from gristmill.format.schema import INPUT_IDS, SCORES_NAME
from gristmill.json_values import Plain
from gristmill.models import build_tokenizer
from gristmill.models.build_tokenizer import BuildTokenizer
from gristmill.selection import selection
from gristmill.selection.histogram import starts_of
from gristmill.selection.policy import Policy
from gristmill.selection.schemes import Scheme
from gristmill.selection.selection import Judged, Tokens
from gristmill.signals import score_column, selected_column, weight_column
from gristmill.tokenizer.token_bytes import lengths_of
from pipeline.finding import Finding, Limit
from pipeline.stage import Fit, Transform
from stages.score import select_rows
from stages.score.select_rows import Settled

RELATIONS = {"high": "scores from the edge on of", "low": "scores up to the edge of"}
NUMBERS, MARKS = pa.list_(pa.float16()), pa.list_(pa.bool_())


@dataclass(frozen=True, kw_only=True)
class Select(Fit):
    """Select tokens by policies: add `selected.<name>` (list<bool>), or `weight.<name>` (list<float16>, from 0 to 1).

    `policies`: name → a scheme (`scheme: rho1_offline` and its parameters, see `Scheme`) or a whole `Policy`. A name is one of a
    sidecar: small letters, digits, `-` and `_`, and not that of a model.
    `tokenizer`: that of `encode`: a `tokenizer.json` or the folder that holds one; for policies that count bytes, and for the
    shares of bytes in the manifest.
    `scores`: add `score.<name>` too (list<float16>), what the policy ranks by, in nats or nats a byte; of a policy with `all_of`
    there is none. An online policy (rho1) adds this alone, always.

    A shard, as a scope, is one input file; of a finished build, one of its files. The first token of a document has no signals,
    so it is never selected. Of tokens that score the same where a share ends, about every n-th of a document is selected.
    """

    applying: ClassVar[tuple[str, ...]] = ("tokenizer", "scores")

    policies: dict[str, Scheme | Policy]
    tokenizer: str | None = None
    scores: bool = True

    def __post_init__(self) -> None:
        """Check names, and that the bytes of tokens are known where they are asked for."""
        if not self.policies:
            raise ValueError("policies names none; give at least one, such as {excess: {scheme: rho1_offline, ...}}")
        models = {term.model for policy in self.plain().values() for term in policy.terms()}
        for name, policy in self.plain().items():
            if not SCORES_NAME.fullmatch(name):
                raise ValueError(f"policies: name {name!r} must match {SCORES_NAME.pattern}: it becomes part of file names")
            if name in models:
                raise ValueError(f"policies: {name!r} is the name of a model too; their columns would be one sidecar")
            if policy.needs_bytes and self.tokenizer is None:
                raise ValueError(f"tokenizer is missing; policy {name!r} counts bytes, name the tokenizer that encode has")

    def plain(self) -> dict[str, Policy]:
        """Return the policies, those of schemes too, in the order of their names."""
        given = sorted(self.policies.items())
        return {name: policy.policy() if isinstance(policy, Scheme) else policy for name, policy in given}

    def needs(self) -> tuple[str, ...]:
        """Return the ids and the columns of all signals."""
        columns = (term.column for policy in self.plain().values() for term in policy.terms())
        return (INPUT_IDS, *dict.fromkeys(columns))

    def adds(self) -> Mapping[str, pa.DataType]:
        """Return the types of the columns."""
        return {column: kind for name, policy in self.plain().items() for column, kind in self._columns(name, policy).items()}

    def measures(self) -> tuple[str, ...]:
        """Return all columns."""
        return tuple(self.adds())

    def files(self) -> tuple[str, ...]:
        """Return the tokenizer's file."""
        return () if self.tokenizer is None else (build_tokenizer.file_of(self.tokenizer),)

    def check(self) -> None:
        """Raise InputError when the tokenizer cannot be read."""
        self._tokenizer()

    def open(self) -> Transform:
        """Return f(docs) → histogram rows, see `select_rows.ROWS`."""
        policies, tokenizer = self.plain(), self._tokenizer()
        return lambda docs: select_rows.count(policies, _tokens(docs, policies, tokenizer))

    def combine(self) -> Transform:
        """Return f(rows) → one row a bin."""
        return select_rows.add_up

    def reduce(self) -> Transform:
        """Return f(rows) → one row a bin; for shares of a shard, one row a shard with its cut."""
        policies = self.plain()
        return lambda rows: select_rows.reduce(policies, rows)

    def settle(self) -> Callable[[Sequence[pa.Table]], pa.Table]:
        """Return f(reduced tables) → cuts, and what the manifest says of them."""
        policies, bytes_known = self.plain(), self.tokenizer is not None
        return lambda tables: select_rows.settle(policies, pa.concat_tables(tables), bytes_known)

    def apply(self, model: pa.Table) -> Transform:
        """See `Fit.apply`."""
        policies, tokenizer = self.plain(), self._tokenizer()
        settled = Settled.of(policies, model)

        def apply(docs: pa.Table) -> pa.Table:
            tokens = _tokens(docs, policies, tokenizer)
            found: dict[pa.Field, pa.Array] = {}
            for name, policy in policies.items():
                values = self._values(name, policy, tokens, settled)
                about = self._about(name, policy, settled)
                for column, kind in self._columns(name, policy).items():
                    metadata = {"scheme": name, "about": json.dumps(about[column], sort_keys=True)}
                    found[pa.field(column, kind, metadata=metadata)] = as_lists(values[column], tokens.bounds, kind)
            return append(docs, found)

        return apply

    def explain(self, before: pa.Table, after: pa.Table) -> Sequence[Finding]:
        """Return how many tokens each policy selects, and the scores where its gates have their edges; see `Stage.explain`."""
        found = []
        for name, policy in self.plain().items():
            if policy.online:
                continue
            column = weight_column(name) if policy.weighs else selected_column(name)
            values, about = after[column][0].as_py(), json.loads(after.schema.field(column).metadata[b"about"])
            edges = [(gate.direction, each.get("threshold")) for gate, each in zip(policy.gates(), about["gates"], strict=True)]
            limits = tuple(Limit(f"policies[{name}]", edge, RELATIONS[side]) for side, edge in edges if edge is not None)
            shown = f"{len(values)} values" if policy.weighs else f"{sum(values)} of {len(values)} set"
            found.append(Finding(column, shown, limits))
        return found

    def _columns(self, name: str, policy: Policy) -> dict[str, pa.DataType]:
        """Return the columns of a policy: what it selects, and its score."""
        found = {}
        if not policy.online:
            found[weight_column(name) if policy.weighs else selected_column(name)] = NUMBERS if policy.weighs else MARKS
        if policy.online or (self.scores and policy.score):
            found[score_column(name)] = NUMBERS
        return found

    def _values(self, name: str, policy: Policy, tokens: Tokens, settled: Settled) -> dict[str, npt.NDArray[Any]]:
        if policy.online:
            return {score_column(name): _half(selection.scores_of(policy, tokens))}
        judged: Judged = selection.select_of(policy, tokens, settled.cuts[name])
        weight = judged.weight
        choice = {selected_column(name): judged.selected} if weight is None else {weight_column(name): _half(weight)}
        return choice | {score_column(name): _half(judged.scores[0])}

    def _about(self, name: str, policy: Policy, settled: Settled) -> dict[str, Plain]:
        """Return what the manifest says of each column; all of it beside the choice, or beside the score where that is all."""
        given = self.policies[name]
        scheme = {"scheme": {"name": given.scheme, **given.given()}} if isinstance(given, Scheme) else {}
        notes = {**settled.about[name], **json.loads(json.dumps(scheme, default=asdict))}
        unit = {"unit": "nats" if policy.per == "token" else "nats a byte", "direction": policy.direction}
        if policy.online:
            reader = {"score": f"loss of the model in training - {score_column(name)}", "keep": policy.keep, "scope": "batch"}
            return {score_column(name): notes | unit | {"reader": reader}}
        return {weight_column(name) if policy.weighs else selected_column(name): notes, score_column(name): unit}

    def _tokenizer(self) -> BuildTokenizer | None:
        return None if self.tokenizer is None else build_tokenizer.read(self.tokenizer)


def _tokens(docs: pa.Table, policies: Mapping[str, Policy], tokenizer: BuildTokenizer | None) -> Tokens:
    """Return the flat arrays of documents."""
    ids, bounds = flat_lists(docs[INPUT_IDS])
    signals: dict[tuple[str, str], npt.NDArray[Any]] = {}
    for term in (term for policy in policies.values() for term in policy.terms()):
        values, places = flat_lists(docs[term.column])
        assert np.array_equal(places, bounds), f"select: {term.column!r} has other lengths than {INPUT_IDS!r}"
        signals[term.model, term.signal] = values
    lengths = shards = None
    if tokenizer is not None:
        tokenizer.check_made(docs.schema.field(INPUT_IDS), "select")
        lengths = lengths_of(ids, tokenizer.table)
    if any(gate.scope == "shard" for policy in policies.values() for gate in policy.gates()):
        shards = select_rows.numbers_of(docs["file"])
    return Tokens(signals, bounds, starts_of(docs["id"].to_pylist()), lengths, shards)


def _half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Return float16; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16)
