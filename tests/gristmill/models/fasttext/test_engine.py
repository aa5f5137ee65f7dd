"""The engine of fastText models against fastText itself: the same labels and scores for models of all shapes, on random texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.fasttext.fasttext import FastText
from gristmill.models.language_id import LanguageId
from tests.gristmill.models.fasttext.training import Shape, texts, train

SHAPES = [
    Shape(),
    Shape(dim=1, labels=1),
    Shape(dim=100, ngrams=2),
    Shape(dim=37, minn=2, maxn=4, ngrams=3, labels=40),
    Shape(dim=16, minn=0, maxn=3, bucket=7),
    Shape(dim=33, minn=3, maxn=3, ngrams=4, bucket=1),
    Shape(dim=6, minn=1, maxn=70),
    Shape(loss="hs", dim=16, minn=2, maxn=4, labels=30),
    Shape(loss="hs", dim=4, labels=2),
    Shape(loss="hs", labels=1, ngrams=2),
    Shape(loss="ova", dim=20, labels=7, ngrams=2),
    Shape(loss="ova", dim=48, minn=1, maxn=5),
    Shape(loss="ns", dim=8, labels=5, ngrams=4),
    Shape(quantized=True, dim=10),
    Shape(quantized=True, dim=10, qnorm=True, minn=2, maxn=3),
    Shape(quantized=True, dim=15, cutoff=280, qnorm=True, minn=2, maxn=4, ngrams=2, loss="hs", labels=20),
    Shape(quantized=True, dim=9, cutoff=300, dsub=4, ngrams=3, bucket=900),
    Shape(quantized=True, dim=7, qout=True, labels=300, dsub=3),
    Shape(quantized=True, dim=16, cutoff=260, minn=3, maxn=6, loss="ova", labels=4),
]


@pytest.fixture(scope="module", params=range(len(SHAPES)), ids=[shape.name() for shape in SHAPES])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    return train(SHAPES[request.param], request.param, tmp_path_factory.mktemp("shapes")), request.param


def test_labels_and_scores_are_those_of_fasttext(trained: tuple[Path, int]) -> None:
    import fasttext_new

    path, seed = trained
    theirs, ours = fasttext_new.load_model(str(path)), FastText(path=str(path)).open()
    assert ours.labels == tuple(label.removeprefix("__label__") for label in theirs.labels)
    asked = texts(seed)
    count = len(ours.labels)
    table, best = ours.classify(pa.array(asked), most=count).by_label(count), ours.classify(pa.array(asked))
    scored = 0
    for row, text in enumerate(asked):
        names, scores = theirs.predict(text.replace("\n", " "), k=-1, threshold=-1.0)
        expected = {name.removeprefix("__label__"): score for name, score in zip(names, scores, strict=True)}
        found = {label: score for label, score in zip(ours.labels, table[row], strict=True) if not np.isnan(score)}
        assert found.keys() == expected.keys(), text
        np.testing.assert_allclose([found[label] for label in expected], list(expected.values()), atol=1e-6, err_msg=text)
        if expected:
            (name,), (score,) = theirs.predict(text.replace("\n", " "))
            assert ours.labels[best.labels[row, 0]] == name.removeprefix("__label__") or np.ptp([*found.values()]) < 1e-6
            assert best.scores[row, 0] == pytest.approx(score, abs=1e-6)
            scored += 1
        else:
            assert best.labels[row, 0] == -1 and np.isnan(best.scores[row, 0])
    assert scored > 30


def test_neither_what_is_remembered_of_words_nor_where_rows_lie_changes_a_bit(
    trained: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seed = trained
    given, model = pa.array(texts(seed)), FastText(path=str(path)).open()
    first, again = model.classify(given), model.classify(given)
    monkeypatch.setattr("gristmill.models.fasttext.engine.WORDS", 3)
    forgetful = FastText(path=str(path)).open().classify(given)
    monkeypatch.setattr("gristmill.models.fasttext.engine.COPIED", 0)
    in_place = FastText(path=str(path)).open().classify(given)
    assert first.scores.tobytes() == again.scores.tobytes() == forgetful.scores.tobytes() == in_place.scores.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes() == forgetful.labels.tobytes() == in_place.labels.tobytes()


def test_lid_176_names_pages_as_fasttext_does(texts: pa.Table) -> None:
    import fasttext_new

    (path,) = LanguageId().files()
    lines = [text.replace("\n", " ") for text in texts["text"].to_pylist()]
    names, scores = fasttext_new.load_model(path).predict_batch(lines, k=1, threads=1)
    model = FastText(path=path).open()
    found = model.classify(texts["text"])
    assert [model.labels[label] for label in found.labels[:, 0]] == [name.removeprefix("__label__") for (name,) in names]
    np.testing.assert_allclose(found.scores[:, 0], np.concatenate(scores), atol=1e-6)
