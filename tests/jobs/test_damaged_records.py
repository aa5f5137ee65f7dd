"""Every command that reads a build, over records that are damaged: exit code 2, the file and the key are named, no traceback."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.storage.store import expand
from jobs.__main__ import main
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from stages.sink.documents import Documents
from stages.source.jsonl import JsonlSource
from tests.jobs.byte_builds import tokenizer_json

DOCUMENT = "no-such-document"
TOKENIZER = """
scheme: {{bpe: {{vocab_size: 300}}}}
documents: {output}
bytes: 1000
held_out_bytes: 10
seed: 0
stratify: null
output: {folder}/tokenizer
"""
REFERENCE = "output: {folder}/model\nbuild: {output}\nmodel: {{size: 15m}}\ndocuments: [{{column: language, equal: en}}]\n"
ADDING = """
name: t
output: {output}
source: {{tokens: {{paths: {output}}}}}
stages: [{{score_lm: {{name: m, model: {{path: /nowhere}}}}}}, sidecars: {{build: {output}}}]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with a finished build of documents."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    source = JsonlSource(paths=f"{folder}/*.jsonl")
    plan = make_plan("t", [("jsonl", source), ("documents", Documents())], expand(source.paths))
    built = drive(plan, lambda: LocalEngine(0), Options(str(folder / "out"), record={"config": {}}))
    assert built.build is not None
    return folder / "out"


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of it whose record of the run may be harmed."""
    out = tmp_path / "out"
    for file in finished.rglob("*"):
        if file.is_file():
            target = out / file.relative_to(finished)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return out


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "report": lambda output, folder: ["report", str(output)],
    "report-of-a-run": lambda output, folder: ["report", f"{output}/runs/run-00000001.json", "--json"],
    "explain": lambda output, folder: ["explain", str(output), DOCUMENT],
    "prune": lambda output, folder: ["prune", str(output)],
    "train-tokenizer": lambda output, folder: ["train-tokenizer", _config(folder, TOKENIZER, output)],
    "measure-tokenizer": lambda output, folder: ["measure-tokenizer", _tokenizer(folder), "--on", str(output)],
    "train-reference": lambda output, folder: ["train-reference", _config(folder, REFERENCE, output)],
    "build": lambda output, folder: ["build", _config(folder, ADDING, output)],
}

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "another-object": lambda raw: b'{"x": 1}',
    "no-object": lambda raw: b"[1, 2]",
    "deep": lambda raw: b"[" * 200_000,
    "deep-inside": lambda raw: b'{"manifest": ' + b"[" * 200_000,
    "no-text": lambda raw: b"\xff\xfe" * 20,
    "a-key-of-another-type": lambda raw: raw.replace(b'"manifest": "', b'"manifest": 7, "was": "'),
    "leads-elsewhere": lambda raw: raw.replace(b'"manifest": "builds/', b'"manifest": "../builds/'),
}


def _config(folder: Path, text: str, output: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(text.format(output=output, folder=folder))
    return str(path)


def _tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    path.write_bytes(tokenizer_json())
    return str(path)


def told(command: list[str]) -> tuple[int, str]:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(command)
    return code, errors.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_record_of_a_run_is_named(command: str, damage: str, output: Path, tmp_path: Path) -> None:
    record = output / "runs" / "run-00000001.json"
    record.write_bytes(DAMAGES[damage](record.read_bytes()))
    code, said = told(COMMANDS[command](output, tmp_path))
    assert code == 2 and "runs/run-00000001.json" in said, said
    assert "Traceback" not in said and len(said) < 1000, said


@pytest.mark.parametrize("damage", ["cut", "another-object", "no-object", "deep", "no-text"])
@pytest.mark.parametrize("command", ["report", "train-tokenizer", "measure-tokenizer", "train-reference", "build"])
def test_a_damaged_manifest_of_a_build_is_named(command: str, damage: str, output: Path, tmp_path: Path) -> None:
    (manifest,) = output.glob("builds/*/manifest.json")
    manifest.write_bytes(DAMAGES[damage](manifest.read_bytes()))
    code, said = told(COMMANDS[command](output, tmp_path))
    assert code == 2 and str(manifest.relative_to(output)) in said, said
    assert "Traceback" not in said and len(said) < 1000, said


def test_a_bit_that_flipped_in_a_record_is_noticed_where_its_figures_are_used(output: Path, tmp_path: Path) -> None:
    record = output / "runs" / "run-00000001.json"
    record.write_bytes(record.read_bytes().replace(b'"name": "t"', b'"name": "s"'))
    for command in ("report", "explain", "prune"):
        code, said = told(COMMANDS[command](output, tmp_path))
        assert code == 2 and "run-00000001.json is damaged: it is not what was written" in said, said
