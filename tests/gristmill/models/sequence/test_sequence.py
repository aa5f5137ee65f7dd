"""Classifiers of sequences: transformers' own numbers, whatever stands beside a text; and what is said of files that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers

from gristmill.errors import InputError
from gristmill.models.sequence.body import Padded
from gristmill.models.sequence.engine import OpenedSequence
from gristmill.models.sequence.loading import load
from gristmill.models.sequence.parameters import SequenceClassifier
from tests.gristmill.models.sequence.saved_classifiers import ALONE, LIMIT, PACKED, logits, save, texts

THREE = {"id2label": {0: "low", 1: "middle", 2: "high"}, "label2id": {"low": 0, "middle": 1, "high": 2}}
CPU = torch.device("cpu")


def parameters(folder: Path, **more: Any) -> SequenceClassifier:
    return SequenceClassifier(**({"path": str(folder), "max_tokens": LIMIT, "pack_tokens": 256, "device": "cpu"} | more))


def scores(opened: OpenedSequence, given: list[str]) -> np.ndarray:
    return opened.classify(pa.array(given, pa.string()), most=len(opened.labels)).by_label(len(opened.labels))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bert"
    save(folder, PACKED["bert"](num_labels=1))
    return folder


@pytest.mark.parametrize("name", [*PACKED, *ALONE])
def test_scores_are_those_of_transformers_whatever_stands_beside(name: str, tmp_path: Path) -> None:
    model = save(tmp_path, (PACKED | ALONE)[name](num_labels=1))
    opened = parameters(tmp_path).open()
    assert (opened.body.why == "") == (name in PACKED), opened.body.why
    given = texts()
    found = scores(opened, given)
    expected = logits(model, given)
    assert np.abs(found - expected).max() < 1e-5 and np.ptp(expected) > 0.1
    order = np.random.default_rng(1).permutation(len(given))
    assert scores(opened, [given[i] for i in order]).tobytes() == found[order].tobytes()
    for i in range(0, len(given), 7):
        assert scores(opened, given[i : i + 1]).tobytes() == found[i].tobytes()


@pytest.mark.parametrize("name", ["deberta-v2", "bert"])
def test_padded_rows_have_one_shape_a_length_and_the_numbers_of_single_texts(name: str, tmp_path: Path) -> None:
    """What DeBERTa does on CUDA, and any model that is tried in vain."""
    model = save(tmp_path, (PACKED | ALONE)[name](num_labels=1))
    opened = parameters(tmp_path).open()
    given = texts()
    loaded = load(str(tmp_path), dtype=torch.float32, device=CPU)
    opened.body = Padded(loaded.model, CPU, 4 * LIMIT, "for this test")
    found = scores(opened, given)
    assert np.abs(found - logits(model, given)).max() < 1e-5
    for i in range(0, len(given), 7):
        assert scores(opened, given[i : i + 1]).tobytes() == found[i].tobytes()


@pytest.mark.parametrize(
    ("problem", "asked", "expected"),
    [
        (None, None, "softmax"),
        ("single_label_classification", None, "softmax"),
        ("multi_label_classification", None, "sigmoid"),
        ("regression", None, "logits"),
        ("regression", "softmax", "softmax"),
    ],
)
def test_what_several_labels_have_follows_the_problem(problem: str | None, asked: Any, expected: str, tmp_path: Path) -> None:
    model = save(tmp_path, PACKED["bert"](problem_type=problem, **THREE))
    opened = parameters(tmp_path, scores=asked).open()
    assert opened.labels == ("low", "middle", "high") and opened.facts["scores"] == expected
    plain = torch.from_numpy(logits(model, texts()))
    wanted = {"softmax": plain.softmax(1), "sigmoid": plain.sigmoid(), "logits": plain}[expected].numpy()
    assert np.abs(scores(opened, texts()) - wanted).max() < 1e-6
    best = opened.classify(pa.array(texts()))
    assert best.labels[:, 0].tolist() == wanted.argmax(1).tolist() and best.scores.shape == (40, 1)


def test_only_the_beginning_is_read(bert: Path) -> None:
    given = texts()
    opened = parameters(bert, max_tokens=10).open()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert)
    assert np.abs(scores(opened, given) - logits(model, given, 10)).max() < 1e-5
    longer = [f"{text} zebra" for text in given if len(text.split()) > 30]
    assert scores(opened, longer).tobytes() == scores(opened, [text[:-6] for text in longer]).tobytes()


def test_tables_without_texts_and_texts_without_tokens(bert: Path, tmp_path: Path) -> None:
    assert scores(parameters(bert).open(), []).shape == (0, 1)
    shutil.copytree(bert, tmp_path / "bare")
    file = tmp_path / "bare/tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    opened = parameters(tmp_path / "bare").open()
    found = opened.classify(pa.array(["", "the water", ""]))
    assert found.labels[:, 0].tolist() == [-1, 0, -1] and np.isnan(found.scores[:, 0]).tolist() == [True, False, True]
    assert scores(opened, ["the water"]).tobytes() == found.scores[1].tobytes()


def test_a_number_that_is_none_raises(bert: Path) -> None:
    opened = parameters(bert).open()
    with torch.no_grad():
        opened.body._way.head.classifier.bias.fill_(torch.inf)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"no finite number for 2 of 2 texts, the first of 3 tokens; use float32"):
        scores(opened, ["the", "water of"])


def changed(folder: Path, name: str, **values: Any) -> None:
    file = folder / name
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def spoil(folder: Path, how: str) -> None:
    """Spoil a saved model in one way."""
    match how:
        case "another kind":
            changed(folder, "config.json", architectures=["BertForMaskedLM"])
        case "no head":
            config = transformers.AutoConfig.from_pretrained(folder)
            transformers.BertModel(config).save_pretrained(folder)
            changed(folder, "config.json", architectures=["BertForSequenceClassification"])
        case "no tokenizer":
            (folder / "tokenizer.json").unlink()
        case "damaged tokenizer":
            (folder / "tokenizer.json").write_text("{}")
        case "another tokenizer":
            file = json.loads((folder / "tokenizer.json").read_text())
            file["model"]["vocab"]["beyond"] = 4711
            (folder / "tokenizer.json").write_text(json.dumps(file))
        case "damaged weights":
            (folder / "model.safetensors").write_bytes(b"no weights")
        case "equal labels":
            changed(folder, "config.json", id2label={"0": "good", "1": "good"}, label2id={"good": 1})
            save_two(folder)
        case "a length of its own":
            changed(folder, "config.json", max_position_embeddings=LIMIT)
            (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32}))


def save_two(folder: Path) -> None:
    """Save a model with two labels of one name."""
    config = PACKED["bert"](num_labels=2)
    save(folder, config)
    changed(folder, "config.json", id2label={"0": "good", "1": "good"}, label2id={"good": 1})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("another kind", r"config\.json is of BertForMaskedLM, which has no head for whole sequences; give a folder with"),
        ("no head", r"lack 2 of the weights that BertForSequenceClassification has, such as classifier\.bias"),
        ("no tokenizer", r"has no tokenizer; put the model's tokenizer\.json into its folder"),
        ("damaged tokenizer", r"its tokenizer\.json cannot be read"),
        ("another tokenizer", r"ids up to 4711, but it has embeddings of 63: vocabulary mismatch; give the tokenizer"),
        ("damaged weights", r"its weights cannot be loaded \(Safetensor"),
        ("equal labels", r"gives two of its 2 labels one name in id2label; rename them"),
        ("a length of its own", rf"was made for 32 tokens, max_tokens is {LIMIT}; set it to 32 or less"),
    ],
)
def test_files_that_are_no_classifier(how: str, said: str, bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spoiled"
    shutil.copytree(bert, folder)
    spoil(folder, how)
    with pytest.raises(InputError, match=rf"^model '.*spoiled': .*{said}"):
        parameters(folder).open()


def test_parameters_that_cannot_be() -> None:
    for given, said in (
        ({"path": ""}, "path is empty"),
        ({"path": "m", "max_tokens": 0}, "max_tokens is 0; give at least 1"),
        ({"path": "m", "pack_tokens": 100}, "pack_tokens is 100; a text of max_tokens, 512, has to fit in"),
    ):
        with pytest.raises(ValueError, match=said):
            SequenceClassifier(**given)  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is cuda and torch sees none; use auto or cpu"):
            SequenceClassifier(path="m", device="cuda").open()
