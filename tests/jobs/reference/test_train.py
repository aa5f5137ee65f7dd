"""`train-reference`: from a build to a model that transformers opens, also through a kill; and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from gristmill.errors import ConfigError
from gristmill.format.schema import Tokenizer
from gristmill.models.causal_lm.parameters import CausalLm
from jobs.__main__ import main
from jobs.reference.model import first_token
from jobs.reference.recipe import Recipe, read_recipe
from tests.conftest import ROOT
from tests.jobs.byte_builds import VOCABULARY, byte_documents, publish_bytes, record_of, tokenizer_json, words

SHAPE = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 48}
KILLED = """
import os, signal, sys

finished = []

def watch(event, arguments):
    if event == "os.rename" and "step-" in str(arguments[0]):
        finished.append(arguments[1])
        if len(finished) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)  # told before a file is renamed: the second checkpoint is written, and not yet there

from jobs.__main__ import main

main(["train-reference", sys.argv[1]])
"""

Written = Callable[..., str]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents of a language of six words, half of them called English."""
    output = tmp_path_factory.mktemp("build")
    texts = [words(8, row) for row in range(60)]
    publish_bytes([byte_documents(texts, file=name, languages=("en", "fr")) for name in ("a", "b")], output)
    return output


@pytest.fixture
def recipe(build: Path, tmp_path: Path) -> Written:
    """Write a recipe: the usual one with some keys changed, or left out where None; return its path."""

    def write(name: str = "recipe", **changed: object) -> str:
        usual: dict[str, Any] = {
            "output": str(tmp_path / "out"),
            "build": str(build),
            "model": {"shape": SHAPE},
            "documents": [{"column": "language", "equal": "en"}],
            "held_out": 0.2,
            "length": 16,
            "batch_tokens": 128,
            "rows": 4,
            "steps": 4,
            "peak": 0.02,
            "device": "cpu",
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in (usual | changed).items() if value is not None}))
        return str(path)

    return write


def train(path: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Path, str]:
    """Train; return the hash and the folder that the last line names, and what was said."""
    assert main(["train-reference", path]) == 0
    out, said = capsys.readouterr()
    kind, sha256, folder = out.splitlines()[-1].split(" ")
    assert kind == "model" and out.count("\n") == 1
    return sha256, Path(folder), said


def refused(path: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run what must be refused; return its message."""
    capsys.readouterr()
    assert main(["train-reference", path]) == 2
    out, message = capsys.readouterr()
    assert out == "" and "Traceback" not in message
    return message


def test_a_killed_run_goes_on_and_ends_in_the_same_weights(
    recipe: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    often = {"checkpoint_every": 1, "held_out": 0.1}
    whole, folder, said = train(recipe("whole", output=str(tmp_path / "whole"), **often), capsys)
    assert "step 4 of 4: loss" in said and "tokens/s, 0 s left" in said and "going on" not in said
    path = recipe(**often)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoints = tmp_path / "out/work/checkpoints"
    assert sorted(each.name[:13] for each in checkpoints.iterdir()) == ["step-00000001", "step-00000002"]
    assert (checkpoints / "step-00000002.writing").is_file() and not (tmp_path / "out/model").exists()

    resumed, other, said = train(recipe(checkpoint_every=2, held_out=0.1), capsys)  # how often it saves changes nothing
    assert "going on from" in said and "step-00000001" in said
    assert resumed == whole and other == tmp_path / "out/model" != folder
    assert (other / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (other / "training.jsonl").read_text() == (folder / "training.jsonl").read_text()
    assert not list(checkpoints.glob("*.writing")) and not list(tmp_path.glob("out/.*"))

    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")}
    assert train(path, capsys)[:2] == (resumed, other)
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")} == before
    message = refused(recipe("another", seed=1, peak=0.5, held_out=0.1), capsys)
    assert "is of another recipe: peak was 0.02, is 0.5; seed was 0, is 1." in message
    (other / "model.safetensors").write_bytes(b"changed")
    assert "is not what was written; delete" in refused(path, capsys)


def test_the_model_opens_in_transformers_and_records_what_it_is(
    recipe: Written, build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256, folder, _ = train(recipe(steps=None, epochs=1.5, peak=0.02), capsys)
    record: Any = record_of(tmp_path / "out")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.float32 and record["weights"]["sha256"] == sha256
    assert sum(weight.numel() for weight in model.parameters()) == record["weights"]["parameters"]
    assert tokenizer("the mill", return_tensors="pt")["input_ids"].shape == (1, 8) and tokenizer.eos_token == "<|end|>"
    assert (folder / "tokenizer.json").read_bytes() == tokenizer_json()

    held = record["training"]["held_out_by_step"]
    assert held[0]["step"] == 0 and held[-1] == record["training"]["held_out"] and held[-1]["step"] == record["training"]["steps"]
    assert held[0]["loss"] == pytest.approx(5.55, abs=0.1) and held[-1]["loss"] < 3.5, "it learns the language"
    data = record["data"]
    assert record["training"]["steps"] == int(1.5 * ((data["training"]["tokens"] + 15) // 16)) // 8
    with torch.no_grad():
        ids = torch.tensor([[1, *tokenizer("the mill").input_ids]])
        assert model(input_ids=ids, labels=ids).loss < 3.8

    manifest = json.loads(next((build / "builds").glob("*/manifest.json")).read_text())
    assert (data["build"], data["order"]) == (manifest["build"], manifest["order"])
    assert data["conditions"] == ["language == 'en'"]
    assert 40 <= data["training"]["documents"] < 60 == data["training"]["documents"] + data["held_out"]["documents"]
    assert record["tokenizer"]["sha256"] == manifest["tokenizer"]["sha256"]
    assert record["first_token"] == {"policy": "eos", "id": 1} == model.config.gristmill["first_token"]
    assert model.config.gristmill["tokenizer_sha256"] in (folder / "README.md").read_text()
    assert (record["length"], record["start"]["shape"]["layers"], record["recipe"]["epochs"]) == (16, 2, 1.5)
    opened = CausalLm(path=str(folder), window=16, overlap=4, pack_tokens=64, device="cpu").open()
    with torch.no_grad():
        expected = -model(input_ids=ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    scored = opened.score(ids[0, 1:].numpy(), np.array([0, ids.shape[1] - 1]))
    np.testing.assert_allclose(scored.nll, expected.numpy(), rtol=1e-4, atol=1e-5)
    lines = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, record["training"]["steps"] + 1))


def test_a_base_model_is_gone_on_with(recipe: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, base, _ = train(recipe("base", output=str(tmp_path / "base"), held_out=0.3), capsys)
    train(recipe(model={"base": str(base)}, steps=2, dtype="bfloat16", held_out=0.3), capsys)
    first, second = (record_of(tmp_path / name) for name in ("base", "out"))
    assert second["training"]["held_out_by_step"][0]["loss"] == pytest.approx(first["training"]["held_out"]["loss"], rel=0.01)
    assert second["start"] == {"base": str(base)} and second["weights"] != first["weights"]

    long = recipe(model={"base": str(base)}, length=32, output=str(tmp_path / "long"))
    assert "takes 16 tokens at most, length is 32" in refused(long, capsys)
    whole = (base / "model.safetensors").read_bytes()
    weights = {name: weight for name, weight in safetensors.torch.load(whole).items() if name != "model.norm.weight"}
    safetensors.torch.save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    headless = recipe(model={"base": str(base)}, output=str(tmp_path / "headless"))
    assert "has no weights for model.norm.weight (1 missing); give a decoder" in refused(headless, capsys)
    (base / "model.safetensors").write_bytes(whole)
    content = json.loads((base / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (base / "tokenizer.json").write_text(json.dumps(content))
    other = recipe(model={"base": str(base)}, output=str(tmp_path / "other"))
    assert "has another tokenizer than the build" in refused(other, capsys)
    (base / "model.safetensors").unlink()
    assert "has no config.json with *.safetensors" in refused(other, capsys)


def test_an_output_in_use_and_an_output_of_something_else_are_refused(
    recipe: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    handle = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert "another process is training into" in refused(recipe(), capsys)
    os.close(handle)
    (tmp_path / "out/thesis.txt").write_text("mine")
    assert "holds thesis.txt, which is not of this command" in refused(recipe(), capsys)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"build": "missing"}, "build: missing: no such file"),
        ({"documents": [{"column": "score", "at_least": 0.5}]}, "no column 'score' in the token shards; they have doc_id"),
        ({"documents": [{"column": "language", "equal": "ja"}]}, "none of 120 is language == 'ja'"),
        ({"batch_tokens": 64_000}, "documents to train on have"),
        ({"peak": 1e30, "clip": 1e30}, "training diverged: step"),
        ({"model": {"base": "missing"}}, "base 'missing' has no config.json"),
    ],
    ids=["build", "column", "bucket", "tokens", "diverged", "base"],
)
def test_what_cannot_be_trained_is_refused(
    changed: dict[str, Any], found: str, recipe: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found in refused(recipe(**changed), capsys)
    assert not (tmp_path / "out/model").exists()


def test_a_recipe_that_could_not_be_carried_out_is_mended_in_place(recipe: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is language == 'ja'" in refused(recipe(documents=[{"column": "language", "equal": "ja"}]), capsys)
    assert "a step takes 64,000" in refused(recipe(batch_tokens=64_000), capsys)
    french = recipe(documents=[{"column": "language", "equal": "fr"}], steps=1)
    _, folder, _ = train(french, capsys)
    assert json.loads((folder / "gristmill.json").read_text())["data"]["conditions"] == ["language == 'fr'"]


def test_a_gpu_that_is_not_there_is_said(recipe: Written, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "torch finds no GPU here" in refused(recipe(device="cuda"), capsys)


def test_without_torch_it_says_what_to_install(
    recipe: Written, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "needs torch: install them with `pip install -e '.[scoring]'`" in refused(recipe(), capsys)


def test_recipes_are_read_without_torch(recipe: Written) -> None:
    code = "import sys; sys.modules['torch'] = None; import jobs.reference.train as job; print(job.read_recipe(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, recipe()], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("Recipe("), done.stderr


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"model": {"size": "15M"}}, "'model.size' must be one of 15m, 30m, 135m, 1b.*did you mean '15m'"),
        ({"model": {}}, "give one of size .* found none"),
        ({"model": {"size": "15m", "base": "x"}}, "give one of size .* found size and base"),
        ({"model": {"shape": {**SHAPE, "heads": 5}}}, "hidden is 32; it must be a multiple"),
        ({"model": None}, "parameter 'model' is missing"),
        ({"documents": [{"column": "language"}]}, "a condition either `equal`, or"),
        ({"steps": 0}, "steps is 0"),
        ({"epochs": -1.0}, "epochs is -1.0"),
        ({"batch_tokens": 100}, "batch_tokens is 100; it must be a multiple of the length, 16"),
        ({"rows": 3}, "rows is 3; it must be a divisor of the 8 sequences"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"warm_up": 1.5}, "warm_up is 1.5"),
        ({"dtype": "float16"}, "'dtype' must be"),
        ({"learning_rate": 1.0}, "no parameter 'learning_rate'"),
        ({"output": " "}, "output must name a folder"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_mistake_in_a_recipe_is_said_with_its_place(changed: dict[str, Any], found: str, recipe: Written) -> None:
    with pytest.raises(ConfigError, match=found) as error:
        read_recipe(recipe(**changed))
    assert "recipe.yaml:" in error.value.place


def test_the_first_token_is_what_stood_before_documents() -> None:
    def policy(bos: int | None, eos: int | None) -> dict[str, Any]:
        return first_token(Tokenizer("ab" * 32, VOCABULARY, bos, eos))

    assert policy(4, 1) == policy(4, None) == {"policy": "bos", "id": 4}
    assert policy(None, 0) == {"policy": "eos", "id": 0}
    assert policy(None, None) == {"policy": "none", "id": None}


def test_a_recipe_needs_three_keys() -> None:
    from jobs.config.parameters import required

    assert required(Recipe) == ["output", "build", "model"]
