"""Scores of models as columns: against the models asked alone, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gristmill.errors import ConfigError, InputError
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.linear.file import Features, encode
from gristmill.models.linear.linear import Linear
from gristmill.models.linear.training import Learning, learn
from jobs.config import build_config
from pipeline.finding import Finding
from stages.classify.classify import Classify
from stages.classify.kinds import FastTextModel, LinearModel

MODEL = str(Path(__file__).parents[2] / "contract/golden/classifier.bin")
LABELS = ("prose", "Q-A", "code")
CONFIG = """
name: classified
output: out
source: {jsonl: {paths: in.jsonl}}
stages:
  - classify: {models: MODELS}
  - documents
"""


def asked(**parameters: Any) -> FastTextModel:
    return FastTextModel(fasttext=FastText(path=MODEL), **parameters)


def scores(texts: pa.Table) -> np.ndarray:
    return FastText(path=MODEL).open().classify(texts["text"], most=3).by_label(3)


def test_a_score_of_one_label_of_several_and_of_the_best(texts: pa.Table) -> None:
    expected = scores(texts)
    stage = Classify(models={"quality": asked(label="code"), "kind": asked(labels=("Q-A", "prose")), "most": asked(best=True)})
    out = stage.open()(texts)
    assert out.column_names[-5:] == list(stage.adds()) == ["quality", "kind_q_a", "kind_prose", "most_label", "most"]
    for column, label in (("quality", 2), ("kind_q_a", 1), ("kind_prose", 0)):
        assert out[column].to_numpy().tobytes() == expected[:, label].tobytes()
    assert out["most"].to_pylist() == expected.max(axis=1).tolist()
    assert out["most_label"].to_pylist() == [LABELS[best] for best in expected.argmax(axis=1)]
    assert len(set(out["most_label"].to_pylist())) > 1, "the texts must show several labels"
    assert stage.measures() == tuple(stage.adds()) and stage.files() == (MODEL,)


def test_what_is_explained_is_the_score(texts: pa.Table) -> None:
    stage = Classify(models={"quality": asked(label="code"), "most": asked(best=True)})
    before = texts.slice(3, 1)
    after = stage.open()(before)
    quality, best = after["quality"][0].as_py(), after["most"][0].as_py()
    label = after["most_label"][0].as_py()
    assert stage.explain(before, after) == [Finding("quality", quality), Finding("most_label", label), Finding("most", best)]


def test_labels_that_a_model_does_not_know(texts: pa.Table) -> None:
    known = r"; its labels are prose, Q-A, code$"
    for parameters, label in (({"label": "hq"}, "hq"), ({"labels": ("code", "essay")}, "essay")):
        stage = Classify(models={"quality": asked(**parameters)})
        for ask in (stage.check, stage.open):
            with pytest.raises(InputError, match=rf"^models: 'quality' has no label '{label}'{known}"):
                ask()
    with pytest.raises(InputError, match=r"'quality' has several labels \(prose, Q-A, code\); say whose score is wanted: label"):
        Classify(models={"quality": asked()}).check()


def load(tmp_path: Path, models: str) -> build_config.Build:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("MODELS", models))
    return build_config.load(tmp_path / "config.yaml")


def test_models_in_a_config(tmp_path: Path) -> None:
    found = load(tmp_path, f"{{quality: {{fasttext: {{path: {MODEL}, max_chars: 9}}, label: code}}}}")
    expected = FastTextModel(fasttext=FastText(path=MODEL, max_chars=9), label="code")
    assert found.stages[0] == ("classify", Classify(models={"quality": expected}))


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{}", "models names none; give at least one"),
        ("{Quality: {fasttext: {path: m}}}", "models: name 'Quality' must be of"),
        ("{quality: {fastext: {path: m}}}", "has no parameter 'fastext'; did you mean 'fasttext'?"),
        (
            "{quality: {fasttext: {path: m}, label: a, best: true}}",
            "best stands beside label; give one of label, labels and best",
        ),
        (
            "{quality: {fasttext: {path: m}, labels: [a-b, A b]}}",
            "labels: 'A b' becomes the end of a column's name 'a_b', as 'a-b' does",
        ),
        ("{quality: {fasttext: {path: m}, labels: ['?']}}", "'', which has no letter or digit; leave it out"),
        (
            "{a: {fasttext: {path: m}, labels: [b]}, a_b: {fasttext: {path: m}}}",
            "'a' and 'a_b' both give the column 'a_b'; rename one",
        ),
        ("{text: {fasttext: {path: MODEL}, label: code}}", "adds column 'text', which source 'jsonl' gives already"),
    ],
)
def test_mistakes_in_a_config(models: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, models.replace("MODEL", MODEL))
    assert said in str(told.value)


def test_scores_are_columns_to_decide_by(texts: pa.Table) -> None:
    out = Classify(models={"quality": asked(label="code")}).open()(texts)
    assert 0 < out.filter(pc.greater_equal(out["quality"], 0.5)).num_rows < texts.num_rows


def test_a_linear_model_beside_another(texts: pa.Table, tmp_path: Path) -> None:
    learned = learn(
        texts["text"].combine_chunks(), np.arange(len(texts), dtype=np.int32) % 2, ("no", "yes"), Features(bits=12), Learning()
    )
    (tmp_path / "model.bin").write_bytes(encode(learned))
    linear = Linear(path=str(tmp_path))
    stage = Classify(models={"odd": LinearModel(linear=linear, label="yes"), "code": asked(label="code")})
    out = stage.open()(texts)
    found = linear.open().classify(texts["text"], most=2).by_label(2)[:, 1]
    assert out["odd"].to_numpy(zero_copy_only=False).tobytes() == found.tobytes()
    assert stage.files() == (str(tmp_path / "model.bin"), MODEL)
    with pytest.raises(InputError, match="not a linear model"):
        Classify(models={"odd": LinearModel(linear=Linear(path=MODEL), label="yes")}).check()
