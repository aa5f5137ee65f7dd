"""Which failures of a storage are worth another try, how many there are, and how long to wait in between: for all storages.

Reads and writes nothing itself. Clients of storages are set up to try once, since their retries would multiply with these:
minutes for one request to a server in trouble.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gristmill.secrets import cause

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits in seconds that double from the first on, up to the longest."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """Return the wait after so many failures in a row, 1 or more."""
        # Beyond 2**1023 there is no float, and an outage of a night at 30 s each is a thousand failures.
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))


ATTEMPTS = 10  # with these waits about 20 s of an unreachable server, and the time limits of its client
BACKOFF = Backoff(first_s=0.1, longest_s=5.0)

# HTTP statuses from 400 to 499 that may pass: a slow request, a conflict with another write under way, too early, too many.
PASSING = frozenset({408, 409, 425, 429})
# S3's codes with status 400 that may: the request was cut short or damaged on its way.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
PASSING_CODES = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout"})
BUGS = (AssertionError, AttributeError, ImportError, NotImplementedError, TypeError)


def patiently(
    action: Callable[[], T],
    judge: Callable[[Exception, int], Exception | None],
    given_up: Callable[[Exception, int], Exception],
) -> T:
    """Return the result of a call, made again while what fails may pass (`passes`).

    Args:
        action: a call that does no harm when it is made twice.
        judge: is given an error and the number of the attempt, from 1; returns what to raise at once, or None: the common rules.
        given_up: is given the last error and the number of the attempt; returns what to raise.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except BUGS:
            raise
        except Exception as error:  # aiohttp's, botocore's and fsspec's families of one outage have nothing in common
            verdict = judge(error, attempt)
            if verdict is error:
                raise
            if verdict is None and (attempt == ATTEMPTS or not passes(error)):
                verdict = given_up(error, attempt)
            if verdict is not None:
                raise verdict from cause(error)
        time.sleep(BACKOFF.after(attempt))
    raise AssertionError("ATTEMPTS is less than 1")


def passes(error: BaseException) -> bool:
    """Tell whether an error may be gone when the call is made again: not what a server says of the request itself."""
    found = status(error)
    return not 400 <= found < 500 or found in PASSING or code(error) in PASSING_CODES


def status(error: BaseException) -> int:
    """Return the HTTP status behind an error of aiohttp or botocore, 0 where none is known."""
    for each in _behind(error):
        response = getattr(each, "response", None)
        named = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for found in (named, getattr(each, "status", None)):
            if isinstance(found, int):
                return found
    return 0


def code(error: BaseException) -> str:
    """Return the S3 error code behind an error of s3fs or botocore, '' where none is known."""
    responses = (getattr(each, "response", None) for each in _behind(error))
    found = next((response for response in responses if isinstance(response, dict)), {})
    return str(found.get("Error", {}).get("Code", ""))


def timed_out(error: BaseException) -> bool:
    """Tell whether an error, or one behind it, is that of a time limit: all families of them have it in their names."""
    while not (isinstance(error, TimeoutError) or "Timeout" in type(error).__name__):
        behind = error.__cause__ or error.__context__
        if behind is None:
            return False
        error = behind
    return True


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes. Not its contexts: after a 404 s3fs asks again otherwise, and that may fail too."""
    while error is not None:
        yield error
        error = error.__cause__
