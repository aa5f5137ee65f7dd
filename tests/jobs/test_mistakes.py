"""Every mistake a person can make: exit code 2, one message with its place, no traceback, and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.conftest import ROOT, Checkout
from tests.s3_servers import BUCKET, Faults, Proxy, moto, use

GOOD = """\
name: mistakes
output: out
source:
  warc: {paths: "crawl/*.warc.gz"}
stages:
  - extract_html
  - language: {keep: [en, fr], min_score: 0.5}
  - dedup_minhash: {bands: 14}
  - encode: {tokenizer: tokenizer}
  - score_ngram: {models: {good: {curated: {column: language_score, at_least: 0.9}}}}
  - shards: {tokens_per_shard: 1_000}
run: {on: local, workers: 1}
"""

RECIPE = """\
scheme:
  bpe: {vocab_size: 400}
documents: texts
output: made
"""


@pytest.fixture
def folder(tmp_path: Path, small_crawl: Checkout, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a crawl, a tokenizer, and things that are none."""
    (tmp_path / "crawl").symlink_to(small_crawl.folder / "examples/crawl")
    (tmp_path / "tokenizer").symlink_to(tokenizer)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("content")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "other.json").write_text('{"model": {"type": "unheard of"}}')
    (tmp_path / "bare.json").write_text(
        json.dumps({**json.loads((tokenizer / "tokenizer.json").read_text()), "added_tokens": []})
    )
    (tmp_path / "latin.yaml").write_bytes("name: café\n".encode("latin-1"))
    (tmp_path / "good.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must refuse; return its message."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert main(list(arguments)) == 2
    out, errors = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before, "nothing may be written"
    assert out == "" and "Traceback" not in errors
    assert errors.startswith("error: ") and errors.count("error: ") == 1 and errors.count("\n") == 1, errors
    return errors.removeprefix("error: ").rstrip("\n")


def test_the_config_without_a_mistake_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "good.yaml"]) == 0
    assert capsys.readouterr().err == ""


# what of the good config is replaced, by what; line and column of the message; what it says
MISTAKES = [
    # stages and parameters by name
    ("- extract_html", "- extract_htm", "6:5", ["unknown stage 'extract_htm'", "did you mean 'extract_html'?", "dedup_exact"]),
    ("- extract_html", "- dance", "6:5", ["unknown stage 'dance'; the stages are extract_html"]),
    ("warc:", "wrac:", "4:3", ["unknown source 'wrac'", "did you mean 'warc'?", "warc, jsonl, parquet, text"]),
    ("warc:", "extract_html:", "4:3", ["'extract_html' is a stage, not a source"]),
    ("- extract_html", "- jsonl: {paths: a}", "6:5", ["'jsonl' is a source, not a stage"]),
    ("min_score", "min_scor", "7:32", ["no parameter 'min_scor'", "did you mean 'min_score'?", "keep, min_score, model"]),
    ("bands: 14", "shingles: 5", "8:21", ["stage 'dedup_minhash'", "no parameter 'shingles'", "ngram, bands, rows"]),
    ("{curated:", "{oder: 3, curated:", "10:35", ["'models.good' has no parameter 'oder'", "did you mean 'order'?"]),
    ("workers", "worker", "12:18", ["no parameter 'worker'", "did you mean 'workers'?"]),
    ("stages:", "stage:", "5:1", ["unknown key 'stage'", "did you mean 'stages'?"]),
    # types and ranges
    ("min_score: 0.5", "min_score: high", "7:43", ["'min_score' must be a number, found the text 'high'"]),
    ("[en, fr]", "en", "7:22", ["'keep' must be a list (text each)", "write [en]"]),
    ("1_000", '"1_000"', "11:32", ["must be an integer", "remove the quotes"]),
    ("1_000", "1e3", "11:32", ["must be an integer", "did you mean 1_000?"]),
    ("1_000", "0", "11:32", ["tokens_per_shard is 0; it must be at least 1"]),
    ("min_score: 0.5", "min_score: 5", "7:43", ["min_score is 5.0; a probability lies between 0 and 1"]),
    ("bands: 14", "bands: 0", "8:28", ["bands is 0; allowed are 1 to 256"]),
    ("{bands: 14}", "14", "8:20", ["must be a mapping", "the integer 14"]),
    ("[en, fr]", "[en, eng]", "7:22", ["keep: unknown language 'eng'; did you mean en"]),
    ("- extract_html", "- extract_html: {engine: trafilature}", "6:28", ["did you mean 'trafilatura'?"]),
    ("- extract_html", "- extract_html: {favor: recall}", "6:27", ["favor: recall needs engine: trafilatura"]),
    ("  - shards: {", "  - select: {policies: {a: {scheme: rho2}}}\n  - shards: {", "11:37", ["'rho2'", "did you mean 'rho1'?"]),
    ("run: {on: local", "run: {on: here", "12:11", ["'on' must be one of local, ray", "the text 'here'"]),
    ("workers: 1", "workers: 0", "12:27", ["workers must be at least 1, found 0"]),
    ("workers: 1", "memory_per_worker: lots", "12:37", ["memory_per_worker must be bytes or text such as 4GB", "'lots'"]),
    ("workers: 1", "memory_per_worker: -1GB", "12:37", ["memory_per_worker must be bytes or text such as 4GB"]),
    ("workers: 1", "partitions: 3", "12:30", ["run: partitions must be a power of two from 1 to 64, found 3"]),
    ("workers: 1", "partitions: 128", "12:30", ["partitions must be a power of two from 1 to 64, found 128"]),
    # files
    ('"crawl/*.warc.gz"', "crawl/none.warc.gz", "4:3", ["'crawl/none.warc.gz': file does not exist"]),
    ('"crawl/*.warc.gz"', '"crawl/*.wet.gz"', "4:3", ["'crawl/*.wet.gz': pattern matches no file (looked in 'crawl/')"]),
    ('"crawl/*.warc.gz"', '["crawl/*.gz", "nowhere/*.gz"]', "4:3", ["'nowhere/*.gz': pattern matches no file"]),
    ('"crawl/*.warc.gz"', '"empty"', "4:3", ["'empty': is a folder; give its files, such as 'empty/*'"]),
    ('"crawl/*.warc.gz"', "[]", "4:3", ["source 'warc': paths is an empty list"]),
    ("tokenizer: tokenizer", "tokenizer: nowhere", "9:5", ["tokenizer 'nowhere'", "does not exist", "train-tokenizer"]),
    ("tokenizer: tokenizer", "tokenizer: empty", "9:5", ["tokenizer 'empty'", "empty/tokenizer.json does not exist"]),
    ("tokenizer: tokenizer", "tokenizer: file", "9:5", ["tokenizer 'file'", "cannot be read as a tokenizer.json"]),
    ("tokenizer: tokenizer", "tokenizer: binary", "9:5", ["tokenizer 'binary'", "cannot be read as a tokenizer.json"]),
    (
        "tokenizer: tokenizer",
        "tokenizer: other.json",
        "9:5",
        ["'other.json'", "is not a tokenizer.json", "an object with 'vocab'"],
    ),
    ("tokenizer: tokenizer", "tokenizer: bare.json", "9:5", ["eos '<|endoftext|>' is no special token of 'bare.json'"]),
    ("tokenizer: tokenizer", "tokenizer: tokenizer, bos: <s>", "9:5", ["bos '<s>' is no special token", "<|endoftext|>"]),
    ("[en, fr]", "[en], model: nowhere.bin", "7:5", ["model: 'nowhere.bin' is not a file"]),
    ("[en, fr]", "[en], model: file", "7:5", ["model: 'file' is not a fastText model"]),
    # the order of stages
    (
        "  - shards: {tokens_per_shard: 1_000}\n",
        "",
        "10:5",
        ["the last stage must be one that writes", "those that write are shards, documents, sidecars"],
    ),
    ("- extract_html", "- save", "6:5", ["stage 'save' is the first, there is no work to keep yet"]),
    ("- extract_html", "- documents", "6:5", ["'documents' writes the shards and must be the last"]),
    ("  - encode: {tokenizer: tokenizer}\n", "", "9:5", ["stage 'score_ngram' needs column 'input_ids'"]),
    ("  - language: {keep: [en, fr], min_score: 0.5}\n", "", "9:5", ["needs column 'language_score'", "stage 'language'"]),
    ("column: language_score", "column: topic", "10:5", ["needs column 'topic'"]),
    ("1_000", "1_000, columns: [topic]", "11:5", ["stage 'shards' needs column 'topic'"]),
    # YAML
    ("name: mistakes\n", "", "1:1", ["key 'name' is missing"]),
    ("output: out\n", "output: out\noutput: other\n", "3:1", ["'output' is given twice"]),
    ("min_score: 0.5", "min_score: 0.5, keep: [de]", "7:48", ["'keep' is given twice"]),
    ("[en, fr]", "[en, fr", "7:45", ["not valid YAML", "expected ',' or ']'"]),
    ("  - extract_html", "\t- extract_html", "6:1", ["not valid YAML", "spaces, not tabs"]),
    ("name: mistakes", "name: mistakes: two", "1:15", ["not valid YAML"]),
    ("output: out", "output:", "2:8", ["'output' must be text, found nothing (null)"]),
    (GOOD, "", "1:1", ["the file is empty"]),
    (GOOD, "just text\n", "1:1", ["a config must be a mapping"]),
]


@pytest.mark.parametrize(("old", "new", "where", "says"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_a_config(
    old: str, new: str, where: str, says: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in GOOD
    (folder / "a.yaml").write_text(GOOD.replace(old, new, 1))
    message = refused(folder, capsys, "build", "a.yaml")
    assert message.startswith(f"a.yaml:{where}: "), message
    for part in says:
        assert part in message
    assert refused(folder, capsys, "plan", "a.yaml") == message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run.workers"], ["--set run.workers: give KEY=VALUE, such as --set run.workers=4"]),
        (["run.workers=two"], ["--set run.workers: run: parameter 'workers' must be an integer"]),
        (["stages.langage.min_score=1"], ["--set stages.langage.min_score: no entry 'langage'", "did you mean 'language'?"]),
        (["stages.language.min_scor=1"], ["--set stages.language.min_scor", "did you mean 'min_score'?"]),
        (["stages.encode.tokenizer=nowhere"], ["good.yaml:9:5: stage 'encode': tokenizer 'nowhere'"]),
        (["output=file"], ["output 'file'", "'file' is a file; give a folder"]),
        (["output=file/below"], ["output 'file/below'", "'file' is a file; give a folder"]),
        (["output=gs://bucket/x"], ["output 'gs://bucket/x': only local folders, s3:// and az://"]),
        (["output=/proc/nowhere"], ["output '/proc/nowhere' cannot be written"]),
    ],
)
def test_a_mistake_on_the_command_line(
    arguments: list[str], says: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(folder, capsys, "build", "good.yaml", *(word for each in arguments for word in ("--set", each)))
    for part in says:
        assert part in message


@pytest.mark.parametrize("command", ["build", "plan", "train-tokenizer"])
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("god.yaml", "config 'god.yaml': file does not exist; did you mean 'good.yaml'?"),
        ("nowhere/a.yaml", "config 'nowhere/a.yaml': file does not exist"),
        ("empty", "cannot be read"),
        ("latin.yaml", "latin.yaml:1:1: byte 0xe9 is not UTF-8"),
        ("file", "file:1:1:"),
    ],
)
def test_a_config_that_is_none(command: str, path: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(folder, capsys, command, path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report", "nowhere"], "'nowhere': no finished build there (looked in 'nowhere/runs')"),
        (["report", "empty", "--json"], "'empty': no finished build there"),
        (["report", "file"], "'file'"),
        (["report", "empty/builds/0123"], "no finished build there"),
        (["report", "empty/runs/a.json"], "no finished build there"),
        (["explain", "nowhere", "http://a.example/"], "'nowhere': no finished build there"),
        (["explain", "empty", "--token", "0:0:0"], "'empty': no finished build there"),
        (["explain", "empty"], "give a URL or a document id"),
        (["stages", "langage"], "unknown stage 'langage'; did you mean 'language'?"),
    ],
)
def test_there_is_no_such_build_or_stage(
    arguments: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(folder, capsys, *arguments)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("bpe:", "bqe:", "r.yaml:2:3: unknown scheme 'bqe'; did you mean 'bpe'?"),
        ("vocab_size: 400", "vocab_sise: 400", "r.yaml:2:9: scheme 'bpe': it has no parameter 'vocab_sise'; did you mean"),
        ("vocab_size: 400", "vocab_size: 40", "r.yaml:2:21: scheme 'bpe': vocab_size must be from 257"),
        ("vocab_size: 400", "vocab_size: many", "r.yaml:2:21: scheme 'bpe': parameter 'vocab_size' must be an integer"),
        ("documents: texts\n", "", "r.yaml:1:1: key 'documents' is missing"),
        ("output: made", "outptu: made", "r.yaml:4:1: unknown key 'outptu'; did you mean 'output'?"),
        ("documents: texts", "documents: texts", "'texts': no finished build of documents there"),
        ("documents: texts", "documents: {warc: {paths: nowhere.gz}}", "'nowhere.gz': file does not exist"),
        ("documents: texts", 'documents: {warc: {paths: "crawl/*.gz"}}', "text/html, not text/plain; build texts first"),
        (RECIPE, GOOD, "r.yaml:1:1: unknown key 'name'"),
    ],
)
def test_a_mistake_in_a_recipe_of_a_tokenizer(
    old: str, new: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "r.yaml").write_text(RECIPE.replace(old, new, 1))
    assert says in refused(folder, capsys, "train-tokenizer", "r.yaml").replace("error: ", "")


def test_a_store_without_conditional_writes_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with moto() as server, Proxy(server, Faults(unconditional=True)) as proxy:
        use(monkeypatch, proxy.port)
        message = refused(folder, capsys, "build", "good.yaml", "--set", f"output=s3://{BUCKET}/refused")
        assert f"output 's3://{BUCKET}/refused' does not honour conditional writes" in message and "If-None-Match" in message
        import s3fs

        names = s3fs.S3FileSystem(use_listings_cache=False).find(f"{BUCKET}/refused")
        assert [name.rsplit("/", 1)[-1] for name in names] == ["probe"], "nothing but what it was tried with"
        message = refused(folder, capsys, "build", "good.yaml", "--set", "output=s3://no-such-bucket/x")
        assert "bucket does not exist" in message
        message = refused(folder, capsys, "report", f"s3://{BUCKET}/nothing")
        assert "no finished build there" in message


@pytest.mark.parametrize(
    ("curated", "says"),
    [
        ("{column: url, at_least: 1}", "models.good.curated.column 'url' is string; it must be a number"),
        ("{column: language_score, at_least: 2}", "are with language_score of at least 2.0; lower models.good.curated.at_least"),
    ],
)
def test_a_mistake_that_only_the_documents_show(
    curated: str, says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "good.yaml", "--set", f"stages.score_ngram.models.good.curated={curated}"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("error: ") and says in last and errors.count("error: ") == 1
    assert not (folder / "out/builds").exists()


@pytest.mark.parametrize("arguments", [["biuld", "a.yaml"], ["build"], ["build", "a.yaml", "--fast"], []])
def test_words_that_are_no_command(arguments: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobs", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    begins = {"biuld": "error: unknown command 'biuld'; did you mean 'build'?", "": "give a command, `python -m jobs"}
    assert done.stderr.startswith(begins.get("".join(arguments[:1]), "usage: python -m jobs")) and "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_does_not_answer(address: str, small_crawl: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    # `auto` would find a cluster of somebody else on this machine.
    monkeypatch.setattr("ray._private.services._cached_find_gcs_addresses", cache(set[str]))
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    settings = ("--set", "run.on=ray", "--set", f"run.address={address!r}", "--set", "output=build/no-cluster")
    out, errors = small_crawl.here("build", "jobs/recipes/demo-text.yaml", *settings, code=2)
    assert errors.splitlines()[-1].startswith(f"error: no Ray cluster answers at '{address}'")
    assert "run.address" in errors and "Traceback" not in errors and not out
