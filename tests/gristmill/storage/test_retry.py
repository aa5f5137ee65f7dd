"""What is tried again, how often, and what is raised in the end."""

from __future__ import annotations

import errno

import pytest
from aiohttp import ClientResponseError, RequestInfo
from botocore.exceptions import ClientError, ReadTimeoutError
from multidict import CIMultiDict, CIMultiDictProxy
from s3fs.errors import translate_boto_error
from yarl import URL

from gristmill.storage import retry
from gristmill.storage.retry import Backoff, code, passes, patiently, status, timed_out


def of_web(found: int) -> Exception:
    url = URL("http://127.0.0.1/f")
    return ClientResponseError(RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url), (), status=found)


def of_s3(name: str, found: int) -> Exception:
    response = {"Error": {"Code": name, "Message": "said"}, "ResponseMetadata": {"HTTPStatusCode": found}}
    made: Exception = translate_boto_error(ClientError(response, "PutObject"))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(errno.ECONNRESET, "cut"), True),
        (of_web(503), True),
        (of_web(429), True),
        (of_web(401), False),
        (of_s3("SlowDown", 503), True),
        (of_s3("ConditionalRequestConflict", 409), True),
        (of_s3("RequestTimeout", 400), True),
        (of_s3("IncompleteBody", 400), True),
        (of_s3("EntityTooLarge", 400), False),
        (of_s3("InvalidBucketName", 400), False),
    ],
    ids=str,
)
def test_what_passes(error: Exception, again: bool) -> None:
    assert passes(error) is again


def test_what_a_client_met_before_it_failed_does_not_count() -> None:
    """s3fs asks for an object and, on 404, for a folder: a cut of the second request is no 404."""
    try:
        try:
            raise of_s3("404", 404)
        except FileNotFoundError:
            raise ConnectionResetError(errno.ECONNRESET, "cut")  # noqa: B904 - as it does
    except OSError as error:
        assert (status(error), code(error), passes(error)) == (0, "", True)


def test_time_limits_are_known_by_name() -> None:
    assert timed_out(ReadTimeoutError(endpoint_url="http://127.0.0.1")) and timed_out(TimeoutError())
    assert not timed_out(ConnectionResetError())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the waits that were asked for, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    return found


def given_up(error: Exception, attempt: int) -> Exception:
    return ConnectionError(f"{error} (attempt {attempt})")


def test_waits_double_up_to_the_longest_and_the_last_error_is_told(waits: list[float]) -> None:
    with pytest.raises(ConnectionError, match=r"cut \(attempt 10\)") as caught:
        patiently(fails(ConnectionResetError("cut")), lambda error, attempt: None, given_up)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert Backoff(first_s=2.0, longest_s=9.0).after(3) == 8.0


def test_it_works_in_the_end(waits: list[float]) -> None:
    outcomes = [fails(ConnectionResetError()), fails(of_web(500)), lambda: b"content"]
    assert patiently(lambda: outcomes.pop(0)(), lambda error, attempt: None, given_up) == b"content"
    assert len(waits) == 2


@pytest.mark.parametrize("error", [TypeError("a bug"), of_web(403), FileNotFoundError("gone")], ids=lambda e: type(e).__name__)
def test_what_lasts_is_raised_at_once(error: Exception, waits: list[float]) -> None:
    known = FileNotFoundError
    with pytest.raises((TypeError, ConnectionError, known)) as caught:
        patiently(fails(error), lambda found, attempt: found if isinstance(found, known) else None, given_up)
    assert waits == [] and (caught.value is error or str(caught.value).endswith("(attempt 1)"))


def fails(error: Exception):
    def action() -> bytes:
        raise error

    return action
