"""What the language model is asked: the same language for a text however it is spaced, spelt in Unicode, or capitalised."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.language_text import beginning, lowered, spaced
from stages.filter.language import Language
from tests.random_examples import examples

TEXTS = {
    "en": "The ferry leaves at noon and returns before the evening tide turns",
    "fr": "Le bac part à midi et revient avant la marée du soir, même en été",
    "de": "Die Fähre fährt mittags ab und kommt vor der Flut am Abend zurück",
    "ru": "Паром отходит в полдень и возвращается до вечернего прилива",
    "tr": "İskeleden öğlen kalkan vapur akşam sularında geri dönüyor, ışıkları yanıyor",
    "el": "Το πλοίο φεύγει το μεσημέρι και γυρίζει πριν από το βράδυ, όπως κάθε χρόνος",
    "pl": "Prom odpływa w południe i wraca przed wieczornym przypływem, jak zawsze",
}


def ask(texts, **options):
    found = Language(min_score=0, **options).open()(pa.table({"text": texts}))
    return found["language"].to_pylist(), found["language_score"].to_pylist()


def capitals(language):
    text = TEXTS[language]
    return text.replace("i", "İ").replace("ı", "I").upper() if language == "tr" else text.upper()


@pytest.mark.parametrize("language", TEXTS)
def test_capitals_are_the_same_language(language):
    labels, scores = ask([TEXTS[language], capitals(language)])
    assert labels == [language, language]
    assert abs(scores[0] - scores[1]) < 0.1


def test_capitals_as_they_are_fool_the_model():
    labels, _ = ask([capitals(language) for language in ("en", "fr", "de")], normalize="none")
    assert labels != ["en", "fr", "de"]


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u3000", "\t", "\r\n", "\u2028", "  \n ", "\u202f", "\u0085"])
@pytest.mark.parametrize("language", ["en", "fr"])
def test_any_white_space_is_a_space(language, space):
    text = TEXTS[language]
    spread = space * 3 + text.replace(" ", space) + space
    assert ask([spread]) == ask([text])
    assert ask([spread], max_chars=30) == ask([text], max_chars=30)


@pytest.mark.parametrize("sign", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\u200d", "\u200c", "\u200e"])
def test_invisible_characters_are_not_there(sign):
    text = TEXTS["de"]
    assert ask([sign.join(text)]) == ask([text])


def test_joiners_of_arabic_and_indic_scripts_stay():
    assert spaced("می\u200cروم क्\u200dष") == "می\u200cروم क्\u200dष"


def test_full_width_forms_are_ascii():
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in TEXTS["en"])
    assert ask([wide, wide.upper()])[0] == ["en", "en"]
    assert ask([wide]) == ask([TEXTS["en"]])


@pytest.mark.parametrize("language", ["fr", "de", "ru", "el"])
def test_composed_and_decomposed_text_is_the_same(language):
    assert ask([unicodedata.normalize("NFD", TEXTS[language])]) == ask([unicodedata.normalize("NFC", TEXTS[language])])


@pytest.mark.parametrize("language", ["en", "fr", "de"])
def test_a_heading_in_capitals_before_text(language):
    heading = capitals(language)
    labels, scores = ask([f"{heading}\n\n{TEXTS[language]}. {TEXTS[language]}.", f"{heading}\n{TEXTS[language]}"], max_chars=100)
    assert labels == [language, language]
    assert min(scores) > 0.65


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MY FRIEND IS A BIRD", "my friend is a bird"),
        ("NASA and the EU met.", "NASA and the EU met."),
        ("A Title Of Words", "A Title Of Words"),
        ("HOW TO BAKE BREAD We begin with flour", "how to bake bread We begin with flour"),
        ("HOW TO - BAKE 12 LOAVES! We begin with flour and so on", "how to - bake 12 loaves! We begin with flour and so on"),
        ("ΟΔΟΣ", "οδος".replace("σ", "σ")[:-1] + "ς"),
        ("IŞIK VE ĞÜNEŞ", "ışık ve ğüneş"),
        ("İYİ IŞIK", "iyi ışık"),
        ("STRASSE", "strasse"),
        ("猫 WHO", "猫 who"),
        ("", ""),
        ("12 34", "12 34"),
    ],
)
def test_what_becomes_lower_case(text, expected):
    assert lowered(text) == expected


@examples(150)
@given(st.text(max_size=60))
def test_asking_twice_changes_nothing(text):
    once = spaced(text)
    assert spaced(once) == once
    assert once == once.strip()
    assert not any(character.isspace() and character != " " for character in once)
    assert lowered(once).upper() == lowered(lowered(once)).upper()


@examples(100)
@given(st.text(st.sampled_from("ab é e\u0301\u200b\u00a0\n Ａ"), max_size=300), st.integers(1, 12))
def test_the_beginning_is_that_of_the_whole(text, size):
    text = text * 4
    assert beginning(text, size) == spaced(text)[:size]
    assert beginning(text, None) == spaced(text)


def test_batches_do_not_matter_and_documents_stay_as_they_are():
    texts = [capitals("fr"), TEXTS["en"].replace(" ", "\u00a0"), "", " ", "\u200b"]
    stage = Language(min_score=0).open()
    whole = stage(pa.table({"text": texts}))
    assert whole["text"].to_pylist() == texts
    assert whole.equals(pa.concat_tables([stage(pa.table({"text": [text]})) for text in texts]))


def test_marks_without_end_cost_no_more_than_letters():
    # 400,000 marks on one letter in turns of two classes: sorted two by two they take 5 minutes.
    piled = "a" + "\u0301\u0316" * 200_000
    assert len(spaced(piled + " b")) < 64
    assert spaced("cafe\u0301 " + piled).startswith("café á")


@pytest.mark.parametrize("count", [1, 5, 29, 30])
def test_marks_of_languages_are_kept(count):
    text = "x" + "\u0316" * count + " y"
    assert spaced(text + "e\u0301") == text + "é"
