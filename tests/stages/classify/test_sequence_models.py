"""Classifiers of sequences in the stage `classify`: from a config through a build, in processes of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import transformers

from gristmill.models.sequence.parameters import SequenceClassifier
from gristmill.storage.store import expand
from gristmill.tokenizer.tokenizer import Tokenizer
from jobs.config import build_config
from jobs.tokenizer.corpus import documents_of
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from pipeline.resources import Resources
from stages.classify.classify import Classify
from stages.classify.kinds import PerplexityModel, SequenceModel
from tests.gristmill.models.ngram.test_perplexity import save_counted
from tests.gristmill.models.sequence.saved_classifiers import LIMIT, PACKED, SIZES, logits, save, texts
from tests.stages.score.tiny_models import tokenizer_json

CONFIG = """
name: scored
output: out
source: {jsonl: {paths: PATHS}}
stages:
  - classify:
      models:
        SHOWN
  - documents
"""


def test_a_build_scores_in_processes_of_the_model(tmp_path: Path) -> None:
    model = save(tmp_path / "model", PACKED["bert"](num_labels=1))
    given = [text or "it is" for text in texts()]
    for part in (0, 1):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in given[part::2])
        (tmp_path / f"in-{part}.jsonl").write_text(lines)
    asked = f"quality: {{sequence: {{path: {tmp_path / 'model'}, max_tokens: 64, pack_tokens: 256, device: cpu}}}}"
    text = CONFIG.replace("PATHS", str(tmp_path / "in-*.jsonl")).replace("SHOWN", asked)
    (tmp_path / "config.yaml").write_text(text)
    config = build_config.load(tmp_path / "config.yaml")
    sequence = SequenceClassifier(path=str(tmp_path / "model"), max_tokens=LIMIT, pack_tokens=256, device="cpu")
    assert config.stages[0] == ("classify", Classify(models={"quality": SequenceModel(sequence=sequence)}))
    inputs = expand((str(tmp_path / "in-*.jsonl"),))
    plan = make_plan("scored", [(config.source_name, config.source), *config.stages], inputs)
    outcome = drive(plan, lambda: LocalEngine(2), Options(str(tmp_path / "out")))
    assert outcome.build is not None, outcome.failures
    found = {
        text: score
        for table in documents_of(str(tmp_path / "out"))
        for text, score in zip(table["text"].to_pylist(), table["quality"].to_pylist(), strict=True)
    }
    assert found.keys() == set(given)
    assert np.abs(np.array([found[text] for text in given]) - logits(model, given)[:, 0]).max() < 1e-5


def test_the_page_shows_models_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    save(models / "fineweb-edu-classifier", transformers.BertConfig(**{**SIZES, "max_position_embeddings": 512}, num_labels=1))
    (models / "tokenizer.json").write_text(tokenizer_json())
    tokenizer = Tokenizer.open(models)
    save_counted(tokenizer, tokenizer.vocab_size, models / "wikipedia.arrow")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs/classify.md").read_text()
    shown = re.findall(r"```yaml\n(\w+: \{(?:sequence|perplexity): .*)\n```", page)
    Path("config.yaml").write_text(CONFIG.replace("PATHS", "in.jsonl").replace("SHOWN", "\n        ".join(shown)))
    ((_, stage), _) = build_config.load(Path("config.yaml")).stages
    assert isinstance(stage, Classify)
    assert [type(model) for model in stage.models.values()] == [SequenceModel, PerplexityModel]
    out = stage.open()(pa.table({"text": texts()}))
    assert out["quality"].null_count == 0 and out["surprise"].is_null().to_pylist() == [not text for text in texts()]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("auto", None), ("cuda", None)])
def test_processes_hold_gpus_unless_it_runs_on_cpus(device: str, gpus: float | None) -> None:
    model = SequenceModel(sequence=SequenceClassifier(path="m", device=device))  # type: ignore[arg-type]
    assert Classify(models={"quality": model}).resources() == Resources(gpus=gpus)
    assert dict(model.adds("quality")) == {"quality": Classify(models={"quality": model}).adds()["quality"]}
