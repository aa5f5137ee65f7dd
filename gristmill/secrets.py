"""Secrets in URLs, kept out of messages and records: passwords, tokens and signatures that a path of a build may carry.

Pure functions; they read and write nothing. Credentials belong into the environment or a file system's own configuration; where
a URL carries them all the same (RFC 3986, 3.2.1: `user:password@`; presigned URLs of S3, Google and Azure; `?token=…`), what is
printed or recorded shows `***` in their place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

# user:password@, up to the last @ before the path; a password with a slash in it, which is no URL but is written, up to its @.
# A library for paths has made one slash of two where a URL was taken for one.
_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]{1,30}:/{1,3}[^\s:/?#@]*):(?:[^\s/?#]*@|(?!\d*[/?#])[^\s?#]+@)", re.IGNORECASE)
_USER = re.compile(r"(https?:/{1,3})[^\s:/?#@]+@", re.IGNORECASE)  # a token alone, as code hosts take it
_NAMES = (
    r"(?:[a-z0-9_.%-]*(?:token|secret|signature|password|passwd|credentials?|auth|api-?_?key|access-?_?key|account-?_?key)"
    r"|key|sig|pwd|pass|jwt|hmac|awsaccesskeyid)"
)
_PARAMETER = re.compile(rf"""([?&;#]{_NAMES}=)[^&;\s#'"]+""", re.IGNORECASE)


def masked(text: str) -> str:
    """Return a text with `***` for the secrets of the URLs in it."""
    if ":/" in text:
        text = _USER.sub(rf"\1{HIDDEN}@", _PASSWORD.sub(rf"\1:{HIDDEN}@", text))
    return _PARAMETER.sub(rf"\1{HIDDEN}", text) if "=" in text else text


def check_bucket(uri: str) -> None:
    """Raise ValueError for an S3 URL with credentials in front of the bucket, which no S3 client takes and some would print."""
    bucket = uri.split("://", 1)[-1].split("/", 1)[0]
    given = "@" in bucket or (_PASSWORD.match(uri) and not bucket.startswith("arn:"))
    if uri.startswith(("s3://", "s3a://")) and given:
        raise ValueError(
            f"{masked(uri)!r}: an S3 URL holds no credentials; put them into the environment, AWS_ACCESS_KEY_ID and so on"
        )


def without_secrets(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return plain data (mappings, lists, scalars) with all its texts masked; keys stay."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def cause(error: BaseException) -> BaseException | None:
    """Return an error to raise another from; None where its own words would tell a secret."""
    return error if masked(str(error)) == str(error) else None
