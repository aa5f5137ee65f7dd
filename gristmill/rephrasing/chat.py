"""Requests to an endpoint, a bounded number at once, tried again with growing waits, within a budget.

Reads bodies of requests; yields what became of each as it comes. Talks HTTP by aiohttp.

What a request may come to: an answer; a refusal, which is the document's; or trouble until its attempts are used up. Then the
endpoint is asked for one word: if it answers, the trouble is the document's, else the endpoint is down, which stops everything
(`Stopped`). What is wrong with every request (the key, the address) is the user's to mend (`UserError`).
"""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

from gristmill.errors import Stopped, UserError
from gristmill.extras import needs
from gristmill.json_values import Plain
from gristmill.rephrasing.endpoint import (
    MILLION,
    Endpoint,
    Failed,
    Outcome,
    Refused,
    Reply,
    Request,
    Said,
    Trouble,
    Wrong,
    read,
)
from gristmill.rephrasing.tokens import estimate
from gristmill.storage import notes
from gristmill.storage.retry import Backoff

with needs("pipeline"):
    import aiohttp

LIFE_S = 5.0  # the longest between two yields
SYSTEMATIC = 10  # so many refusals and no answer: the requests are at fault, not the documents
SETTLE_S = 5.0  # for which answers under way are waited for when the endpoint is down


def outcomes(endpoint: Endpoint, requests: Mapping[str, Request], spent: int) -> Generator[Mapping[str, Outcome], None, None]:
    """Yield what became of each request, by its key, as it comes; nothing, now and then, while all are waited for.

    Args:
        endpoint: whom to ask.
        requests: by keys.
        spent: millionths of the currency, of what is kept already.

    Raises:
        Stopped: the endpoint is down, or the budget is spent. What came before has been yielded.
        UserError: the endpoint cannot be asked in this way at all: the key, the address, the model, or all that is asked.
    """
    with asyncio.Runner() as runner:
        asking = _Asking(endpoint, spent, collections.deque(requests.items()))
        runner.run(asking.open())
        try:
            while asking.waiting or asking.running:
                asking.start(runner.get_loop())
                if not asking.running:
                    break
                yield asking.sifted(runner.run(asking.some()))
                if asking.error is not None:
                    yield asking.sifted(runner.run(asking.last()))
                    raise asking.error
            yield asking.held
            if asking.waiting:
                raise asking.spent_up()
        finally:
            runner.run(asking.close())


@dataclass
class _Asking:
    """Requests that wait and that are under way."""

    endpoint: Endpoint
    spent: int
    waiting: collections.deque[tuple[str, Request]]
    running: dict[asyncio.Task[Outcome], tuple[str, int]] = field(default_factory=dict)  # to the key, and what it may cost
    held: dict[str, Outcome] = field(default_factory=dict)  # refusals, before there is an answer
    error: Exception | None = None
    answered: int = 0
    session: aiohttp.ClientSession | None = None
    key: str | None = None

    async def open(self) -> None:
        """Make what holds the connections."""
        self.key = self.endpoint.key()
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        connector = aiohttp.TCPConnector(limit=self.endpoint.concurrency + 1)
        timeout = aiohttp.ClientTimeout(total=self.endpoint.timeout)
        self.session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers)

    async def close(self) -> None:
        """End what is under way, and the connections."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        assert self.session is not None
        await self.session.close()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin as many requests as may be under way, and as the budget has room for."""
        while self.waiting and len(self.running) < self.endpoint.concurrency:
            key, request = self.waiting[0]
            cost = self.endpoint.cost(request.tokens_in, request.tokens_out)
            reserved = sum(most for _, most in self.running.values())
            if self.endpoint.budget is not None and self.spent + reserved + cost > self.endpoint.budget * MILLION:
                return
            self.waiting.popleft()
            self.running[loop.create_task(self._outcome(request))] = (key, cost)

    async def some(self) -> dict[str, Outcome]:
        """Wait for the next outcomes; return those that are there after a while."""
        done, _ = await asyncio.wait(self.running, timeout=LIFE_S, return_when=asyncio.FIRST_COMPLETED)
        return self._landed(done)

    async def last(self) -> dict[str, Outcome]:
        """Return what comes of the requests under way, for a little while, when no more is asked."""
        if not self.running:
            return {}
        done, _ = await asyncio.wait(self.running, timeout=SETTLE_S)
        return self._landed(done)

    def _landed(self, done: set[asyncio.Task[Outcome]]) -> dict[str, Outcome]:
        found: dict[str, Outcome] = {}
        for task in [each for each in self.running if each in done]:
            key, _ = self.running.pop(task)
            error = task.exception()
            if error is None:
                found[key] = task.result()
                self.spent += self._cost(task.result())
            elif isinstance(error, Stopped | UserError):
                self.error = self.error or error
            else:
                raise error
        return found

    def _cost(self, outcome: Outcome) -> int:
        return self.endpoint.cost(outcome.tokens_in, outcome.tokens_out) if isinstance(outcome, Reply) else 0

    def sifted(self, found: dict[str, Outcome]) -> dict[str, Outcome]:
        """Hold refusals back until there is an answer: where there is none, the documents are not at fault."""
        if self.answered or any(not isinstance(each, Refused) for each in found.values()):
            self.answered += len(found)
            found, self.held = {**self.held, **found}, {}
            return found
        self.held |= found
        if len(self.held) >= SYSTEMATIC:
            first = next(each for each in self.held.values() if isinstance(each, Refused))
            whole = f"refused each of the first {len(self.held)} requests: {first.why}"
            self.error = UserError(f"endpoint {self.endpoint.url} {whole}; mend model, max_tokens or options, or its own limits")
            self.held = {}
        return {}

    def spent_up(self) -> Stopped:
        """Return the error of a budget that has no room for the next request."""
        budget = self.endpoint.budget
        assert budget is not None
        return Stopped(
            f"the budget of {budget:g} has no room for the next request: {self.spent / MILLION:.6g} is spent on the answers that "
            f"are kept, and {len(self.waiting)} or more are missing; raise the budget of endpoint {self.endpoint.url} to go on"
        )

    async def _outcome(self, request: Request) -> Outcome:
        """Ask until there is an outcome. Raises Stopped, UserError."""
        waits = Backoff(first_s=min(1.0, self.endpoint.longest_wait), longest_s=self.endpoint.longest_wait)
        attempt, said = 0, Trouble("")
        while attempt < self.endpoint.attempts:
            before = self.answered
            found = await self._said(request.body)
            if isinstance(found, Reply):
                return _counted(found, request)
            if isinstance(found, Refused):
                return found
            if isinstance(found, Wrong):
                advice = "mend its url or model" + (
                    f", or the key in {self.endpoint.api_key_env}" if self.key else " or api_key_env"
                )
                raise UserError(f"endpoint {self.endpoint.url}: {found.why}; {advice}")
            said = found
            # Whoever is told that there is too much to do waits for the others, however often.
            attempt += not (said.busy and self.answered > before)
            where = f"endpoint {self.endpoint.url}"
            notes.tell(where, f"{where}: {said.why} (attempt {attempt} of {self.endpoint.attempts})")
            if said.wait is not None and said.wait > self.endpoint.timeout:
                raise Stopped(f"{where} asks to wait for {said.wait:g} s: {said.why}; the answers so far are kept")
            if attempt < self.endpoint.attempts:
                await asyncio.sleep(max(said.wait or 0.0, waits.after(max(1, attempt))))
        one_word = {**request.body, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 1}
        why = f"{said.why}, after {self.endpoint.attempts} attempts"
        if not said.busy and isinstance(await self._said(one_word), Reply):
            return Failed(why)
        raise Stopped(f"endpoint {self.endpoint.url} is down: {why}; the answers so far are kept")

    async def _said(self, body: Mapping[str, Plain]) -> Said:
        """Send a request once."""
        assert self.session is not None
        data = json.dumps(body, ensure_ascii=True).encode()
        headers = {"Content-Type": "application/json"}
        try:
            async with self.session.post(self.endpoint.address, data=data, headers=headers, allow_redirects=False) as response:
                return read(response.status, response.headers, await response.read(), self.key)
        except TimeoutError:
            return Trouble(f"no answer within {self.endpoint.timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Trouble(f"{type(error).__name__}: {error}")


def _counted(reply: Reply, request: Request) -> Reply:
    """Return an answer with its tokens, estimated where the endpoint does not tell them."""
    tokens_in = reply.tokens_in if reply.tokens_in >= 0 else request.tokens_in
    tokens_out = reply.tokens_out if reply.tokens_out >= 0 else estimate([reply.text])[0]
    return replace(reply, tokens_in=tokens_in, tokens_out=tokens_out)
