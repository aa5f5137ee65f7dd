"""Segments fit, lose nothing but white space at their ends, and are cut at the best place there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.rephrasing.segments import segments
from gristmill.rephrasing.tokens import counting, estimate
from gristmill.tokenizer.tokenizer import Tokenizer
from tests.random_examples import examples

TEXTS = st.text(st.sampled_from("ab .!?\n。é水") | st.characters(exclude_categories=["Cs"]), max_size=80)


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


@given(TEXTS, st.integers(1, 12))
@examples(300)
def test_segments_fit_and_lose_only_white_space(text: str, most: int) -> None:
    found = segments(text, most, estimate)
    assert "".join("".join(found).split()) == "".join(text.split())
    # A single character may have more bytes than a segment may.
    assert all(estimate([segment])[0] <= most or len(segment) == 1 for segment in found)
    assert all(segment == segment.strip() and segment for segment in found)
    if estimate([text])[0] <= most and text.strip():
        assert found == [text.strip()]


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("", 5, []),
        (" \n ", 5, []),
        ("a b\nc d\ne f", 4, ["a b\nc d", "e f"]),
        ("a b\n\nc d\ne f", 6, ["a b\n\nc d\ne f"]),
        ("a b c. d e f! g\nh", 4, ["a b c.", "d e f! g", "h"]),
        ("a b c d e", 2, ["a b", "c d", "e"]),
        ("one.two three", 1, ["one.two", "three"]),
    ],
)
def test_cuts_are_at_lines_then_sentences_then_words(text: str, most: int, expected: list[str]) -> None:
    assert segments(text, most, words) == expected


def test_text_without_spaces_is_cut_at_its_marks_and_else_anywhere() -> None:
    def characters(texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    assert segments("水は流れる。石は挽く。", 6, characters) == ["水は流れる。", "石は挽く。"]
    assert segments("abcdefgh", 3, characters) == ["ab", "cd", "ef", "gh"]


def test_a_tokenizer_counts(tokenizer: Path) -> None:
    text = "The mill grinds slowly, but it grinds. " * 40
    found = segments(text, 50, counting(str(tokenizer)))
    lengths = [len(Tokenizer.open(tokenizer).encode([segment])[0]) for segment in found]
    assert len(found) > 5 and max(lengths) <= 50 and min(lengths[:-1]) > 30
