"""How ids come to a model, on a model that says where a token stands: it shows what it was given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.errors import InputError
from gristmill.models.protocols import Integers, Signals
from gristmill.models.routes import Direct, Through, find_route
from tests.stages.score import tiny_models

FIRST = 7
TEXT = tiny_models.tokenizer_json()
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


@dataclass
class Places:
    """A `TokenScorer` whose losses are the tokens' places in their documents; it has none for documents of one token."""

    facts: dict[str, Any] = field(default_factory=lambda: {"first_token_id": FIRST})
    of_build: bool = False
    tokenizer: str | None = TEXT
    vocab_size: int = 1000
    kind: str = "places"
    given: list[list[int]] = field(default_factory=list)

    def score(self, ids: Integers, bounds: Integers) -> Signals:
        lengths = np.diff(bounds)
        self.given += [ids[begin:end].tolist() for begin, end in pairwise(bounds.tolist())]
        places = np.arange(len(ids)) - np.repeat(bounds[:-1], lengths)
        errors = {d: "too short" for d in np.flatnonzero(lengths == 1).tolist()}
        return Signals(places.astype(np.float32), None, errors)


def ids_of(**changes: str) -> dict[str, str]:
    return {"vocab_size": "1000", "tokenizer_sha256": SHA256} | changes


def test_ids_of_the_models_own_tokenizer_go_as_they_are_without_a_second_first_token() -> None:
    model = Places()
    route = find_route(model, ids_of(), None, "m", "here")
    assert isinstance(route, Direct) and not route.aligned
    ids = np.array([FIRST, 1, 2, 3, FIRST, 4, FIRST], np.uint16)
    signals, exact = route.score(ids, np.array([0, 3, 3, 5, 6, 7]))
    assert model.given == [[1, 2], [], [3, FIRST], [4], []]
    np.testing.assert_array_equal(signals.nll, np.array([np.nan, 0, 1, 0, 1, 0, np.nan], np.float32))
    assert signals.errors == {3: "no_score: too short"}
    assert exact.all()


def test_a_model_counted_on_the_build_needs_no_tokenizer() -> None:
    model = Places(of_build=True, tokenizer=None, facts={})
    signals, _ = find_route(model, ids_of(), None, "m", "here").score(np.array([FIRST, 1], np.uint16), np.array([0, 2]))
    assert signals.nll.tolist() == [0, 1]


def test_ids_of_another_tokenizer_go_through_their_text(tmp_path: Path) -> None:
    other = json.loads(TEXT)
    other["model"]["merges"] = []  # other ids for the same texts
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(other))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    route = find_route(Places(), ids_of(tokenizer_sha256=sha256), str(tmp_path), "m", "here")
    assert isinstance(route, Through) and route.aligned
    laid_out = tmp_path / "same.json"
    laid_out.write_text(json.dumps(json.loads(TEXT), indent=3))
    sha256 = hashlib.sha256(laid_out.read_bytes()).hexdigest()
    assert isinstance(find_route(Places(), ids_of(tokenizer_sha256=sha256), str(laid_out), "m", "here"), Direct)


@pytest.mark.parametrize(
    ("model", "ids", "message"),
    [
        (Places(of_build=True, vocab_size=9), ids_of(), "here: the n-gram model knows 9 ids, the documents' tokenizer has 1000"),
        (Places(tokenizer=None), ids_of(), "here: the model has no tokenizer of its own; put the tokenizer.json"),
        (Places(vocab_size=9), ids_of(), "here: the tokenizer has 1000 tokens, the model's head tells 9 apart"),
        (Places(), ids_of(tokenizer_sha256="0" * 64), r"\(sha256 000000000000…\) is not the model's; set tokenizer to what"),
    ],
    ids=["counted", "none", "head", "other"],
)
def test_models_that_do_not_fit_are_refused(model: Places, ids: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_route(model, ids, None, "m", "here")
