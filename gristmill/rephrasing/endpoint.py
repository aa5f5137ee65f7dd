"""An OpenAI-compatible endpoint: where it is, how it is asked, what its answers cost. And what it says, read.

Pure: the parameters, and responses of `POST /chat/completions` (https://platform.openai.com/docs/api-reference/chat) as values.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gristmill.errors import UserError
from gristmill.json_values import Plain
from gristmill.secrets import HIDDEN, masked
from gristmill.storage.retry import PASSING

SHOWN = 300  # characters of a response in a message
MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model answers, and how it is asked; nothing of it changes what is built.

    Args:
        url: what stands before `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        api_key_env: the environment variable with the key, on every machine that asks; null: none is sent.
        concurrency: requests under way at once, of each worker.
        attempts: at one question, before the endpoint counts as down, or the question as one that it cannot answer.
        timeout: seconds for one answer.
        longest_wait: seconds between two attempts, which double from 1 on; more, where the endpoint says so (`Retry-After`).
        price_in, price_out: of a million tokens, of the prompt and of the answer, in any currency.
        budget: in the same currency, for all answers kept in the output: the build stops before it would be passed, and goes on
            when it is raised. null: none.
    """

    url: str
    api_key_env: str | None = None
    concurrency: int = 16
    attempts: int = 8
    timeout: float = 600.0
    longest_wait: float = 60.0
    price_in: float = 0.0
    price_out: float = 0.0
    budget: float | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", self.url):
            raise ValueError(f"url must be as http://127.0.0.1:8000/v1, without ? and #, found {masked(self.url)!r}")
        if masked(self.url) != self.url:
            raise ValueError(f"url must hold no secrets, found {masked(self.url)!r}; name a variable with the key in api_key_env")
        for name, least in (("concurrency", 1), ("attempts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")
        for name in ("timeout", "longest_wait"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be seconds above 0, found {getattr(self, name)}")
        for name in ("price_in", "price_out"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        if self.budget is not None and (not 0 < self.budget < float("inf") or not self.price_in + self.price_out):
            raise ValueError(f"budget must be above 0, beside price_in and price_out, found {self.budget}")

    @property
    def address(self) -> str:
        """Return what requests go to."""
        return f"{self.url.rstrip('/')}/chat/completions"

    def key(self) -> str | None:
        """Return the API key. Raises UserError when its variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(
                f"api_key_env: the environment variable {self.api_key_env} is not set; put the key of {self.url} there"
            )
        return key

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """Return what tokens cost, in millionths of the currency, rounded."""
        return round(tokens_in * self.price_in + tokens_out * self.price_out)


# ---- what it is asked, what it says ----


@dataclass(frozen=True)
class Request:
    """A request: what is sent, and the tokens of its text and at most of its answer, by which a budget is kept."""

    body: Mapping[str, Plain]
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Reply:
    """An answer: its text, why it ended (`stop`, `length`, ...), the model as it names itself, and the tokens; -1: not told."""

    text: str
    finish: str
    model: str
    tokens_in: int = -1
    tokens_out: int = -1


@dataclass(frozen=True)
class Refused:
    """The endpoint refuses this request, as too long a one; asking again is no use."""

    why: str


@dataclass(frozen=True)
class Failed:
    """The endpoint answers others and not this request."""

    why: str


Outcome: TypeAlias = Reply | Refused | Failed


@dataclass(frozen=True)
class Trouble:
    """Something that may pass. `wait`: the seconds that the endpoint asks for. `busy`: it has too much to do."""

    why: str
    wait: float | None = None
    busy: bool = False


@dataclass(frozen=True)
class Wrong:
    """Something that is wrong with every request: the key, the address, the name of the model."""

    why: str


Said: TypeAlias = Reply | Refused | Trouble | Wrong


def read(status: int, headers: Mapping[str, str], body: bytes, key: str | None) -> Said:
    """Return what a response says. `key` is hidden where the endpoint repeats it."""
    shown = body[: 4 * SHOWN].decode("utf-8", "replace")
    shown = " ".join((shown.replace(key, HIDDEN) if key else shown).split())[:SHOWN]
    if 200 <= status < 300:  # 204 of a proxy is no refusal: there is no answer in it
        return _reply(body, shown)
    why = f"HTTP {status}: {masked(shown)}" if shown else f"HTTP {status}"
    if status in PASSING or status >= 500:
        return Trouble(why, _seconds(headers.get("Retry-After", "")), status == 429)
    if 300 <= status < 400:
        return Wrong(f"{why} (to {masked(headers.get('Location', 'nowhere'))}; give that address)")
    return Wrong(why) if status in (401, 402, 403, 404, 405) else Refused(why)


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a header; a date there is left to our own waits."""
    return float(retry_after) if re.fullmatch(r"\s*[0-9]{1,6}(\.[0-9]+)?\s*", retry_after) else None


def _reply(body: bytes, shown: str) -> Reply | Trouble:
    """Return the answer in a body; nonsense is trouble, as of a proxy's error page. `shown` is its start, without the key."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        text = choice["message"].get("content")
        usage = content.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        finish, model = choice.get("finish_reason"), content.get("model")
        if not isinstance(text, str | None) or not all(isinstance(word, str | None) for word in (finish, model)):
            raise TypeError("a text is none")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return Trouble(f"its response is no chat completion ({type(error).__name__}: {error}): {masked(shown)!r}")
    tokens_in, tokens_out = (count if type(count) is int and count >= 0 else -1 for count in counts)
    # JSON can hold halves of surrogate pairs, UTF-8 cannot.
    text = (text or "").encode("utf-8", "replace").decode()
    return Reply(text, finish or "stop", model or "", tokens_in, tokens_out)
