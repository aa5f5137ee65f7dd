"""Perplexities against a direct transcription from the losses of single tokens, and what is said of files that do not fit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.models.ngram.kneser_ney import count, estimate
from gristmill.models.ngram.perplexity import Perplexity
from gristmill.models.ngram.store import load, save
from gristmill.tokenizer.tokenizer import Tokenizer
from stages.classify.classify import Classify
from stages.classify.kinds import PerplexityModel
from tests.stages.score.tiny_models import tokenizer_json

TEXTS = ["to be or not to be", "that is the question", "whether 'tis nobler", "", "ääää 12345 xyz", "to be"]
SEEN = pa.array(TEXTS[:3] * 3 + ["the mind to suffer the slings and arrows"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and a 3-gram model of its ids."""
    folder = tmp_path_factory.mktemp("perplexity")
    (folder / "tokenizer.json").write_text(tokenizer_json())
    tokenizer = Tokenizer.open(folder)
    save_counted(tokenizer, tokenizer.vocab_size, folder / "model.arrow")
    return folder


def save_counted(tokenizer: Tokenizer, vocab_size: int, path: Path) -> None:
    ids, bounds = tokenizer.encode(SEEN)
    save(estimate(count(ids, bounds, order=3, vocab_size=vocab_size), fallback=(0.5, 1.0, 1.5)), path)


def parameters(files: Path, max_chars: int | None = None) -> Perplexity:
    return Perplexity(model=str(files / "model.arrow"), tokenizer=str(files), max_chars=max_chars)


def ccnet(files: Path, text: str) -> float:
    """CCNet's `pp(log_score, length)`: 10 ** (-log_score / length), the score being the sum of log10 p, token by token."""
    ids, _ = Tokenizer.open(files).encode([text])
    losses = load(files / "model.arrow").open()
    log_score = 0.0
    for end in range(1, len(ids) + 1):
        log_score += -float(losses(ids[:end], np.array([0, end]))[-1]) / math.log(10)
    return 10.0 ** (-log_score / len(ids))


def test_a_perplexity_is_ccnets(files: Path) -> None:
    found = parameters(files).open().classify(pa.array(TEXTS))
    expected = [ccnet(files, text) if text else math.nan for text in TEXTS]
    assert np.allclose(found.scores[:, 0], expected, rtol=1e-6, equal_nan=True)
    assert found.labels[:, 0].tolist() == [0, 0, 0, -1, 0, 0]
    assert found.scores[4, 0] > 2 * found.scores[0, 0], "a text like none that was counted surprises more"


def test_neighbours_and_chunks_change_no_bit(files: Path) -> None:
    opened = parameters(files).open()
    many = [f"{a} {b}" for a in TEXTS for b in TEXTS] * 20
    found = opened.classify(pa.array(many)).scores
    assert opened.classify(pa.chunked_array([many[::-1][:7], many[::-1][7:]])).scores[::-1].tobytes() == found.tobytes()
    for i in range(0, 36, 5):
        assert opened.classify(pa.array(many[i : i + 1])).scores.tobytes() == found[i].tobytes()
    assert opened.classify(pa.array([], pa.string())).scores.shape == (0, 1)


def test_only_the_beginning_is_read(files: Path) -> None:
    cut = parameters(files, max_chars=5).open().classify(pa.array(TEXTS)).scores
    whole = parameters(files).open().classify(pa.array([text[:5] for text in TEXTS])).scores
    assert cut.tobytes() == whole.tobytes()


def test_it_is_a_column_of_classify(files: Path) -> None:
    stage = Classify(models={"surprise": PerplexityModel(perplexity=parameters(files))})
    stage.check()
    out = stage.open()(pa.table({"text": TEXTS}))["surprise"]
    assert out.type == pa.float32() and out.is_null().to_pylist() == [not text for text in TEXTS]
    assert out[0].as_py() == pytest.approx(ccnet(files, TEXTS[0]), rel=1e-6)
    assert stage.resources() is None and [Path(each).name for each in stage.files()] == ["model.arrow", "tokenizer.json"]


def test_files_that_do_not_fit(files: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(files)
    size = tokenizer.vocab_size
    save_counted(tokenizer, size + 1, tmp_path / "more.arrow")
    with pytest.raises(
        InputError, match=rf"more\.arrow': knows {size + 1} ids, the tokenizer '.*' has {size}; give the tokenizer"
    ):
        Perplexity(model=str(tmp_path / "more.arrow"), tokenizer=str(files)).open()
    (tmp_path / "none.arrow").write_text("no model")
    with pytest.raises(InputError, match=r"none\.arrow"):
        Perplexity(model=str(tmp_path / "none.arrow"), tokenizer=str(files)).open()
    for given, said in (({"model": ""}, "model is empty: give its path"), ({"max_chars": 0}, "max_chars is 0; give at least 1")):
        with pytest.raises(ValueError, match=said):
            Perplexity(**{"model": "m", "tokenizer": "t", **given})  # type: ignore[arg-type]
