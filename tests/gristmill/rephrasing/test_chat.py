"""Requests to a real server in all kinds of trouble: each comes to an answer, a refusal, a failure or a stop; none is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gristmill.errors import Stopped, UserError
from gristmill.rephrasing.chat import outcomes
from gristmill.rephrasing.endpoint import Endpoint, Failed, Outcome, Refused, Reply, Request
from tests.chat_server import ChatServer, chat_server
from tests.s3_servers import free_port


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as found:
        yield found


def requests(*passages: str) -> dict[str, Request]:
    body: dict[str, Any] = {"model": "m", "temperature": 0.7, "max_tokens": 50}
    return {
        each: Request({**body, "messages": [{"role": "user", "content": f"Go. The passage: {each}"}]}, 10, 50)
        for each in passages
    }


def asked(server: ChatServer, *passages: str, spent: int = 0, **endpoint: Any) -> dict[str, Outcome]:
    setting = {"url": server.url, "longest_wait": 0.02, "timeout": 30.0, "attempts": 3, **endpoint}
    found: dict[str, Outcome] = {}
    for batch in outcomes(Endpoint(**setting), requests(*passages), spent):
        found |= batch
    return found


def kinds(found: Mapping[str, Outcome]) -> dict[str, type]:
    return {key: type(found[key]) for key in sorted(found)}


TROUBLE = ["429", "429 0.05", "500", "503", "408", "cut", "reset", "nonsense", "empty", "choiceless"]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_what_may_pass_is_tried_again(trouble: str, server: ChatServer) -> None:
    server.trouble["hard"] = [trouble, trouble]
    found = asked(server, "easy", "hard")
    assert kinds(found) == {"easy": Reply, "hard": Reply}
    assert len(server.headers) == 4 and server.passages() == {"easy": 1, "hard": 1}


def test_a_slow_answer_is_given_up_and_asked_for_again(server: ChatServer) -> None:
    server.trouble["hard"] = ["slow"]
    assert kinds(asked(server, "hard", timeout=0.5)) == {"hard": Reply}


@pytest.mark.parametrize("trouble", [each for each in TROUBLE if not each.startswith("429")])
def test_what_fails_alone_is_the_documents_affair(trouble: str, server: ChatServer) -> None:
    server.always["poison"] = trouble
    found = asked(server, "poison")
    assert kinds(found) == {"poison": Failed}, "the endpoint is asked for one word, and answers"
    failed = found["poison"]
    assert isinstance(failed, Failed) and failed.why.endswith(", after 3 attempts")
    assert kinds(asked(server, "a", "poison", "z")) == {"a": Reply, "poison": Failed, "z": Reply}


@pytest.mark.parametrize("trouble", [*TROUBLE, "slow"])
def test_what_fails_with_everything_is_an_endpoint_that_is_down(trouble: str, server: ChatServer) -> None:
    server.down = trouble
    with pytest.raises(
        Stopped, match=r"endpoint http://127\.0\.0\.1:\d+/v1 is down: .*, after 2 attempts; the answers so far are kept"
    ):
        asked(server, "a", attempts=2, timeout=0.3)


def test_nobody_listens() -> None:
    endpoint = Endpoint(url=f"http://127.0.0.1:{free_port()}/v1", attempts=2, longest_wait=0.02)
    with pytest.raises(Stopped, match=r"is down: ClientConnectorError: .*, after 2 attempts"):
        list(outcomes(endpoint, requests("a"), 0))


def test_answers_before_the_endpoint_went_down_are_given(server: ChatServer) -> None:
    found: dict[str, Outcome] = {}
    endpoint = Endpoint(url=server.url, attempts=2, longest_wait=0.02, concurrency=1)
    with pytest.raises(Stopped):
        for batch in outcomes(endpoint, requests("a", "b", "c"), 0):
            found |= batch
            server.down = "503" if found else None
    assert kinds(found) == {"a": Reply}


def test_an_endpoint_that_asks_for_a_long_wait_stops_the_build(server: ChatServer) -> None:
    server.down = "429 3600"
    with pytest.raises(Stopped, match="asks to wait for 3600 s: HTTP 429"):
        asked(server, "a")


def test_the_wait_that_the_endpoint_asks_for_is_kept(server: ChatServer) -> None:
    server.trouble["hard"] = ["429 1"]
    before = time.monotonic()
    assert kinds(asked(server, "hard")) == {"hard": Reply}
    assert time.monotonic() - before >= 1


def test_who_is_told_to_wait_waits_for_the_others_however_often(server: ChatServer) -> None:
    server.trouble["late"] = ["429"] * 10
    server.delay = 0.01
    others = [f"p{number}" for number in range(150)]
    assert set(kinds(asked(server, "late", *others, concurrency=2)).values()) == {Reply}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_is_the_documents_affair(status: int, server: ChatServer) -> None:
    server.always["long"] = str(status)
    found = asked(server, "a", "long")
    assert kinds(found) == {"a": Reply, "long": Refused}
    refused = found["long"]
    assert isinstance(refused, Refused) and refused.why.startswith(f"HTTP {status}: ") and len(server.headers) == 2
    assert kinds(asked(server, "long", "long too")) == {"long": Refused, "long too": Refused}, "so few may all be too long"


def test_an_endpoint_that_refuses_everything_is_asked_wrongly(server: ChatServer) -> None:
    server.down = "400"
    with pytest.raises(
        UserError, match=r"refused each of the first \d+ requests: HTTP 400: .*; mend model, max_tokens or options"
    ):
        asked(server, *(f"p{number}" for number in range(30)), concurrency=4)
    assert len(server.headers) < 20


@pytest.mark.parametrize(
    ("fate", "words"),
    [("401", "HTTP 401: "), ("403", "HTTP 403: "), ("404", "HTTP 404: "), ("moved", r"HTTP 301: .*to http://elsewhere\.test/v1")],
)
def test_what_is_wrong_with_every_request_is_the_users_to_mend(
    fate: str, words: str, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_KEY", "sk-very-secret")
    server.down = fate
    with pytest.raises(UserError, match=words) as error:
        asked(server, "a", "b", api_key_env="CHAT_KEY")
    assert "sk-very" not in str(error.value) and "CHAT_KEY" in str(error.value)


def test_the_key_is_sent_and_never_told(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", "sk-very-secret")
    server.always["bad"] = "422"
    found = asked(server, "a", "bad", api_key_env="CHAT_KEY")
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    assert "you sent Bearer ***" in str(found["bad"]) and "sk-very" not in str(found)
    monkeypatch.delenv("CHAT_KEY")
    with pytest.raises(UserError, match="the environment variable CHAT_KEY is not set"):
        asked(server, "a", api_key_env="CHAT_KEY")


def test_no_more_at_once_than_may_be(server: ChatServer) -> None:
    server.delay = 0.02
    assert len(asked(server, *(f"p{number}" for number in range(40)), concurrency=5)) == 40
    assert server.most_at_once == 5


def test_a_budget_is_never_passed_and_what_it_paid_for_is_given(server: ChatServer) -> None:
    found: dict[str, Outcome] = {}
    endpoint = Endpoint(url=server.url, price_in=1e6, price_out=1e6, budget=200.0, concurrency=4)  # a token costs 1
    with pytest.raises(
        Stopped, match=r"the budget of 200 has no room for the next request: \d+ is spent .* and \d+ or more are"
    ) as error:
        for batch in outcomes(endpoint, requests(*(f"p{number}" for number in range(20))), 20 * 1_000_000):
            found |= batch
    cost = sum(each.tokens_in + each.tokens_out for each in found.values() if isinstance(each, Reply))
    assert 0 < cost <= 180 and len(found) == len(server.bodies) and f"{cost + 20} is spent" in str(error.value)
    with pytest.raises(Stopped, match="200 is spent"):
        list(outcomes(endpoint, requests("a"), 200 * 1_000_000))


def test_tokens_are_estimated_where_they_are_not_told(server: ChatServer) -> None:
    server.usage = False
    reply = asked(server, "a")["a"]
    assert isinstance(reply, Reply) and reply.tokens_in == 10 and reply.tokens_out == -(-len(reply.text) // 4)


def test_nothing_is_asked_on_when_nobody_listens_to_the_answers(server: ChatServer) -> None:
    stream = outcomes(Endpoint(url=server.url, concurrency=1), requests(*"abcdefgh"), 0)
    next(stream)
    stream.close()
    assert len(server.bodies) < 8
