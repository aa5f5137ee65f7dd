"""Linear classifiers as models of texts: against a transcription in plain Python, on random texts and random models."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.models.linear.file import Features, Model, encode, outputs_of
from gristmill.models.linear.linear import HASHES, Linear, OpenedLinear
from gristmill.models.protocols import TextClassifier, TextModel
from tests.gristmill.models.linear import slow
from tests.random_examples import examples

TEXTS = ["A fine sentence, isn't it?\nÉté ÉTÉ", "x = f(y);", "", " \t ", "漢字かな交じり文 mixed", "ΑΣ ας", "one " * (HASHES + 5)]
ALPHABET = st.sampled_from("aAbZ 09\n.,(\u00a0\u3000éÉßΣς漢字かไท🙂\u0301İı")


def random_model(features: Features, labels: tuple[str, ...], seed: int = 0) -> Model:
    """A model with weights in every row."""
    random, outputs = np.random.default_rng(seed), outputs_of(labels)
    weights = random.integers(-32767, 32768, (1 << features.bits, outputs)).astype(np.int16)
    return Model(features, labels, 3e-4, weights, random.normal(size=outputs))


@given(
    st.lists(st.text(ALPHABET, max_size=40), min_size=1, max_size=5),
    st.builds(
        Features,
        words=st.sampled_from(["letters", "marks", "spaces"]),
        lowercase=st.booleans(),
        ngrams=st.integers(1, 4),
        bits=st.just(10),
        max_chars=st.none() | st.integers(1, 30),
    ),
    st.sampled_from([("no", "yes"), ("a", "b", "c", "d")]),
)
@examples(200)
def test_the_loops_compute_what_is_written_down(texts: list[str], features: Features, labels: tuple[str, ...]) -> None:
    model = random_model(features, labels)
    found = OpenedLinear(model).probabilities(pa.array(texts))
    for row, text in zip(found, texts, strict=True):
        expected = slow.probabilities(text, model)
        assert np.isnan(row).all() if expected is None else np.allclose(row, expected, atol=1e-7)


def test_words_of_texts_longer_than_the_room_for_hashes() -> None:
    for ngrams in (1, 3):
        model = random_model(Features(words="letters", ngrams=ngrams, bits=12), ("no", "yes"))
        text = " ".join(f"w{i}" for i in range(2 * HASHES + 3))
        expected = slow.probabilities(text, model)
        assert expected is not None
        np.testing.assert_allclose(OpenedLinear(model).probabilities(pa.array([text]))[0], expected, atol=1e-7)


def test_the_best_labels_come_first(tmp_path: Path) -> None:
    model = random_model(Features(bits=10), ("a", "b", "c"))
    opened = OpenedLinear(model)
    found, table = opened.classify(pa.array(TEXTS), most=2), opened.probabilities(pa.array(TEXTS))
    assert (found.labels.dtype, found.scores.dtype, found.labels.shape) == (np.int32, np.float32, (len(TEXTS), 2))
    for text, labels, scores, row in zip(TEXTS, found.labels, found.scores, table, strict=True):
        if not text.strip():
            assert labels.tolist() == [-1, -1] and np.isnan(scores).all()
        else:
            assert labels.tolist() == np.argsort(-row, kind="stable")[:2].tolist()
            assert scores.tolist() == row[labels].tolist()
    assert opened.classify(pa.array(TEXTS), most=9).labels.shape == (len(TEXTS), 3)


def test_equal_texts_have_equal_bits_in_any_company(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(encode(random_model(Features(bits=12), ("no", "yes"))))
    parameters: TextModel = Linear(path=str(file))
    opened: TextClassifier = pickle.loads(pickle.dumps(parameters)).open()
    whole = opened.classify(pa.array(TEXTS)).scores.tobytes()
    chunked = pa.chunked_array([pa.array(["other", *TEXTS[:3]]).slice(1), pa.array([], pa.string()), pa.array(TEXTS[3:])])
    assert opened.classify(chunked).scores.tobytes() == whole
    single = [opened.classify(pa.array(["x", text, "y"])).scores[1].tobytes() for text in TEXTS]
    assert b"".join(single) == whole
    assert opened.classify(pa.array([], pa.string())).scores.shape == (0, 1)


def test_capitals_and_composed_letters() -> None:
    rows = [slow.rows(text, Features(words="letters")) for text in ("Été ΑΣ Straße", "été ας straße")]
    assert rows[0][0] == rows[1][0] and rows[0][2] == rows[1][2]
    assert slow.rows("Aa", Features(lowercase=False)) != slow.rows("aa", Features(lowercase=False))


def test_a_null_among_the_texts_is_refused() -> None:
    opened = OpenedLinear(random_model(Features(bits=10), ("no", "yes")))
    with pytest.raises(ValueError, match=r"texts\[1\] is null"):
        opened.classify(pa.array(["a", None]))
    with pytest.raises(ValueError, match="most is 0"):
        opened.classify(pa.array(["a"]), most=0)


def test_a_folder_is_its_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a file"):
        Linear(path=str(tmp_path)).files()
    (tmp_path / "model.bin").write_bytes(encode(random_model(Features(bits=10), ("no", "yes"))))
    assert Linear(path=str(tmp_path)).files() == Linear(path=str(tmp_path / "model.bin")).files()
    assert Linear(path=str(tmp_path)).open().labels == ("no", "yes")
