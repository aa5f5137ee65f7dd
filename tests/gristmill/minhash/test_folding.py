"""Texts that say the same in other code points have the same signature; texts that say something else do not."""

import unicodedata

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gristmill.minhash import folding
from gristmill.minhash.words import LETTER
from stages.dedup.minhash import DedupMinhash, signer
from tests.random_examples import examples
from tests.stages.dedup import slow_minhash as slow
from tests.stages.dedup.in_memory import run, table


def same(left, right, normalize=True):
    lanes, words = signer(2, 16, 0, normalize=normalize)(table([left, right])["text"])
    return bool((lanes[0] == lanes[1]).all() and words[0] == words[1])


PAIRS = [
    ("L\u2019ÉCOLE DES ÉLÈVES", "l\u2019école des élèves"),
    ("СЪЕШЬ ЕЩЁ БУЛОК", "съешь ещё булок"),
    ("ΟΔΥΣΣΕΥΣ ΚΑΙ ΟΔΟΣ", "οδυσσευς και οδος"),
    ("STRASSE", "straße"),
    ("IŞIK İLE IRMAK", "ışık ile ırmak"),
    ("ՀԱՅԵՐԵՆ", "հայերեն"),
    ("ᲥᲐᲠᲗᲣᲚᲘ", "ქართული"),
    ("Ｔｏｋｙｏ　２０２０", "tokyo 2020"),
    ("ｶﾞｲﾄﾞﾌﾞｯｸ", "ガイドブック"),
    ("co\u00adoper\u200bation", "cooperation"),
    ("می\u200cروم", "میروم"),
    ("wo\ufeffrd", "word"),
    ("كتابي على", "کتابی علی"),
    ("مُحَمَّدٌ", "محمد"),
    ("كـــتـــاب", "کتاب"),
    ("\ufedb\ufe98\ufe8e\ufe8f", "كتاب"),
    ("שָׁלוֹם", "שלום"),
    ("ﬁnal ﬂow", "final flow"),
    ("葛\U000e0100城", "葛城"),
    ("\u00e2\u0323", "\u1ead"),  # Vietnamese as windows-1258 has it: the mark in another order
    ("\u212b \u212a", "å k"),
]


@pytest.mark.parametrize(("left", "right"), PAIRS, ids=range(len(PAIRS)))
def test_the_same_said_otherwise(left, right):
    assert same(left, right)
    assert not same(left, right, normalize=False)


DIFFERENT = [
    ("résumé", "resume"),
    ("カ", "ガ"),
    ("は", "ば"),
    ("กา", "ก่า"),
    ("क्ष", "कष"),
    ("ä", "a"),
    ("café", "cafè"),
    ("x²", "x2"),
    ("كتاب", "كاتب"),
]


@pytest.mark.parametrize(("left", "right"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_something_else_said(left, right):
    assert not same(left, right)


LETTERS = "aé\u0301ậ한글ガか\u3099漢 ßſΣΌİı-Ａ\u0345ᾳأيक़ก่"


@examples(200)
@given(st.text(st.sampled_from(LETTERS), max_size=30) | st.text(max_size=30))
def test_normal_forms_are_the_same(text):
    text = text.encode("utf-8", "ignore").decode()
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assume("\u0345" not in decomposed)  # iota subscript is a letter when case is folded, and marks move across it
    assert same(composed, decomposed)


@examples(100)
@given(st.text(st.sampled_from(LETTERS), max_size=30), st.integers(1, 3), st.booleans())
def test_equal_the_transcription(text, ngram, normalize):
    lanes, words = signer(ngram, 4, 1, normalize=normalize)(table([text])["text"])
    assert lanes.tolist() == [slow.minhashes(text, ngram, 4, 1, normalize)]
    assert words.tolist() == [len(slow.words(text, normalize=normalize))]


@pytest.mark.parametrize("words", [2045, 2046, 2047, 2048, 2049])
def test_equal_the_transcription_across_buffers(words):
    text = "が" * words + "か\u3099か" + "é\u0323" * 3
    decomposed = unicodedata.normalize("NFD", text)
    lanes, _ = signer(1, 3, 0)(table([text, decomposed])["text"])
    assert lanes.tolist() == [slow.minhashes(text, 1, 3, 0)] * 2


def test_characters_of_later_unicode_stand_for_themselves():
    entries, _ = folding.normalized()
    for first, last in folding.LATER:
        assert (entries[first : last + 1] & 0xFFFFFF == np.arange(first, last + 1)).all()


def test_no_character_is_lost_that_is_not_named():
    """Letters of all scripts count as letters or single characters, with and without normalization."""
    entries, pool = folding.normalized()
    plain, _ = folding.plain()
    named = {point for first, last in folding.NOTHING for point in range(first, last + 1)}
    for point in np.flatnonzero(plain >> 24 == LETTER).tolist():
        entry = int(entries[point])
        kind = int(pool[(entry & 0xFFFFFF) + 1] if entry >> 24 == folding.SEQUENCE else entry) >> 24
        if kind == folding.IGNORED:
            assert {ord(part) for part in folding.fold(chr(point))} <= named


def test_numbers_are_the_same_only_if_asked_for():
    texts = ["page one has 1,234.5 words in 12 lines", "page one has 7 words in ٣٤ lines"]
    assert run(DedupMinhash(ngram=2), [texts]).num_rows == 0
    assert run(DedupMinhash(ngram=2, fold_numbers=True), [texts])["drop"].to_pylist() == [None, "near_duplicate"]


def test_copies_in_other_code_points_are_near_duplicates():
    text = " ".join(f"élève{i} à l\u2019école" for i in range(40))
    texts = [text, text.upper(), unicodedata.normalize("NFD", text), text.replace("l", "l\u00ad"), "autre chose que cela"]
    assert run(DedupMinhash(), [texts])["duplicate_of"].to_pylist() == [None, "d0", "d0", "d0"]
    assert run(DedupMinhash(normalize="none"), [texts]).num_rows == 0
