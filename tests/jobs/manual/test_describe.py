"""Parameters in the words of a config: types, defaults, and what is nested."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jobs.__main__ import main
from jobs.manual.describe import as_yaml, described, words
from jobs.manual.entries import GROUPS
from jobs.manual.stages import lines


@dataclass(frozen=True, kw_only=True)
class Inner:
    """What is inside.

    `size`: in bytes.
    """

    size: int | None = None
    again: tuple["Inner", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    """What is outside."""

    paths: str | tuple[str, ...]
    mode: Literal["fast", "slow"] | None = "fast"
    pairs: tuple[tuple[int, float], ...] = ((2, 0.5),)
    inner: dict[str, Inner | str] = field(default_factory=dict)
    on: bool = False


def test_a_dataclass_is_described_with_all_that_it_holds():
    assert lines(described("outer", Outer)) == [
        "outer",
        "",
        "What is outside.",
        "",
        "  paths: text or list of text, required",
        '  mode: "fast" or "slow" or null = fast',
        "  pairs: list of [integer, number] = [[2, 0.5]]",
        "  inner: names → Inner or text = {}",
        "  on: true or false = false",
        "",
        "Inner",
        "",
        "What is inside.\n\n`size`: in bytes.",
        "",
        "  size: integer or null = null",
        "  again: list of Inner = []",
    ]


def make(*, keep: float = 0.6, model: str) -> None:
    """Take two."""


def test_a_function_is_described_by_its_parameters():
    assert lines(described("make", make)) == ["make", "", "Take two.", "", "  keep: number = 0.6", "  model: text, required"]


@dataclass(frozen=True)
class Noted:
    """What has notes.

    Args:
        size: in bytes,
            and nothing else.
        name: of it; see `size`.

    Behind them.
    """

    size: int
    name: str = "a"
    other: bool = True


def test_arguments_of_a_docstring_stand_under_the_parameters():
    assert lines(described("noted", Noted)) == [
        "noted",
        "",
        "What has notes.\n\nBehind them.",
        "",
        "  size: integer, required",
        "      in bytes, and nothing else.",
        "  name: text = a",
        "      of it; see `size`.",
        "  other: true or false = true",
    ]


def test_no_entry_shows_the_form_of_a_docstring(capsys):
    for name in ("train-reference", "train-tokenizer", "run"):
        assert main(["stages", name]) == 0
        assert "Args:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.65, "0.65"),
        ("lid.176", "lid.176"),
        ("", '""'),
        ("no", '"no"'),
        ("12", '"12"'),
        ("<|endoftext|>", '"<|endoftext|>"'),
        (("a", 1), "[a, 1]"),
        ({"a": ("b",)}, "{a: [b]}"),
        (Inner(size=3), "{size: 3, again: []}"),
    ],
)
def test_defaults_are_written_as_a_config_gives_them(value, text):
    assert as_yaml(value) == text


def test_a_list_of_several_types_has_parentheses():
    assert words(tuple[int | str, ...]) == "list of (integer or text)"
    with pytest.raises(TypeError, match="bytes"):
        words(bytes)


@pytest.mark.parametrize("name", [name for group in GROUPS.values() for name in group.entries])
def test_every_entry_is_described(name, capsys):
    assert main(["stages", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(name) and "<class" not in out and "gristmill." not in out.split("\n\n  in ")[0].split("\n  ")[-1]


def test_names_are_different_in_all_groups():
    names = [name for group in GROUPS.values() for name in group.entries]
    assert len(set(names)) == len(names)


def test_a_name_that_is_nearly_right_is_suggested(capsys):
    for wrong, right in (
        ("langage", "language"),
        ("superbp", "superbpe"),
        ("rho", "rho1"),
        ("train-tokenizr", "train-tokenizer"),
    ):
        assert main(["stages", wrong]) == 2
        assert f"unknown stage {wrong!r}; did you mean {right!r}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("run", "`run` of a build's config"),
        ("train-tokenizer", "a recipe of `train-tokenizer`"),
        ("bpe", GROUPS["schemes"].place),
    ],
)
def test_an_entry_says_where_a_config_has_it(name: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stages", name]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"  in {place}"
