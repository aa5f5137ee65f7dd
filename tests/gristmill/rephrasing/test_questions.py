"""Questions: which there are, what names them, and what is kept of their answers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gristmill.rephrasing.endpoint import Endpoint, Failed, Refused, Reply, Trouble, Wrong, read
from gristmill.rephrasing.prompt import Prompt
from gristmill.rephrasing.questions import Sampling, parsed, questions, written
from gristmill.rephrasing.tokens import estimate

SAMPLING = Sampling("m", 0.7, 3, None, {"top_p": 0.9})
ONE = Prompt(name="one", hash="1", words="Say: {text}", input_tokens=4, output_tokens=9)
TWO = Prompt(name="two", hash="2", words="{text}!", input_tokens=100, output_tokens=50)


def asked(document: str = "d", text: str = "the mill grinds\nslow and fine", sampling: Sampling = SAMPLING) -> list[Any]:
    return questions(document, text, [ONE, TWO], sampling, estimate)


def test_a_question_a_prompt_and_segment() -> None:
    found = asked()
    assert [(each.prompt.name, each.number, each.source) for each in found] == [
        ("one", 0, "the mill grinds"),
        ("one", 1, "slow and fine"),
        ("two", 0, "the mill grinds\nslow and fine"),
    ]
    assert found[1].request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say: slow and fine"}],
        "temperature": 0.7,
        "max_tokens": 9,
        "seed": 3,
        "top_p": 0.9,
    }
    assert asked(text=" \n") == []


def test_all_that_an_answer_depends_on_is_in_its_name() -> None:
    base = {each.key for each in asked()}
    assert len(base) == 3 and {each.key for each in asked()} == base
    others = [
        asked("e"),
        asked(text="the mill grinds!\nslow and fine?"),
        *(
            asked(sampling=dataclasses.replace(SAMPLING, **change))
            for change in ({"model": "n"}, {"temperature": 0.8}, {"seed": None}, {"max_tokens": 8}, {"options": {}})
        ),
    ]
    names = [base, *({each.key for each in found} for found in others)]
    assert len(set().union(*names)) == sum(map(len, names))
    same = questions("d", "aaaa\naaaa", [dataclasses.replace(ONE, input_tokens=2)], SAMPLING, estimate)
    assert len({each.key for each in same}) == 2, "equal segments of a document have answers of their own"


@pytest.mark.parametrize("outcome", [Reply('a\n"é\u2028', "stop", "m"), Refused("HTTP 400: no"), Failed("HTTP 500")])
def test_what_is_kept_is_read_again(outcome: Any) -> None:
    assert parsed(written(outcome)) == outcome


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"choices": [{"message": {"content": "hi"}}]}', Reply("hi", "stop", "")),
        (
            200,
            b'{"model": "n", "choices": [{"message": {"content": null}, "finish_reason": "length"}]}',
            Reply("", "length", "n"),
        ),
        (
            200,
            b'{"choices": [{"message": {"content": "\\ud800"}}], "usage": {"prompt_tokens": 7, "completion_tokens": true}}',
            Reply("?", "stop", "", 7),
        ),
        (200, b"[" * 100_000, Trouble),
        (200, b'{"choices": [{"message": {"content": 3}}]}', Trouble),
        (200, b'{"choices": [{"message": null}]}', Trouble),
        (200, b"\xff\xfe", Trouble),
        (429, b"", Trouble("HTTP 429", None, True)),
        (500, b"x", Trouble("HTTP 500: x")),
        (404, b"no such model", Wrong("HTTP 404: no such model")),
        (418, b"tea\n\npot", Refused("HTTP 418: tea pot")),
    ],
)
def test_what_a_response_says(status: int, body: bytes, expected: Any) -> None:
    found = read(status, {}, body, None)
    assert isinstance(found, expected) if isinstance(expected, type) else found == expected


@pytest.mark.parametrize(
    ("header", "wait"), [("3", 3.0), (" 0.5 ", 0.5), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("", None)]
)
def test_the_wait_that_is_asked_for(header: str, wait: float | None) -> None:
    found = read(503, {"Retry-After": header}, b"", None)
    assert isinstance(found, Trouble) and found.wait == wait


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "localhost:8000"}, "url must be as http://127"),
        ({"url": "http://h/v1?key=abc"}, r"url must be as http://127.*found 'http://h/v1\?key=\*\*\*'"),
        ({"url": "http://me:pass@h/v1"}, r"url must hold no secrets, found 'http://\*\*\*@h/v1'|url must hold no secrets"),
        ({"concurrency": 0}, "concurrency must be at least 1, found 0"),
        ({"timeout": 0.0}, "timeout must be seconds above 0, found 0"),
        ({"price_in": -1.0}, "price_in must not be negative"),
        ({"budget": 5.0}, "budget must be above 0, beside price_in and price_out, found 5"),
        ({"budget": 0.0, "price_in": 1.0}, "budget must be above 0"),
    ],
)
def test_mistakes_in_an_endpoint(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Endpoint(**{"url": "http://h/v1", **change})


def test_costs() -> None:
    endpoint = Endpoint(url="https://h/v1/", price_in=0.15, price_out=0.6)
    assert endpoint.address == "https://h/v1/chat/completions"
    assert endpoint.cost(1_000_000, 500_000) == 450_000  # millionths: 0.45


def test_a_success_without_an_answer_is_trouble_and_no_refusal() -> None:
    found = read(204, {}, b"", None)
    assert isinstance(found, Trouble) and "no chat completion" in found.why


def test_the_key_is_hidden_in_a_page_that_is_no_answer() -> None:
    found = read(200, {}, b"<html>you sent Bearer plain-key-of-ours</html>", "plain-key-of-ours")
    assert isinstance(found, Trouble) and "you sent" in found.why and "plain-key" not in found.why
