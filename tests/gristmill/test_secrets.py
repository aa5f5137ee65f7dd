"""Secrets in URLs: which parts of a text are hidden, and that no message or record of ours tells them."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest

from gristmill import FormatError, Source, TokenDataset
from gristmill.models.causal_lm.parameters import CausalLm
from gristmill.secrets import check_bucket, masked, without_secrets
from gristmill.storage.store import InputFile
from jobs.__main__ import main
from pipeline.planning.plan import make_plan
from stages.score.lm import ScoreLm
from stages.sink.documents import Documents
from stages.source.jsonl import JsonlSource

SECRET = "s3cr3t.Val~e%2F+x"


@pytest.mark.parametrize(
    "url",
    [
        "https://user:{}@host/path",
        "s3://AKIAXYZ:{}@bucket/prefix",
        "s3://AKIAXYZ:with/slash{}@bucket/prefix",
        "ftp://u:p@{}@host:21/x",
        "redis://:{}@host",
        "http:/user:{}@host/a/path/now",
        "https:/ghp{}@host/x",
        "https://ghp{}@host/x",
        "https://b.s3.amazonaws.com/k?X-Amz-Algorithm=A&X-Amz-Credential={}&X-Amz-Date=1&X-Amz-Signature={}",
        "https://b.s3.amazonaws.com/k?x-amz-security-token={}",
        "https://storage.googleapis.com/b/k?X-Goog-Signature={}&X-Goog-Credential={}",
        "https://a.blob.core.windows.net/c/b?sv=2024&sp=r&sig={}",
        "https://b.s3.amazonaws.com/k?AWSAccessKeyId=AK{}&Signature={}&Expires=9",
        "https://host/x?token={}",
        "https://host/x?a=1;access_token={}",
        "https://host/x#id_token={}",
        "https://host/x?api_key={}&apikey={}&API-Key={}",
        "https://host/x?key={}",
        "https://host/x?client_secret={}&password={}&pwd={}",
        "/only/the/path?X-Amz-Signature={} of a library's message",
    ],
)
def test_secrets_are_hidden(url):
    """Alone, in quotes, in a sentence, and twice."""
    given = url.replace("{}", SECRET)
    for text in (given, repr(given), f"model '{given}': not there (twice: {given}, {given})"):
        assert SECRET not in masked(text) and SECRET[-5:] not in masked(text)
        assert "***" in masked(text)
    assert masked(masked(given)) == masked(given)


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/path?page=2&q=tokens&author=me#part",
        "s3://bucket/prefix/part-*.jsonl.gz",
        "http://host:80/photo@2x.png",
        "mail me@host.org: at 12:30 @ noon",
        "http://localhost:9000",
        "tokens_per_shard=50_000_000, key=language, keep=0.6",
        "a/b:c@d",
        "file:///home/me@work/x:y",
        "c:/users/me@work",
        "12:/30 a@b",
        "ray://head:10001",
    ],
)
def test_all_else_is_kept(text):
    assert masked(text) == text


def test_plain_data_is_masked_inside():
    given = {"a": ["http://u:p1@h", {"b": ("x?sig=p2", 3)}], "http://u:p@h": None}
    assert without_secrets(given) == {"a": ["http://u:***@h", {"b": ["x?sig=***", 3]}], "http://u:p@h": None}


def test_the_readers_errors(monkeypatch):
    """Of remote paths that lead nowhere, printed with what they were raised from."""
    monkeypatch.setattr("gristmill.storage.retry.ATTEMPTS", 1)
    for url in ("memory://u:hunter2@nowhere/build", "http://u:hunter2@127.0.0.1:9/build?token=hunter2", "odd://u:hunter2@x/y"):
        with pytest.raises((FormatError, OSError, ValueError)) as caught:
            TokenDataset.open(url, sequence_length=8)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in repr(Source(path="s3://u:hunter2@b/x")) and "hunter2" not in str(FormatError("http://u:hunter2@h"))


def test_records_and_lineage():
    """The fingerprints are of what is given: two models that differ in a secret alone may be two models."""
    plans = []
    for secret in ("hunter2", "hunter3"):
        scored = ScoreLm(name="m", model=CausalLm(path=f"https://u:{secret}@host/model"))
        object.__setattr__(scored, "files", tuple)  # nothing is asked of the network here
        object.__setattr__(scored, "needs", tuple)
        inputs = [InputFile("a.jsonl", f"s3://k:{secret}@b/a.jsonl", 1, "")]
        plans.append(
            make_plan("p", [("jsonl", JsonlSource(paths=("x",))), ("score_lm", scored), ("documents", Documents())], inputs)
        )
    lineage = json.dumps(plans[0].lineage().plain())
    assert "hunter2" not in lineage and "https://u:***@host/model" in lineage and "s3://k:***@b/a.jsonl" in lineage
    assert plans[0].lineage() == plans[1].lineage()
    assert plans[0].fingerprint != plans[1].fingerprint


@pytest.mark.parametrize("secret", ["hunter2", "hunter2/with+slash"])
def test_credentials_in_an_s3_url_are_refused(secret, capsys, tmp_path, monkeypatch):
    """By the reader and by the commands, before any client sees them."""
    url = f"s3://AKIAEXAMPLE:{secret}@bucket/prefix"
    monkeypatch.chdir(tmp_path)
    if "/" not in secret:
        with pytest.raises(ValueError, match=r"s3://AKIAEXAMPLE:\*\*\*@bucket/prefix': an S3 URL holds no credentials"):
            TokenDataset.open(url, sequence_length=8)
    config = {"name": "x", "output": "out", "source": {"jsonl": {"paths": url}}, "stages": ["documents"]}
    Path("in.yaml").write_text(json.dumps(config))
    Path("out.yaml").write_text(json.dumps({**config, "output": url, "source": {"jsonl": {"paths": "in.yaml"}}}))
    for words in (["plan", "in.yaml"], ["plan", "out.yaml"], ["report", url], ["explain", url, "x"]):
        assert main(words) == 2
        printed = "".join(capsys.readouterr())
        assert "hunter2" not in printed and "slash" not in printed, printed


def test_other_s3_urls_are_taken():
    for url in (
        "s3://bucket/a@b",
        "s3://bucket/x:y@z",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/mine/a@b",
        "s3://b/q?token=x",
    ):
        check_bucket(url)
    check_bucket("https://u:p@host/x")
