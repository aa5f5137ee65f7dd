"""How the documents of a build come to a model that scores tokens, and what it says of them comes back to the build's tokens.

A model of the build's own tokenizer is given the ids as they are. One of another is given the text that they spell in its own
tokens, and the values of these are moved to the build's through bytes (`align`). Reads the metadata of ids and, where it needs to
know the bytes of tokens, the file of the build's tokenizer. Writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.errors import InputError
from gristmill.models import build_tokenizer
from gristmill.models.protocols import Integers, Signals, Singles, TokenScorer
from gristmill.tokenizer.tokenizer_file import STANDARD

if TYPE_CHECKING:  # numba behind it takes seconds to import
    from gristmill.models.retokenize import Retokenizer
    from gristmill.tokenizer.token_bytes import TokenBytes

SECTIONS = ("model", "normalizer", "pre_tokenizer")  # of a tokenizer.json: what makes ids of a text

Bounds = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class Route(Protocol):
    """Scores the documents of one tokenizer with one model."""

    @property
    def aligned(self) -> bool:
        """Whether the model cuts texts into other tokens than the build, so that values may be interpolated."""
        ...

    def score(self, ids: Integers, bounds: Bounds) -> tuple[Signals, Marks]:
        """Return the signals of documents, and which losses are the model's own, bool [tokens].

        Args:
            ids: unsigned [tokens], of the build's tokenizer.
            bounds: int64 [documents + 1], from 0.

        Returns:
            Signals whose errors are `kind: why`: `no_score` where the model gave no number; `text_not_utf8`, or a reason of
            `align.REASONS`, where the text did not come through.
        """
        ...


@dataclass(frozen=True)
class Direct:
    """A `Route` to a model whose ids are the build's."""

    scorer: TokenScorer
    aligned = False

    def score(self, ids: Integers, bounds: Bounds) -> tuple[Signals, Marks]:
        """See `Route.score`: all losses are the model's own."""
        first = self.scorer.facts.get("first_token_id")
        starts = bounds[:-1][np.diff(bounds) > 0]
        led = starts[ids[starts] == first] if first is not None else starts[:0]
        # A document that begins with the token that the model puts before each is given without: it would stand there twice.
        given = np.ones(len(ids), np.bool_)
        given[led] = False
        signals = self.scorer.score(ids[given], np.append(0, np.cumsum(given))[bounds])
        nll, entropy = _spread(signals.nll, given), None if signals.entropy is None else _spread(signals.entropy, given)
        return Signals(nll, entropy, _unscored(signals)), np.ones(len(ids), np.bool_)


@dataclass(frozen=True)
class Through:
    """A `Route` to a model of another tokenizer, through the text that the ids spell."""

    scorer: TokenScorer
    retokenizer: Retokenizer
    aligned = True

    def score(self, ids: Integers, bounds: Bounds) -> tuple[Signals, Marks]:
        """See `Route.score`."""
        from gristmill.models.align import REASONS

        theirs = self.retokenizer.encode(ids, bounds)
        signals = self.scorer.score(theirs.ids, theirs.bounds)
        loss = self.retokenizer.back(theirs, signals.nll)
        entropy = None if signals.entropy is None else self.retokenizer.back(theirs, signals.entropy).values.astype(np.float32)
        refused = {d: f"{REASONS[loss.reasons[d]]}: {loss.explain(d)}" for d in np.flatnonzero(loss.reasons).tolist()}
        errors = {**refused, **_unscored(signals), **theirs.errors}
        return Signals(loss.values.astype(np.float32), entropy, errors), loss.exact


def find_route(scorer: TokenScorer, ids: Mapping[str, str], tokenizer: str | None, name: str, where: str) -> Route:
    """Return how documents come to a model.

    Args:
        scorer: the model.
        ids: metadata of the documents' ids: `vocab_size`, `tokenizer_sha256`, `eos_id` where there is one.
        tokenizer: path of the tokenizer that made them; needed where the model's is another.
        name: of the model.
        where: begins messages of errors.

    Raises:
        InputError: the documents' tokenizer is neither the model's nor `tokenizer`; the vocabularies are of other sizes.
    """
    size = int(ids["vocab_size"])
    if scorer.of_build:
        if size != scorer.vocab_size:
            raise InputError(
                f"{where}: the n-gram model knows {scorer.vocab_size} ids, the documents' tokenizer has {size}; give a model "
                "that was counted on ids of that tokenizer"
            )
        return Direct(scorer)
    if scorer.tokenizer is None:
        raise InputError(f"{where}: the model has no tokenizer of its own; put the {STANDARD} that it was trained with beside it")
    table = _other_tokenizer(scorer.tokenizer, ids["tokenizer_sha256"], tokenizer, where)
    if table is None:
        if size > scorer.vocab_size:
            raise InputError(
                f"{where}: the tokenizer has {size} tokens, the model's head tells {scorer.vocab_size} apart: vocabulary "
                "mismatch; give a model that was trained with this tokenizer"
            )
        return Direct(scorer)
    from gristmill.models.retokenize import Retokenizer

    eos = scorer.facts.get("eos_id")
    ends = (int(ids["eos_id"]), eos) if isinstance(eos, int) and "eos_id" in ids else None
    return Through(scorer, Retokenizer(table, scorer.tokenizer, f"of model {name!r}", ends))


def _other_tokenizer(theirs: str, sha256: str, tokenizer: str | None, where: str) -> TokenBytes | None:
    """Return None where the documents' ids are the model's own; else the bytes that they stand for.

    Args:
        theirs: text of the model's tokenizer.json.
        sha256: of the file of the documents' tokenizer.
        tokenizer: path of that, as far as it is known.
        where: begins messages of errors.
    """
    if hashlib.sha256(theirs.encode()).hexdigest() == sha256:
        return None
    if tokenizer is None:
        raise InputError(
            f"{where}: the documents' tokenizer (sha256 {sha256[:12]}…) is not the model's; set tokenizer to what encode was "
            "given, so that its tokens get losses"
        )
    found = build_tokenizer.read(tokenizer)
    if found.sha256 != sha256:
        raise InputError(
            f"{where}: tokenizer {tokenizer!r} (sha256 {found.sha256[:12]}…) is not the one that made the documents' ids (sha256 "
            f"{sha256[:12]}…); give what encode was given"
        )
    return None if _equal(found.text, theirs) else found.table


def _equal(one: str, other: str) -> bool:
    """Tell whether two texts of a tokenizer.json make the same ids, however they are laid out."""
    first, second = json.loads(one), json.loads(other)
    tokens = [{(token["id"], token["content"]) for token in each.get("added_tokens") or []} for each in (first, second)]
    return tokens[0] == tokens[1] and all(first.get(section) == second.get(section) for section in SECTIONS)


def _spread(values: Singles, given: Marks) -> Singles:
    """Return the values at the places of those that were given, NaN elsewhere."""
    if given.all():
        return values
    out = np.full(len(given), np.nan, np.float32)
    out[given] = values
    return out


def _unscored(signals: Signals) -> dict[int, str]:
    return {document: f"no_score: {why}" for document, why in signals.errors.items()}
