"""Aliases of YAML: useful ones are written out, those that multiply without bound and deep nesting are told with their place."""

from __future__ import annotations

import pytest

from gristmill.errors import ConfigError
from jobs.config.yaml_nodes import EXPANDED, load_node, parse, plain


def laughs(levels: int, times: int, leaf: str = "lol", kind: str = "list") -> str:
    """Levels of lists (or mappings), each of so many aliases of the one before."""
    lines = [f"a0: &a0 {leaf}"]
    for level in range(1, levels + 1):
        inner = [f"*a{level - 1}"] * times
        if kind == "mapping":
            inner = [f"k{n}: {alias}" for n, alias in enumerate(inner)]
        opening, closing = "[]" if kind == "list" else "{}"
        lines.append(f"a{level}: &a{level} {opening}{', '.join(inner)}{closing}")
    return "\n".join(lines)


def test_aliases_are_written_out():
    text = "base: &base {keep: [en, fr], min_score: 0.5}\nstages:\n- language: *base\n- language: *base\n"
    found = plain(parse(text, "x"))
    assert found["stages"] == [{"language": found["base"]}] * 2
    assert len(plain(parse(laughs(4, 10), "x"))["a4"]) == 10


@pytest.mark.parametrize("kind", ["list", "mapping"])
@pytest.mark.parametrize(("levels", "times"), [(9, 9), (30, 2), (2, 1000), (300, 10)])
def test_aliases_without_bound_are_refused(tmp_path, levels, times, kind):
    """Before they are written out, which would not end, with the place of the first that is too much."""
    path = tmp_path / "bomb.yaml"
    path.write_text(laughs(levels, times, kind=kind))
    with pytest.raises(ConfigError, match=rf"bomb\.yaml:\d+:\d+: its aliases .* stand for [\d,]+ values, {EXPANDED:,} more"):
        load_node(path)


def test_long_texts_count():
    """Two hundred aliases of 200 kB are 40 MB wherever they are written out."""
    with pytest.raises(ConfigError, match="its aliases"):
        parse(laughs(1, 200, leaf="x" * 200_000), "x")
    parse(laughs(1, 1, leaf="x" * 200_000), "x")


def test_many_values_without_aliases_are_no_bomb():
    text = "paths: [" + ", ".join(f"f{n}.gz" for n in range(5_000)) + "]\nmore: &m [a, b]\nagain: [*m, *m]"
    assert len(plain(parse(text, "x"))["paths"]) == 5_000


@pytest.mark.parametrize(
    "text", ["[" * 800 + "]" * 800, "{a: " * 800 + "}" * 800, "- " * 800 + "a"], ids=["list", "mapping", "block"]
)
def test_nesting_without_end_is_refused(text):
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse(text, "deep.yaml")


def test_mistakes_below_aliases_are_found_once():
    for text, message in (("a: &a [*a]", "contains itself"), ("a: &a {b: 1, b: 2}\nc: [*a, *a]", "'b' is given twice")):
        with pytest.raises(ConfigError, match=message):
            parse(text, "x")
