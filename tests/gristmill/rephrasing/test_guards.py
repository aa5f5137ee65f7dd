"""What is taken for a rephrasing and what is not, with the reason; what stands around one is taken off."""

from __future__ import annotations

import pytest

from gristmill.models.language_id import LanguageId
from gristmill.rephrasing.guards import changed_language, copied, fault, refuses, stripped
from gristmill.rephrasing.prompt import Prompt

PREAMBLE = "Here is the paraphrase:"
SOURCE = "The old mill at the river was built by monks and ground the corn of nine villages until the flood came"
OTHER = "Monks had put up a watermill, and farmers from nine places brought their grain there before high water took it away"


def prompt(preamble: str = PREAMBLE, least: int = 0) -> Prompt:
    return Prompt(name="p", hash="0", words="{text}", input_tokens=100, output_tokens=100, least_tokens=least, preamble=preamble)


@pytest.mark.parametrize(
    ("answer", "finish", "tokens", "reason"),
    [
        (f"{PREAMBLE}\n\n{OTHER}.", "stop", 30, None),
        (f"**here is the\nparaphrase:**\n{OTHER}", "stop", 30, None),
        (f"<think>\nI'm sorry, but what?\n</think>\n\n{PREAMBLE}\n{OTHER}", "stop", 30, None),
        (f"<think>\nThat takes long: {OTHER}", "length", 30, "cut"),
        (f"{PREAMBLE}\n{OTHER}", "length", 30, "cut"),
        (f"Sure.\n{OTHER}", "stop", 30, "preamble_missing"),
        (OTHER, "stop", 30, "preamble_missing"),
        (f"{PREAMBLE}\n{OTHER}", "stop", 9, "too_short"),
        (PREAMBLE, "stop", 30, "too_short"),
        ("", "stop", 0, "preamble_missing"),
        ("I'm sorry, but I can't help with that.", "stop", 30, "refusal"),
        (f"{PREAMBLE}\nAs an AI language model, I cannot know.", "stop", 30, "refusal"),
        (f"{PREAMBLE}\n{OTHER}", "content_filter", 30, "refusal"),
        (f"{PREAMBLE}\n{SOURCE}.", "stop", 30, "copy"),
        (f"{PREAMBLE}\n{SOURCE.upper()} at last", "stop", 30, "copy"),
    ],
)
def test_each_reason(answer: str, finish: str, tokens: int, reason: str | None) -> None:
    text, found = fault(answer, finish, tokens, SOURCE, prompt(least=10), 0.85)
    assert found == reason
    if reason is None:
        assert text.rstrip(".") == OTHER


@pytest.mark.parametrize(
    "answer",
    [
        "I’m sorry, I can’t.",
        "Sorry, but I am unable",
        "I cannot rewrite this",
        "I am not able to do it",
        "As a large language model,",
    ],
)
def test_refusals(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I can tell a story.",
        "As an airline, it flies.",
        "It said: I cannot.",
        "Unfortunately, it rained.",
        "Sorry sights abound.",
    ],
)
def test_what_only_looks_like_one(answer: str) -> None:
    assert not refuses(answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Sure! Here is the text:\nThe mill.", "The mill."),
        ("Here are two facts:\n- a\n- b", "- a\n- b"),
        ("Certainly.\n\nThe mill.", "The mill."),
        ("Here is a mill. It grinds.", "Here is a mill. It grinds."),
        ("Surely the mill:\nit grinds.", "Surely the mill:\nit grinds."),
        (" The mill. ", "The mill."),
    ],
)
def test_chatter_is_taken_off_where_no_preamble_is_asked_for(answer: str, expected: str) -> None:
    assert stripped(answer, "") == expected


def test_a_share_of_runs_is_copied() -> None:
    assert copied(SOURCE, SOURCE) == 1 and copied(OTHER, SOURCE) == 0 and copied("of nine villages", SOURCE) == 0
    assert 0 < copied(f"{SOURCE} {OTHER}", SOURCE) < 1
    chinese = "水车在河边慢慢地转动着，磨坊里的石头磨着村民们的谷物"
    assert (
        copied(chinese, chinese) == 1 and copied(chinese[5:], chinese) == 1 and copied("".join(reversed(chinese)), chinese) == 0
    )


def test_a_language_that_changed_is_told_where_both_are_sure() -> None:
    classifier = LanguageId().open()
    german = "Die alte Mühle am Fluss wurde von Mönchen gebaut und mahlte das Korn von neun Dörfern, bis die Flut kam."
    answers, sources = [german, OTHER, german, "a b 1 2", OTHER], [SOURCE, SOURCE, german, SOURCE, "1 2 3"]
    assert changed_language(answers, sources, classifier) == [True, False, False, False, False]
    assert changed_language([], [], classifier) == []
