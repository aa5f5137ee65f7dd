"""YAML as nodes: scalars follow the core schema, and JSON is read as it was written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.config.yaml_nodes import from_data, parse, plain, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("False", False), ("~", None), ("null", None),
        ("1_000", 1000), ("-12", -12), ("012", 12), ("0o17", 15), ("0xff", 255), ("1e-3", 0.001), (".5", 0.5), ("1.", 1.0),
        ("-.inf", float("-inf")), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("'5'", "5"), ('"true"', "true"), 
        ("1.2.3", "1.2.3"),         ("=", "="), ("0b11", "0b11"), ("0x_", "0x_"), ("0o__", "0o__"), ("0x_f", 15),
        ("9" * 4301, "9" * 4301), ("1" + "_" * 4301, "1" + "_" * 4301),
    ],
    ids=range(28),
)  # fmt: skip
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = resolve(parse(text, "t"))
    assert found == value == resolve(from_data(value, "t")) and type(found) is type(value)


# PyYAML reads JSON's escapes of characters above U+FFFF as two surrogates.
TEXT = st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT


@given(st.recursive(SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text("abcdeno", min_size=1), x, max_size=4)))
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert plain(parse(json.dumps(value), "t")) == value == plain(from_data(value, "t"))
