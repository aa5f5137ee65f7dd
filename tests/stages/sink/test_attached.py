"""The tokenizer's file beside the tokens: in builds on a disk and on S3, whatever the kind of file."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path

import pytest

from gristmill.format import manifest as mf
from gristmill.storage.store import expand, open_store
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from stages.encode.encode import Encode
from stages.sink.documents import Documents
from stages.sink.shards import Shards
from stages.source.text import TextSource
from tests.s3_servers import BUCKET, moto, use

RANKS = b"".join(b"%s %d\n" % (base64.b64encode(bytes([i])), i) for i in range(256))


def build(tmp_path: Path, output: str, encode: Encode, sink: Shards | Documents) -> tuple[str, mf.Manifest]:
    """Build from two lines; return the build's folder, relative to the output, and its manifest."""
    (tmp_path / "in.txt").write_text("one line\nand one more\n")
    paths = str(tmp_path / "in.txt")
    plan = make_plan("t", [("text", TextSource(paths=paths)), ("encode", encode), ("sink", sink)], expand(paths))
    outcome = drive(plan, lambda: LocalEngine(0), Options(output))
    assert outcome.build is not None, outcome.failures
    folder = f"builds/{outcome.build}"
    return folder, mf.parse(json.loads(open_store(output).read(f"{folder}/manifest.json")), output)


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_the_build_has_the_file_as_it_is(where: str, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = tmp_path / "some ranks"
    ranks.write_bytes(RANKS)
    special = {"pattern": "gpt2", "special_tokens": (("<|endoftext|>", 256),)}
    with moto() if where == "s3" else contextlib.nullcontext(None) as port:
        if port is not None:
            use(monkeypatch, port)
        for number, (path, more, name) in enumerate([(tokenizer, {}, "tokenizer.json"), (ranks, special, "tokenizer.tiktoken")]):
            output = f"s3://{BUCKET}/{number}" if where == "s3" else str(tmp_path / str(number))
            folder, manifest = build(tmp_path, output, Encode(tokenizer=str(path), **more), Shards())
            assert manifest.tokenizer is not None and manifest.tokenizer.file == name
            there = open_store(output)
            assert there.read(f"{folder}/{name}") == (path / name if path.is_dir() else path).read_bytes()
            assert there.list(folder) == ["manifest.json", name, "tokens-00000.arrow"]


def test_texts_need_no_tokenizer(tokenizer: Path, tmp_path: Path) -> None:
    folder, manifest = build(tmp_path, str(tmp_path / "out"), Encode(tokenizer=str(tokenizer)), Documents())
    assert manifest.tokenizer is None
    assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == ["documents-00000.arrow", "manifest.json"]
