"""Texts of strangers in a terminal: what steers it is shown as what it is, all else stays."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline.visible import one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb\x00\x7f\x9b", "a\\x0db\\x00\\x7f\\x9b"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("\u2028\u2066\ud800", "\\u2028\\u2066\\ud800"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("Grüße, 日本 🙂\u200d🙂", "Grüße, 日本 🙂\u200d🙂"),
    ],
)
def test_what_steers_is_shown_and_the_rest_stays(text: str, shown: str) -> None:
    assert visible(text) == shown and visible(shown) == shown


def test_no_control_character_and_no_direction_is_left() -> None:
    left = set(visible("".join(map(chr, range(0x10000)))))
    assert {char for char in left if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")} == {"\t", "\n"}
    directions = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    assert not {char for char in left if unicodedata.bidirectional(char) in directions}


def test_a_part_of_a_line_is_one_line() -> None:
    assert one_line("a\tb\nc\x1b") == "a\\tb\\nc\\x1b"
