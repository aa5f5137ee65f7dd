"""`stages.filter.languages` and the codes it shares: votes, agreement, labels of other identifiers, what is no language."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.errors import InputError
from gristmill.models.language_codes import TWO, common
from gristmill.models.language_id import LABELS, LanguageId
from stages.filter.languages import Languages

ENGLISH = "The cat sat on the mat and looked at the rain that fell on the garden. It was cold, and nobody came to see the house."
GERMAN = "Der Hund lag vor dem Ofen und schlief, während draußen der Regen fiel. Niemand kam, und es wurde dunkel im Haus."
LID, BAYES = LanguageId(), LanguageId(model="py3langid")


def docs(*texts: str) -> pa.Table:
    return pa.table({"text": list(texts)})


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("en", "en"),
        ("eng", "en"),
        ("eng_Latn", "en"),
        ("zho_Hans", "zh"),
        ("cmn_Hani", "zh"),
        ("arb_Arab", "ar"),
        ("arz_Arab", "arz"),
        ("als_Latn", "sq"),
        ("zxx_Zzzz", "zxx"),
        ("und", "und"),
        ("und_Cyrl", "und"),
        ("noise", "und"),
        ("", "und"),
        ("pt-BR", "pt"),
        ("qaa_Latn", "qaa"),
    ],
)
def test_codes(label: str, code: str) -> None:
    assert common(label) == code


def test_codes_are_those_of_lid_176_but_for_those_that_wikipedia_made_up() -> None:
    moved = {code: common(code, wikipedia=True) for code in LABELS if common(code, wikipedia=True) != code}
    assert moved == {"als": "gsw", "eml": "egl", "bh": "bih"}
    assert all(common(code) == code for code in TWO.values())


def test_votes() -> None:
    stage = Languages(identifiers={"lid": LID, "bayes": BAYES}, keep=("en",), agree=2)
    stage.check()
    out = stage.open()(docs(ENGLISH, GERMAN, "123 456 ...", "12"))
    assert out["language_lid"].to_pylist()[:2] == ["en", "de"] == out["language_bayes"].to_pylist()[:2]
    assert out["language"].to_pylist()[:2] == ["en", "de"] and out["language_agree"].to_pylist()[:2] == [2, 2]
    assert out["drop"].to_pylist() == [None, "language", "languages_disagree", "languages_disagree"]
    both = [out[f"language_{name}_score"][0].as_py() for name in ("lid", "bayes")]
    assert out["language_score"][0].as_py() == pytest.approx(sum(both) / 2, abs=1e-6)
    assert out["language_bayes"][2].as_py() is None, "py3langid has no features of digits"


def test_who_is_first_is_believed_where_nobody_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.filter.languages import _vote

    languages, scores, agree = _vote(
        [["en", "en", None, "und"], ["de", "de", None, "zxx"], ["fr", "de", None, None]],
        [pa.array([0.5, 0.9, 0.0, 0.4], pa.float32()).to_numpy()] * 3,
    )
    assert languages.to_pylist() == ["en", "de", None, "zxx"] and agree.to_pylist() == [1, 2, 0, 1]
    assert scores.to_pylist() == pytest.approx([0.5, 0.9, None, 0.4])


def test_explain() -> None:
    stage = Languages(identifiers={"lid": LID, "bayes": BAYES}, keep=("fr",), agree=2)
    before = docs(ENGLISH)
    said = stage.explain(before, stage.open()(before))
    assert [(each.name, each.decisive) for each in said[:2]] == [("language_agree", False), ("language", True)]
    assert {each.name: each.value for each in said}["language_bayes"] == "en"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"identifiers": {}}, "^identifiers names none"),
        ({"identifiers": {"score": LID}}, "^identifiers: 'score'"),
        ({"identifiers": {"A b": LID}}, "^identifiers: 'A b'"),
        ({"identifiers": {"lid": LID}, "agree": 2}, "^agree is 2; there are 1"),
        ({"identifiers": {"lid": LID}, "agree": 0}, "^agree is 0"),
        ({"identifiers": {"lid": LID}, "keep": ("eng_Latn",)}, r"^keep: 'eng_Latn' is 'en' here"),
    ],
)
def test_mistakes(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Languages(**given)  # type: ignore[arg-type]


def test_a_language_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no identifier knows the language 'qaa'"):
        Languages(identifiers={"lid": LID}, keep=("qaa",)).check()
    with pytest.raises(InputError, match="is not a file"):
        Languages(identifiers={"lid": LanguageId(model=str(tmp_path / "x.bin"))}).files()
