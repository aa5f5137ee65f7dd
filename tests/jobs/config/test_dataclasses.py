"""A dataclass of any module from a YAML node."""

from __future__ import annotations

import pytest

from gristmill.errors import ConfigError, UserError
from jobs.config.parameters import build
from jobs.config.yaml_nodes import parse
from tests.jobs.config.known import Language, Ngram


def test_build_makes_any_dataclass_and_keeps_the_cause() -> None:
    assert build(Ngram, parse("order: 0x10", "r.yaml"), "recipe") == Ngram(order=16)
    with pytest.raises(ConfigError, match=r"r\.yaml:1:1: recipe: it has no parameter 'odrer'; did you mean 'order'\?"):
        build(Ngram, parse("odrer: 1", "r.yaml"), "recipe")
    with pytest.raises(UserError) as caught:
        build(Language, parse("min_score: -1", "r.yaml"), "recipe")
    assert isinstance(caught.value.__cause__, ValueError)
