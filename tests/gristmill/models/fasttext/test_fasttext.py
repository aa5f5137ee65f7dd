"""fastText classifiers as models of texts: against the engine called alone, text by text."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.language_id import BUNDLED, LanguageId
from gristmill.models.protocols import TextClassifier, TextModel

TEXTS = ["a fine sentence\nabout things", "buy cheap pills", "", "漢字 — nothing it knows", "a fine buy"]
TRAINING = "__label__good a fine sentence about things\n__label__bad buy cheap pills now\n__label__odd 1 2 3 4 5\n"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels."""
    import fasttext_new

    folder = tmp_path_factory.mktemp("fasttext")
    (folder / "training.txt").write_text(TRAINING * 20)
    model = fasttext_new.train_supervised(str(folder / "training.txt"), thread=1, epoch=5, dim=8, bucket=1000, verbose=0)
    model.save_model(str(folder / "model.bin"))
    return folder / "model.bin"


def alone(path: Path, text: str) -> dict[str, float]:
    """Return the scores of all labels, by the engine itself."""
    import fasttext_new

    labels, scores = fasttext_new.load_model(str(path)).predict(text.replace("\n", " "), k=-1)
    return {label.removeprefix("__label__"): score for label, score in zip(labels, scores, strict=True)}


def test_labels_and_scores_are_the_engines(path: Path) -> None:
    model = FastText(path=str(path)).open()
    assert sorted(model.labels) == ["bad", "good", "odd"]
    found = model.classify(pa.array(TEXTS), most=2)
    assert (found.labels.dtype, found.scores.dtype) == (np.int32, np.float32)
    assert found.labels.shape == found.scores.shape == (len(TEXTS), 2)
    for text, labels, scores in zip(TEXTS, found.labels, found.scores, strict=True):
        expected = sorted(alone(path, text).items(), key=lambda pair: -pair[1])[:2]
        assert [model.labels[label] for label in labels] == [label for label, _ in expected]
        np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-6)


def test_scores_by_label(path: Path) -> None:
    model = FastText(path=str(path)).open()
    table = model.classify(pa.array(TEXTS), most=3).by_label(3)
    for text, row in zip(TEXTS, table, strict=True):
        expected = alone(path, text)
        np.testing.assert_allclose(row, [expected[label] for label in model.labels], atol=1e-6)
    best = model.classify(pa.array(TEXTS)).by_label(3)
    assert (~np.isnan(best)).sum(axis=1).tolist() == [1] * len(TEXTS)
    assert np.nanmax(table, axis=1).tolist() == np.nanmax(best, axis=1).tolist()


def test_more_labels_than_there_are_stay_empty(path: Path) -> None:
    found = FastText(path=str(path)).open().classify(pa.array(TEXTS[:2]), most=5)
    assert (found.labels[:, 3:] == -1).all() and np.isnan(found.scores[:, 3:]).all()
    assert sorted(found.labels[0, :3].tolist()) == [0, 1, 2] and not np.isnan(found.scores[:, :3]).any()


@pytest.mark.parametrize("kind", [FastText, LanguageId])
def test_a_text_says_the_same_in_any_batch_and_process(kind: type, path: Path) -> None:
    name = "path" if kind is FastText else "model"
    parameters: TextModel = kind(**{name: str(path)})
    model: TextClassifier = parameters.open()
    whole = model.classify(pa.chunked_array([TEXTS[:2], [], TEXTS[2:]], pa.string()), most=3)
    again: TextClassifier = pickle.loads(pickle.dumps(parameters)).open()
    for row, text in enumerate(TEXTS):
        one = again.classify(pa.array([text]), most=3)
        assert one.labels.tobytes() == whole.labels[row].tobytes()
        assert one.scores.tobytes() == whole.scores[row].tobytes()


def test_no_text_at_all(path: Path) -> None:
    found = FastText(path=str(path)).open().classify(pa.chunked_array([], pa.string()), most=2)
    assert (found.labels.shape, found.scores.shape) == ((0, 2), (0, 2))
    assert found.by_label(3).shape == (0, 3)


@pytest.mark.parametrize("kind", [FastText, LanguageId])
def test_a_null_is_no_text(kind: type, path: Path) -> None:
    model = kind(**{"path" if kind is FastText else "model": str(path)}).open()
    texts = pa.chunked_array([["a fine buy", ""], ["buy", None, None]], pa.string())
    message = r"^texts\[3\] is null, one of 2 of 5; fill in what is null or leave it out$"
    with pytest.raises(ValueError, match=message):
        model.classify(texts)
    assert len(model.classify(texts.drop_null()).labels) == 3


def test_the_beginning_of_a_text(path: Path) -> None:
    texts = pa.array(["äfine pills pills pills"])
    cut, given = FastText(path=str(path), max_chars=5).open().classify(texts), FastText(path=str(path)).open()
    assert cut.scores.tobytes() == given.classify(pa.array(["äfine"])).scores.tobytes()
    assert cut.scores.tobytes() != given.classify(texts).scores.tobytes()


def test_mistakes_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_chars is 0; give at least 1"):
        FastText(path=str(path), max_chars=0)
    with pytest.raises(InputError, match=r"none\.bin' is not a file; give the path of a fastText model"):
        FastText(path=str(tmp_path / "none.bin")).files()
    with pytest.raises(InputError, match=rf"none\.bin' is not a file; give the path of a fastText model .* or {BUNDLED}"):
        LanguageId(model=str(tmp_path / "none.bin")).files()
    (tmp_path / "junk.bin").write_bytes(b"no model" * 100)
    with pytest.raises(InputError, match=r"junk\.bin' is not a fastText model"):
        FastText(path=str(tmp_path / "junk.bin")).open()
    for model in (FastText(path=str(path)), LanguageId(model=str(path))):
        with pytest.raises(ValueError, match=r"^most is 0; it must be at least 1$"):
            model.open().classify(pa.array(TEXTS), most=0)


FORMS = [
    ({"newlines": "nothing"}, lambda text: text.replace("\n", "")),
    ({"lowercase": True}, lambda text: text.replace("\n", " ").lower()),
    ({"newlines": "nothing", "lowercase": True, "max_chars": 7}, lambda text: text[:7].replace("\n", "").lower()),
]
WRITTEN = ["A Fine\nsentence", "BUY\n\ncheap PILLS", "ΌΣΟΣ İ ÄB", "a fine\u2028buy", "", "\n"]


@pytest.mark.parametrize(("parameters", "written"), FORMS)
def test_the_form_of_a_text(parameters: dict[str, object], written: Callable[[str], str], path: Path) -> None:
    found = FastText(path=str(path), **parameters).open().classify(pa.array(WRITTEN), most=3).by_label(3)  # type: ignore[arg-type]
    plain = FastText(path=str(path)).open().classify(pa.array([written(text) for text in WRITTEN]), most=3).by_label(3)
    assert found.tobytes() == plain.tobytes()
    assert found.tobytes() != FastText(path=str(path)).open().classify(pa.array(WRITTEN), most=3).by_label(3).tobytes()


def test_a_newline_behind_a_text_moves_its_scores_and_without_one_no_text_has_none(path: Path) -> None:
    texts = pa.array(["a fine buy", "", "unheard"])
    ended, plain = (FastText(path=str(path), trailing_newline=each).open().classify(texts) for each in (True, False))
    assert ended.scores[0, 0] != plain.scores[0, 0] and ended.labels[0, 0] == plain.labels[0, 0]
    assert (ended.labels[1:] >= 0).all() and (plain.labels[1:] == -1).all() and np.isnan(plain.scores[1:]).all()


def test_python_decides_on_lower_case_alone(path: Path) -> None:
    assert FastText(path=str(path), lowercase=True).libraries() == ("python",) and FastText(path=str(path)).libraries() == ()
    with pytest.raises(ValueError, match=r"^newlines is 'glue'; it can be \"space\", \"nothing\""):
        FastText(path=str(path), newlines="glue")  # type: ignore[arg-type]


def folder(path: Path, tmp_path: Path, **changes: object) -> str:
    """Return a folder as `train-classifier` writes it."""
    form = {"newlines": "nothing", "lowercase": True, "max_chars": 9, "trailing_newline": True}
    files = {"model.bin": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}
    manifest = {"kind": "fasttext", "model": "model.bin", "files": files, "preprocessing": form, **changes}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "model.bin").write_bytes(path.read_bytes())
    return str(tmp_path)


def test_a_manifest_says_the_form(path: Path, tmp_path: Path) -> None:
    place = folder(path, tmp_path)
    for given in (FastText(path=place), FastText(path=place, newlines="nothing", max_chars=9)):
        assert given.files() == (f"{place}/model.bin", f"{place}/manifest.json") and given.libraries() == ("python",)
        written = FastText(path=str(path), newlines="nothing", lowercase=True, max_chars=9)
        assert (
            given.open().classify(pa.array(WRITTEN)).scores.tobytes()
            == written.open().classify(pa.array(WRITTEN)).scores.tobytes()
        )


@pytest.mark.parametrize(
    ("changes", "parameters", "said"),
    [
        (
            {},
            {"newlines": "space"},
            r'^newlines is "space", and the model was trained with "nothing" \(.*manifest\.json\); leave it out$',
        ),
        ({}, {"lowercase": False}, "^lowercase is false, and the model was trained with true"),
        ({}, {"max_chars": 10}, "^max_chars is 10, and the model was trained with 9"),
        ({"kind": "linear"}, {}, r"the model is of kind 'linear', not 'fasttext'; name it so: \{linear: \{path: "),
        (
            {"preprocessing": {"newlines": "space"}},
            {},
            "its preprocessing is .*; expected newlines, lowercase, max_chars, trailing",
        ),
        ({"preprocessing": 3}, {}, "cannot be read as the manifest of a model"),
        ({"files": {}}, {}, "cannot be read as the manifest of a model"),
        ({"files": {"model.bin": {"sha256": "0" * 64}}}, {}, r"model\.bin: not the model that manifest\.json beside it tells of"),
    ],
)
def test_a_manifest_that_says_otherwise(
    changes: dict[str, object], parameters: dict[str, object], said: str, path: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        FastText(path=folder(path, tmp_path, **changes), **parameters).open()  # type: ignore[arg-type]


def test_a_folder_without_a_model_or_a_manifest(path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.bin' is not a file"):
        FastText(path=str(tmp_path)).open()
    (tmp_path / "model.bin").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"manifest\.json: cannot be read as the manifest of a model"):
        FastText(path=str(tmp_path)).open()
