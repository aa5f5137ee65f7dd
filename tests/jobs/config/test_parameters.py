"""The parameters of the real stages: each can come from YAML, and defaults survive a way there and back."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Literal

import pytest

from gristmill.errors import ConfigError
from jobs.config.parameters import as_data, build, describe, parameters, required
from jobs.config.yaml_nodes import from_data
from pipeline.stage import Stage
from stages import STAGES


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_every_parameter_can_come_from_yaml(name: str, stage: type[Stage]) -> None:
    assert dataclasses.is_dataclass(stage) and stage.__dataclass_params__.frozen, name  # type: ignore[attr-defined]
    hints = typing.get_type_hints(stage)
    for parameter in parameters(stage):
        assert describe(hints[parameter])


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_defaults_survive_the_way_to_the_record_and_back(name: str, stage: type[Stage]) -> None:
    given = {
        "paths": "crawl/*.gz",
        "tokenizer": "a folder",
        "models": {"base": {"order": 2}},
        "name": "small",
        "model": {"path": "a folder"},
        "policies": {"excess": {"scheme": "rho1_offline", "base": "base", "reference": "small"}},
        "build": "a folder",
        "scores": {"quality": {"quantiles": 3}},
        "score": "quality",
        "budget": {"share": 1.2},
        "identifiers": {"lid": {}},
    }
    given |= {
        "classify": {"models": {"base": {"fasttext": {"path": "a file"}}}},
        "join": {"tables": "a table", "columns": {"quality": "float32"}},
        "keep_if": {"where": "length > 3"},
        "rephrase": {"endpoint": {"url": "http://127.0.0.1:1/v1"}, "model": "small", "prompts": ["distill"]},
    }.get(name, {})
    needed = {key: given[key] for key in required(stage)}
    made = build(stage, from_data(needed, "record"), name)
    assert build(stage, from_data(as_data(made), "record"), name) == made
    assert set(as_data(made)) == set(parameters(stage))


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_an_unknown_parameter_is_named_with_the_known_ones(name: str, stage: type[Stage]) -> None:
    with pytest.raises(ConfigError, match="it has no parameter 'zzzz'; it takes") as caught:
        build(stage, from_data({"zzzz": 1}, "record"), name)
    for parameter in parameters(stage):
        assert parameter in str(caught.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd:
    """A type that is no parameter."""

    values: list[int]


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (str | tuple[str, ...], "text or a list (text each)"),
        (Literal["a", "b"] | None, "one of a, b or null"),
        (Literal[True, None, 3], "one of true, null, 3"),
        (tuple[tuple[int, float], ...], "a list (a list of 2: an integer, a number each)"),
        (dict[str, bool], "a mapping of names to true or false"),
        (Odd, "a mapping of values"),
    ],
)
def test_types_in_words(hint: Any, says: str) -> None:
    assert describe(hint) == says


def test_a_stage_with_a_type_that_yaml_cannot_give_is_a_bug() -> None:
    with pytest.raises(TypeError, match="parameters cannot have the type"):
        build(Odd, from_data({"values": [1]}, "record"), "odd")
